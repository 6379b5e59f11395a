"""What an installation may lack: packages that come with an extra of Lathe's."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from compression.errors import MissingExtra

_OURS = ("compression", "service")


@contextmanager
def extra(name: str, what: str = "this command") -> Iterator[None]:
    """Around imports of packages that only the extra `name` brings.

        with extra("compress", "a parent"):
            from compression.parent.checkpoint import load_parent

    Args:
        what: needs them, for the message.

    Raises:
        MissingExtra: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:  # a fault of ours, which no extra mends
            raise
        raise MissingExtra(
            f"{what} needs the extra {name}: pip install 'lathe[{name}]' ({error.name} is not installed)"
        ) from error


def require_extra(name: str, *packages: str) -> None:
    """Refuses work that would need packages which are not there, without the seconds that importing them takes.

    Raises:
        MissingExtra: as `extra`.
    """
    with extra(name):
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"{package} is not installed", name=package)
