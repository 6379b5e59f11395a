"""Control groups, of either version: what bounds this process besides the machine."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def membership() -> str:
    """Which groups this process is in, as the kernel says it."""
    return read("/proc/self/cgroup")


def groups(of: str, root: Path, controller: str) -> Iterator[Path]:
    """The directories of a group and of those above it, whose bounds hold for it too.

    Args:
        of: the content of /proc/self/cgroup. In a container its paths may be those of the host, which are not below
            `root`; then the container's own group is the root.
        root: where the hierarchies are mounted.
        controller: `cpu`, `memory`.
    """
    for line in of.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / controllers if controllers else root
        group = mount / path.lstrip("/")
        yield from (place for place in (group, *group.parents) if place.is_relative_to(mount))


def read(path: str | Path) -> str:
    """What a file of the kernel's says; nothing where there is none."""
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""
