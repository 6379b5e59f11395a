"""Control groups that a test makes, of either version; skipped with a reason where none can be made."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

MOUNT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def control_group(controller: str, bounds: Mapping[str, str]) -> Iterator[Path]:
    """The file `cgroup.procs` of a group with a bound.

    Args:
        bounds: what is written to the first of these files that there is: each version has one of its own.
    """
    group = (MOUNT / controller if (MOUNT / controller).is_dir() else MOUNT) / f"lathe-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        found = [name for name in bounds if (group / name).exists()]
        if not found:
            pytest.skip(f"control groups do not bound {controller} here")
        (group / found[0]).write_text(bounds[found[0]])
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
