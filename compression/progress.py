"""Progress bars of the command line, on standard error so that results can be piped."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")

console = Console(stderr=True)


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Gives the items one by one under a progress bar."""
    return rich_track(items, f"{description:<28}", console=console)
