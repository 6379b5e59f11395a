"""Progress bars and warnings of the command line, on standard error so that results can be piped."""

from collections.abc import Iterable
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def plain_console(**options: Any) -> Console:
    """One that prints what it is given: a name in square brackets is no markup, and `:cat:` no picture."""
    return Console(markup=False, emoji=False, **options)


console = plain_console(stderr=True)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Gives the items one by one under a progress bar; `total` where the items do not know their number."""
    return rich_track(items, f"{description:<28}", total=total, console=console)


def warn(text: str) -> None:
    """Prints a warning: what may be wrong, and what to do."""
    console.print(f"warning: {text}", style="yellow", soft_wrap=True, highlight=False)
