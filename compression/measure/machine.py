"""The machine that measured: what judges a time. Linux says it in /proc; elsewhere less is known."""

import os
import platform
import re
from dataclasses import dataclass

from compression.bundle.cgroups import ROOT, membership, read
from compression.bundle.cpu import allowed_cores, cpu_quota, int8_instructions
from compression.bundle.memory import memory_limit


@dataclass(frozen=True)
class Machine:
    """Attributes:
    cpu: model name as the kernel gives it.
    int8_instructions: see `cpu.int8_instructions`.
    cores: logical ones that this process may run on.
    machine_cores: logical ones in all.
    cpu_quota: cores' worth of time that its control group may use; None where that is not bounded.
    memory_gb: 10^9 bytes in all; None where it is not known.
    memory_limit_gb: of them, those that its control group may use; None where that is not bounded.
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
    memory_limit_gb: float | None = None  # of results from before it was measured


def this_machine() -> Machine:
    """Describes the machine that this process runs on."""
    cpuinfo, meminfo = read("/proc/cpuinfo"), read("/proc/meminfo")
    limit = memory_limit()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        int8_instructions=int8_instructions(cpuinfo),
        cores=allowed_cores(),
        machine_cores=os.cpu_count() or 1,
        cpu_quota=cpu_quota(membership(), ROOT),
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=_onnxruntime_version(),
        memory_limit_gb=None if limit is None else round(limit / 1e9, 1),
    )


def _onnxruntime_version() -> str | None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    return str(onnxruntime.__version__)
