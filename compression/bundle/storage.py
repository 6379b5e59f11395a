"""Bundles on disk: written whole or not at all, verified byte by byte when opened, and again when a file is read.

Whatever happens to a file after that, what is loaded is what its manifest, and so its version, says.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import zstandard

from compression.bundle.atomic_files import replacing, require_writable
from compression.bundle.manifest import FileName, Manifest, task_of
from compression.bundle.task import Labelling, Logits, Task
from compression.errors import BundleError

MANIFEST = "bundle.json"
MODEL = "model.onnx"
MODEL_ZSTD = "model.onnx.zst"
TOKENIZER = "tokenizer.json"
_MEGABYTE = 2**20
_MAX_BYTES = 64 * _MEGABYTE  # of a file that is no model: vocabularies of 250,000 pieces take 17 MB
_MAX_MODEL_BYTES = 2048 * _MEGABYTE  # unpacked: ONNX knows no larger file
_MAX_UNPACKED = 32  # times what it was packed: weights, of which three quarters are zero, unpack to some 5 times
_OUT_REMEDY = "make room there, or name another directory with --out"
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

    @cached_property
    def task(self) -> Task:
        """How its logits become answers."""
        return task_of(self.manifest)

    def abstains(self, logits: Logits) -> Sequence[bool | None]:
        """Of each text, whether the bundle is less sure of its answer than it has to be; None where nothing says so.

        Args:
            logits: (texts, labels), as the model gives them.
        """
        options = self.manifest.runtime
        if options.abstain is None or not isinstance(self.task, Labelling):
            return [None] * len(logits)
        confidence = self.task.answer_confidence(logits, options.temperature)
        return (confidence < options.abstain.below).tolist()  # type: ignore[no-any-return]

    @property
    def model_path(self) -> Path:
        return self.path / (MODEL_ZSTD if MODEL_ZSTD in self.manifest.files else MODEL)

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER

    def read(self, name: FileName) -> bytes:
        """The content of one of its files, which has the digest that the manifest says.

        Raises:
            BundleError: it has changed since the bundle was opened.
        """
        content = _regular(self.path, name).read_bytes()
        _require_digest(self.path / name, hashlib.sha256(content).hexdigest(), self.manifest.files[name])
        return content

    def model(self) -> bytes:
        """The ONNX model, unpacked where it is stored compressed.

        Raises:
            BundleError: see `read`; or it unpacks to more than a model of that size does.
        """
        return unpacked(self.model_path, self.read(self.model_path.name))

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """A private directory with verified copies of the files that hold weights of the model, for the time of the
        block: ONNX Runtime maps such files, and whoever could write to them would change answers.

        Raises:
            BundleError: one has changed since the bundle was opened.
        """
        with tempfile.TemporaryDirectory(prefix="lathe-", ignore_cleanup_errors=True) as folder:
            for name, expected in self.manifest.files.items():
                if name.startswith(f"{MODEL}.") and name != MODEL_ZSTD:
                    copy = Path(folder, name)
                    shutil.copyfile(_regular(self.path, name), copy)
                    _require_digest(self.path / name, _sha256(copy), expected)
            yield Path(folder)


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
        manifest = Manifest.from_json(_regular(path, MANIFEST).read_bytes())
    except ValueError as error:
        raise BundleError(f"{manifest_path}: {error}; make the bundle anew with lathe compress") from error
    for required in ((MODEL, MODEL_ZSTD), (TOKENIZER,)):
        if not any(name in manifest.files for name in required):
            raise BundleError(f"{manifest_path}: lists no {required[0]}; make the bundle anew with lathe compress")
    for name, expected in manifest.files.items():
        if not _PLAIN_NAME.fullmatch(name):
            raise BundleError(f"{manifest_path}: {name!r} is no plain file name")
        _require_digest(path / name, _sha256(_regular(path, name)), expected)
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
    with replacing(path, _OUT_REMEDY) as staging:
        staging.mkdir()
        for name, content in {**files, MANIFEST: manifest.to_json().encode()}.items():
            (staging / name).write_bytes(content)
        open_bundle(staging)
    return Bundle(path, manifest)


def require_replaceable(path: Path) -> None:
    """Refuses a destination that would be overwritten though it is not a bundle, or that cannot be written.

    Raises:
        BundleError: names it.
        StorageError: it cannot be written.
    """
    if Path.cwd().is_relative_to(path.resolve()):
        raise BundleError(f"{path}: holds the directory that you are in; name another for the bundle")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise BundleError(f"{place}: is a file; name a directory for the bundle")
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: holds files that are not a bundle; name another directory or empty it")
    require_writable(path.absolute().parent, _OUT_REMEDY)


def _regular(folder: Path, name: FileName) -> Path:
    """A file of a bundle's.

    Raises:
        BundleError: there is none, it is elsewhere, or larger than any that is made.
    """
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{path}: missing; copy the bundle again")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path}: a link that leads out of the bundle; copy the file itself")
    size = path.stat().st_size
    if size > _MAX_BYTES and not name.startswith(MODEL):
        raise BundleError(f"{path}: has {size} bytes, and {_MAX_BYTES} are allowed")
    return path


def _require_digest(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise BundleError(f"{path}: sha256 is {actual}, the manifest says {expected}; copy the bundle again")


def unpacked(path: Path, content: bytes) -> bytes:
    """A model as ONNX Runtime takes it, from the content of its file.

    Raises:
        BundleError: it is damaged, or unpacks to more than a model of that size does.
    """
    if path.suffix != ".zst":
        return content
    most = min(_MAX_MODEL_BYTES, max(_MEGABYTE, _MAX_UNPACKED * len(content)))
    try:
        size = zstandard.get_frame_parameters(content).content_size
        if size > most and size != zstandard.CONTENTSIZE_UNKNOWN:
            raise BundleError(f"{path}: unpacks to {size} bytes, and {most} are allowed for its size")
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=most)
    except zstandard.ZstdError as error:
        raise BundleError(f"{path}: cannot be unpacked to at most {most} bytes: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
