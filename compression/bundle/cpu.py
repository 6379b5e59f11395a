"""What this process has of the machine's processor: how many cores it may keep busy, and how they multiply int8.

Of the cores it has what its affinity and its control groups leave.
"""

import os
import re
from pathlib import Path

from compression.bundle.cgroups import ROOT, groups, membership, read

_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # instructions that multiply 8-bit numbers


def int8_instructions(cpuinfo: str) -> tuple[str, ...]:
    """Those that int8 kernels use, and whose products do not saturate; empty where there are none or none are known.

    Args:
        cpuinfo: the content of /proc/cpuinfo.
    """
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return tuple(flag for flag in _INT8_FLAGS if flag in known)


def usable_cores() -> int:
    """Cores for which to start threads: those that this process may run on, or fewer where a quota bounds their time.

    Of a quota of 1.5 it is one: two threads would be stopped for a quarter of the time, both at once.
    """
    quota = cpu_quota(membership(), ROOT)
    return allowed_cores() if quota is None else max(1, min(allowed_cores(), int(quota)))


def allowed_cores() -> int:
    """Logical cores that this process may run on: those of its affinity, which a cpuset narrows, too."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(of: str, root: Path) -> float | None:
    """Cores' worth of time that a control group and those above it allow.

    Args:
        of, root: see `cgroups.groups`.
    """
    quotas = (_quota(group) for group in groups(of, root, "cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")  # both numbers in one file, or one in each
    numbers = " ".join(read(group / name) for name in names).split()
    return int(numbers[0]) / int(numbers[1]) if numbers and numbers[0].isdecimal() else None  # else `max` or -1
