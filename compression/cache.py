"""What is kept between runs, on disk: how large it may grow, what there is of it, and how it is emptied.

CACHE/
  steps/                  finished steps of recipes; beyond MAX_STEPS_BYTES the longest unused go
  searches/               what searches have tried
  tensorrt/               engines that TensorRT has compiled
  attention-price-*.txt   what pruning has measured of this machine
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

MAX_STEPS_BYTES = 8_000_000_000
_PARTS = ("steps", "searches", "tensorrt", "attention-price-*.txt")


@dataclass(frozen=True)
class Part:
    """One of the above: how many entries it has, and what they take on disk."""

    name: str
    entries: int
    size_bytes: int


def contents(folder: Path) -> list[Part]:
    """What a cache holds; nothing where there is none."""
    parts = []
    for pattern in _PARTS:
        paths = sorted(folder.glob(pattern))
        entries = [entry for path in paths for entry in (path.iterdir() if path.is_dir() else [path])]
        if entries:
            parts.append(Part(pattern, len(entries), sum(map(size_bytes, entries))))
    return parts


def clear(folder: Path) -> None:
    """Removes what Lathe keeps there, and nothing else that may lie in that directory."""
    for pattern in _PARTS:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def size_bytes(path: Path) -> int:
    """Of a file, or of a directory with all that it holds."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")))
