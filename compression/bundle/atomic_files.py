"""Writes files and directories whole or not at all, and says in one sentence what stopped it.

.NAME.x1y2/NAME   what is being written: a killed run leaves no more than this
NAME              is there when it is complete, and not before
"""

import ctypes
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compression.errors import LatheError, StorageError

_ABANDONED_AFTER_S = 3600.0  # nothing here takes nearly as long to write
CACHE_REMEDY = "make room there, or name another directory with --cache"
_STOPPED_BY = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """Gives a place to write a file or a directory to, which takes the place of `path` when the block ends well.

    Args:
        remedy: what to do where `path` cannot be written, for the error.

    Raises:
        StorageError: it cannot be written; `path` is as it was.
    """
    with explained(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(path)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield staging / path.name
            _replace(staging / path.name, path, staging / "replaced")
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def require_writable(folder: Path, remedy: str) -> None:
    """Tries, before the work, whether files can be made in a directory, or in what there is of its path.

    Raises:
        StorageError: see `replacing`.
    """
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise StorageError(f"{folder}: {nearest} cannot be written to: {error.strerror}; {remedy}") from error


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards.

    Raises:
        StorageError: there is no room for it.
    """
    with (
        explained(Path(tempfile.gettempdir()), "make room there, or set TMPDIR to another directory"),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


@contextmanager
def explained(path: Path, remedy: str) -> Iterator[None]:
    """Turns what the block could not write at or below `path` into a StorageError."""
    try:
        yield
    except LatheError:
        raise
    except Exception as error:  # libraries in Rust and C++ put the system's words into exceptions of their own
        found = error.errno if isinstance(error, OSError) else None
        reason = next(
            (os.strerror(code) for code in _STOPPED_BY if code == found or os.strerror(code) in str(error)), None
        )
        if reason is None:
            raise
        raise StorageError(f"{path}: cannot be written: {reason}; {remedy}") from error


def take_after(descriptor: int, other: Path) -> None:
    """Gives an open file the mode, owner and group of another.

    Raises:
        PermissionError: it has that mode, and would need to be given to somebody else.
    """
    old, new = other.stat(), os.fstat(descriptor)
    os.fchmod(descriptor, old.st_mode & 0o7777)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)


def _replace(new: Path, path: Path, old: Path) -> None:
    """Moves `new` to `path`; what is there goes to `old`, or changes places with it."""
    if not path.is_dir():  # a file is replaced in one move, a directory is not
        os.replace(new, path)
    elif not _exchange(new, path):
        os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Lets two directories change places in one step; False where the system or the filesystem has none (renameat2)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _clear_abandoned(path: Path) -> None:
    """Removes what killed runs left of earlier attempts at this path."""
    for left in path.parent.glob(f".{path.name}.*/"):
        with suppress(FileNotFoundError):  # a run beside this one may be first
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)
