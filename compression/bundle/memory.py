"""What this process may still take of memory, where its control groups bound that: beyond it, the kernel kills it."""

from collections.abc import Mapping
from pathlib import Path

from compression.bundle.cgroups import ROOT, groups, membership, read

_NO_LIMIT = 1 << 60  # the first version has a number for none, larger than this


def memory_left() -> int | None:
    """Bytes that this process may still take; None where nothing bounds them but the machine."""
    return left(membership(), ROOT)


def memory_limit() -> int | None:
    """Bytes that its control groups allow in all."""
    return min((limit for limit, _ in _bounds(membership(), ROOT)), default=None)


def left(of: str, root: Path) -> int | None:
    """See `memory_left`. What is kept of files does not count: the kernel takes that back.

    Args:
        of, root: see `cgroups.groups`.
    """
    return min((limit - used for limit, used in _bounds(of, root)), default=None)


def _bounds(of: str, root: Path) -> list[tuple[int, int]]:
    """Of each group with a bound, that and what is used of it."""
    found = []
    for group in groups(of, root, "memory"):
        limit = read(group / "memory.max") or read(group / "memory.limit_in_bytes")
        if limit.strip().isdecimal() and int(limit) < _NO_LIMIT:
            stat = _stat(read(group / "memory.stat"))
            found.append((int(limit), stat.get("anon", stat.get("total_rss", 0))))
    return found


def _stat(content: str) -> Mapping[str, int]:
    pairs = (line.split() for line in content.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
