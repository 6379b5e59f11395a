"""Writes the audit log on a thread of its own, so that no request waits for a disk.

    request ──▶ queue, of so many at most ──▶ thread ──▶ PATH, and when that is full: PATH.1, PATH.2, ...

What finds the queue full, or cannot be written, is lost; the log says how many were, and so does a metric.
"""

import fcntl
import logging
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.audit.chain import LOST, OPENED, last_chain, link
from service.audit.record import Record
from service.errors import ConfigurationError

logger = logging.getLogger(__name__)

_MOST_WAITING = 20_000
_AT_ONCE = 500
_CLOSE_S = 10.0


def require_writable(path: Path, workers: int) -> None:
    """Refuses a file that a service could not keep its audit log in.

    Raises:
        ConfigurationError: it cannot be written, another process writes it, or several would.
    """
    if workers > 1:
        raise ConfigurationError(
            f"{path}: an audit log is written by one worker, and {workers} are asked for; ask for one"
        )
    with _explained(path):
        os.close(_opened(path))


class AuditLog:
    """One process's; another that has the same file open is refused.

    Args:
        most_bytes: of a file; one that would be larger is renamed, and a new one begun.
        files: so many renamed ones are kept.
        lost: told how many records were lost.

    Raises:
        ConfigurationError: the file cannot be written, or another process writes it.
    """

    def __init__(self, path: Path, most_bytes: int, files: int, lost: Callable[[int], None]) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._files = files
        self._tell_lost = lost
        self._queue: queue.SimpleQueue[tuple[datetime, Record] | None] = queue.SimpleQueue()
        self._lost = 0  # and not yet told in the log
        self._counting = threading.Lock()  # requests and the thread lose records
        self._broken = False
        with _explained(path):
            self._descriptor = _opened(path)
            self._chain = last_chain(path)
            self._begin()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def note(self, record: Record) -> None:
        """Takes a record; never waits."""
        if self._queue.qsize() >= _MOST_WAITING:
            self._lose(1)
            return
        self._queue.put((datetime.now(UTC), record))

    def close(self) -> None:
        """Writes what was taken."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        os.close(self._descriptor)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            taken = [first]
            ended = False
            while len(taken) < _AT_ONCE and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    ended = True
                    break
                taken.append(following)
            try:
                self._write(taken)
            except (OSError, ConfigurationError) as error:
                self._lose(len(taken))
                if not self._broken:
                    reason = getattr(error, "strerror", None) or error
                    logger.error("%s: the audit log cannot be written: %s; records are lost", self._path, reason)
                self._broken = True
            else:
                if self._broken:
                    logger.warning("%s: the audit log can be written again", self._path)
                self._broken = False
            if ended:
                return

    def _write(self, taken: Sequence[tuple[datetime, Record]]) -> None:
        if self._is_gone():
            self._reopen()
            logger.error("%s: the audit log was removed or replaced; a new one goes on", self._path)
        elif os.fstat(self._descriptor).st_size >= self._most_bytes:
            self._rotate()
            self._reopen()
        lost = self._lost
        entries = [_entry(when, "request", record.fields()) for when, record in taken]
        if lost:
            entries.insert(0, _entry(datetime.now(UTC), LOST, {"records": lost}))
        self._append(entries)
        with self._counting:
            self._lost -= lost

    def _append(self, entries: list[dict[str, Any]]) -> None:
        """Writes them all or, but for a part of a line, none."""
        chain, lines = self._chain, []
        for entry in entries:
            line, chain = link(chain, entry)
            lines.append(line)
        content = b"".join(lines)
        before = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(content):
                written += os.write(self._descriptor, content[written:])
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise
        self._chain = chain

    def _begin(self) -> None:
        """A line that says which one it follows, behind one that was not finished."""
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
        self._append([_entry(datetime.now(UTC), OPENED, {"follows": self._chain})])

    def _rotate(self) -> None:
        for number in range(self._files, 0, -1):
            older = self._path if number == 1 else self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        if not self._files:
            self._path.unlink()

    def _is_gone(self) -> bool:
        own = os.fstat(self._descriptor)
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return (own.st_dev, own.st_ino) != (found.st_dev, found.st_ino)

    def _reopen(self) -> None:
        descriptor = _opened(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._begin()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _lose(self, records: int) -> None:
        with self._counting:
            self._lost += records
        self._tell_lost(records)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{path}: the audit log cannot be written: {error.strerror}") from error


def _opened(path: Path) -> int:
    """A descriptor, locked, of a file for its owner alone: it says who asks what."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe that nobody reads would hold up the thread
        os.close(descriptor)
        raise ConfigurationError(f"{path}: is no regular file, and the audit log needs one")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(
            f"{path}: another process writes this audit log; give each service a file of its own"
        ) from None
    return descriptor


def _entry(when: datetime, event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "event": event, **fields}
