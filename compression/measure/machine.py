"""The machine that measured: what judges a time. Linux says it in /proc; elsewhere less is known."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from compression.bundle.cpu import allowed_cores, cpu_quota, int8_instructions, read


@dataclass(frozen=True)
class Machine:
    """Attributes:
    cpu: model name as the kernel gives it.
    int8_instructions: see `cpu.int8_instructions`.
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
    cpuinfo, meminfo = read("/proc/cpuinfo"), read("/proc/meminfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        int8_instructions=int8_instructions(cpuinfo),
        cores=allowed_cores(),
        machine_cores=os.cpu_count() or 1,
        cpu_quota=cpu_quota(read("/proc/self/cgroup"), Path("/sys/fs/cgroup")),
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=_onnxruntime_version(),
    )


def _onnxruntime_version() -> str | None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    return str(onnxruntime.__version__)
