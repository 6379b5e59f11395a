"""The machine that measured: what judges a time. Linux says it in /proc; elsewhere less is known."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from compression.bundle.cores import allowed_cores, cpu_quota, read

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
    cpuinfo, meminfo = read("/proc/cpuinfo"), read("/proc/meminfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        int8_instructions=tuple(flag for flag in _INT8_FLAGS if flag in known),
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
