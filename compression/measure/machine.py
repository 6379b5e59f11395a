"""The machine that measured: what judges a time. Linux says it in /proc; elsewhere less is known."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # instructions that multiply 8-bit numbers


@dataclass(frozen=True)
class Machine:
    """Attributes:
    cpu: model name as the kernel gives it.
    int8_instructions: those of the CPU's flags that int8 kernels use; empty where there are none or none are known.
    cores: logical ones that this process may run on.
    machine_cores: logical ones in all.
    cpu_quota: cores' worth of time that its control group may use; None where that is not bounded.
    memory_gb: 10^9 bytes in all; None where it is not known.
    """

    cpu: str
    int8_instructions: tuple[str, ...]
    cores: int
    machine_cores: int
    cpu_quota: float | None
    memory_gb: float | None
    system: str
    python: str
    onnxruntime: str | None


def this_machine() -> Machine:
    """Describes the machine that this process runs on."""
    cpuinfo, meminfo = _read("/proc/cpuinfo"), _read("/proc/meminfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        int8_instructions=tuple(flag for flag in _INT8_FLAGS if flag in known),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        machine_cores=os.cpu_count() or 1,
        cpu_quota=cpu_quota(_read("/proc/self/cgroup"), Path("/sys/fs/cgroup")),
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=_onnxruntime_version(),
    )


def cpu_quota(membership: str, root: Path) -> float | None:
    """Cores' worth of time that a control group and those above it allow, of either version of cgroups.

    Args:
        membership: the content of /proc/self/cgroup. In a container its paths may be those of the host, which are not
            below `root`; then the container's own group is the root.
        root: where the hierarchies are mounted.
    """
    quotas = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / controllers if controllers else root
        group = mount / path.lstrip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(mount):
                quotas += [quota for quota in (_quota(place),) if quota is not None]
    return min(quotas, default=None)


def _quota(group: Path) -> float | None:
    names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")  # both numbers in one file, or one in each
    numbers = " ".join(_read(group / name) for name in names).split()
    return int(numbers[0]) / int(numbers[1]) if numbers and numbers[0].isdecimal() else None  # else `max` or -1


def _onnxruntime_version() -> str | None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    return str(onnxruntime.__version__)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""
