"""Everything that can go wrong while compressing, for the user to read.

LatheError
├── DataError         a data file: missing, unreadable, a column or a label that is not there
├── CheckpointError   a parent: not found, not safetensors, not a classifier, wrong digest
├── RecipeError       a recipe: unknown name, unknown key, value out of range
├── VerificationError the result is not inside the recipe's budget
├── StorageError      a disk that is full, or a directory that cannot be written
├── BundleError       a bundle: missing file, wrong digest, unknown schema, wrong signature
├── SigningError      a key that signs bundles, or checks them: missing, of another kind
├── MissingExtra      packages that come with an extra which is not installed
└── Interrupted       stopped by Ctrl-C; exit code 130
"""

from collections.abc import Mapping
from typing import ClassVar


class LatheError(Exception):
    """A failure whose message names the value at fault and the remedy; command lines print it without a traceback.

    Attributes:
        exit_code: of a command that fails so.
    """

    exit_code: ClassVar[int] = 1


class DataError(LatheError):
    """A data file cannot be used."""


class CheckpointError(LatheError):
    """A parent model cannot be loaded, or must not be."""


class RecipeError(LatheError):
    """A recipe cannot be read or asks for something impossible."""


class VerificationError(LatheError):
    """The compressed model costs more than the recipe's budget allows.

    Attributes:
        reached: by each bound that was not kept, what was measured; empty where the model has collapsed.
    """

    def __init__(self, message: str, reached: Mapping[str, float | None] | None = None) -> None:
        super().__init__(message)
        self.reached = reached or {}


class StorageError(LatheError):
    """Something cannot be written where it should be."""


class BundleError(LatheError):
    """A bundle cannot be opened, or is not what its manifest says."""


class SigningError(LatheError):
    """A key that signs bundles, or checks their signatures, cannot be read or made."""


class MissingExtra(LatheError):
    """What was asked for needs packages that are not installed; the message says which extra brings them."""


class Interrupted(LatheError):
    """Stopped by the one who started it; the message says how to go on."""

    exit_code = 130  # 128 and the signal's number, as shells have it
