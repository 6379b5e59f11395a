"""Where a user's home and cache are."""

import os
from pathlib import Path

import click

from compression.errors import StorageError
from compression.options import DIRECTORY


def cache_folder() -> Path:
    """The one that is used unless another is named."""
    given = os.environ.get("XDG_CACHE_HOME", "")  # by its specification, a path that is not absolute is ignored
    if os.path.isabs(given):
        return Path(given) / "lathe"
    return home("set XDG_CACHE_HOME, or name a directory with --cache") / ".cache" / "lathe"


def home(remedy: str) -> Path:
    """The user's.

    Raises:
        StorageError: there is none; says what to do then.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise StorageError(f"this user has no home directory; {remedy}") from None


cache_option = click.option(
    "--cache",
    type=DIRECTORY,
    default=cache_folder,
    show_default="$XDG_CACHE_HOME/lathe, or ~/.cache/lathe",
    help="Finished steps (up to 8 GB) and searches are kept there; a run that was stopped goes on from them.",
)
