"""Bundles on disk: written whole or not at all, verified byte by byte when opened."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compression.bundle.atomic_files import replacing
from compression.bundle.manifest import FileName, Manifest
from compression.errors import BundleError

MANIFEST = "bundle.json"
MODEL = "model.onnx"
MODEL_ZSTD = "model.onnx.zst"
TOKENIZER = "tokenizer.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its directory, and its manifest."""

    path: Path
    manifest: Manifest

    @cached_property
    def version(self) -> str:
        """The first twelve digits of the manifest's version: what answers, metrics and tags call this bundle."""
        return self.manifest.version()[:12]

    @property
    def model_path(self) -> Path:
        return self.path / (MODEL_ZSTD if MODEL_ZSTD in self.manifest.files else MODEL)

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER


def open_bundle(path: str | Path) -> Bundle:
    """Reads the manifest and compares every file with its sha256.

    Raises:
        BundleError: no bundle, one from another version of Lathe, or a file that is missing or changed, which it names.
    """
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{path}: not a bundle, it has no {MANIFEST}; make one with lathe compress")
    try:
        manifest = Manifest.from_json(manifest_path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{manifest_path}: {error}; make the bundle anew with lathe compress") from error
    for required in ((MODEL, MODEL_ZSTD), (TOKENIZER,)):
        if not any(name in manifest.files for name in required):
            raise BundleError(f"{manifest_path}: lists no {required[0]}; make the bundle anew with lathe compress")
    for name, expected in manifest.files.items():
        if not _PLAIN_NAME.fullmatch(name):
            raise BundleError(f"{manifest_path}: {name!r} is no plain file name")
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: missing; copy the bundle again")
        actual = _sha256(path / name)
        if actual != expected:
            raise BundleError(f"{path / name}: sha256 is {actual}, the manifest says {expected}; copy the bundle again")
    return Bundle(path, manifest)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[FileName, bytes]) -> Bundle:
    """Writes a bundle beside its destination, reads it back and moves it there; an older bundle is replaced.

    Args:
        manifest: its `files` are filled in here.
        files: contents by name, without the manifest.

    Raises:
        BundleError: `path` holds something that is not a bundle.
        StorageError: the disk is full, or the directory cannot be written; nothing is left of it.
    """
    require_replaceable(path)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = manifest.model_copy(update={"files": digests})
    with replacing(path, "make room there, or name another directory with --out") as staging:
        staging.mkdir()
        for name, content in {**files, MANIFEST: manifest.to_json().encode()}.items():
            (staging / name).write_bytes(content)
        open_bundle(staging)
    return Bundle(path, manifest)


def require_replaceable(path: Path) -> None:
    """Refuses a destination that would be overwritten though it is not a bundle.

    Raises:
        BundleError: names it.
    """
    if Path.cwd().is_relative_to(path.resolve()):
        raise BundleError(f"{path}: holds the directory that you are in; name another for the bundle")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise BundleError(f"{place}: is a file; name a directory for the bundle")
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: holds files that are not a bundle; name another directory or empty it")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
