"""Lines that hold each other: each ends with a hash over itself and the hash of the line before it.

    {"time": ..., "event": "opened", "follows": HASH OF THE LAST LINE BEFORE, "chain": HASH}
    {"time": ..., "event": "request", ..., "chain": HASH}

Whoever changes, removes or moves a line would have to write all later ones anew. That the last ones were cut off, or
all of them written anew, shows where one of the hashes was kept elsewhere (Schneier and Kelsey, Secure audit logs to
support computer forensics, 1999).
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import ConfigurationError

START = "0" * 64  # what the very first line follows
_TAIL_BYTES = 1 << 20  # more than any line has
LOST = "lost"  # of a line that says how many records could not be written before it
OPENED = "opened"  # of the first line of a file, and after each start of the service

_END = re.compile(rb',"chain":"([0-9a-f]{64})"}\n?\Z')


def link(previous: str, record: Mapping[str, Any]) -> tuple[bytes, str]:
    """A record as a line, and its hash.

    Args:
        previous: the hash of the line before.
        record: at least one field.
    """
    body = json.dumps(record, separators=(",", ":")).encode()[:-1]
    chain = _hash(previous, body)
    return b'%s,"chain":"%s"}\n' % (body, chain.encode()), chain


def files_of(path: Path) -> list[Path]:
    """A log's files, the oldest first: PATH.2, PATH.1, PATH."""
    numbered = {}
    for other in path.parent.glob(f"{path.name}.*"):
        number = other.name[len(path.name) + 1 :]
        if number.isdecimal():
            numbered[int(number)] = other
    return [*(numbered[number] for number in sorted(numbered, reverse=True)), *([path] if path.exists() else [])]


def last_chain(path: Path) -> str:
    """The hash of the last whole line of a log; START of one that has none."""
    for file in reversed(files_of(path)):
        for line in reversed(_tail(file).split(b"\n")):
            found = _END.search(line)
            if found is not None:
                return found[1].decode()
    return START


def _tail(path: Path) -> bytes:
    """The end of a file, which has whole lines if the file does."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read()


@dataclass(frozen=True)
class Verified:
    """What is known of a log that is whole.

    Attributes:
        chains: of every record, in order.
        cut: places where a line was not finished, since the process ended while it wrote.
        lost: records that could not be written, as the log itself says.
    """

    files: int
    chains: Sequence[str]
    cut: Sequence[str]
    lost: int


def verify(path: Path) -> Verified:
    """Reads a log with the files that were rotated, and recomputes every hash.

    Raises:
        ConfigurationError: there is no such log, or a line is not what was written; names the first.
    """
    files = files_of(path)
    if not files:
        raise ConfigurationError(f"{path}: no such audit log")
    chains: list[str] = []
    cut: list[str] = []
    unfinished, lost = "", 0
    for place, line in _lines(files):
        found = _END.search(line)
        if found is None:
            if unfinished:
                raise ConfigurationError(f"{unfinished}: is no record; it was changed after it was written")
            unfinished = place
            continue
        body = line[: found.start()]
        record = _parsed(body)
        if record.get("event") == OPENED:
            previous = str(record.get("follows"))
            if chains and previous != chains[-1]:
                raise ConfigurationError(f"{place}: does not follow the record before it; records are missing there")
            cut += [unfinished] if unfinished else []
            unfinished = ""
        elif unfinished or not chains:
            raise ConfigurationError(f"{unfinished or place}: was changed, or what stood before it is missing")
        else:
            previous = chains[-1]
        if _hash(previous, body) != found[1].decode():
            raise ConfigurationError(f"{place}: was changed, or what stood before it is missing")
        chains.append(found[1].decode())
        lost += int(record.get("records", 0)) if record.get("event") == LOST else 0
    return Verified(len(files), chains, [*cut, *([unfinished] if unfinished else [])], lost)


def records(path: Path) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Every record that can be read, the oldest first, and its line.

    Raises:
        ConfigurationError: there is no such log.
    """
    files = files_of(path)
    if not files:
        raise ConfigurationError(f"{path}: no such audit log")
    for _, line in _lines(files):
        found = _END.search(line)
        if found is not None:
            yield _parsed(line[: found.start()]), line


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}: line {number}", line


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(body + b"}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _hash(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()
