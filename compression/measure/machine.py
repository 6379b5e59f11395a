"""The machine that measured: what judges a time. Linux says it in /proc; elsewhere less is known."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from compression.bundle import extra

_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # instructions that multiply 8-bit numbers


@dataclass(frozen=True)
class Machine:
    """Attributes:
    cpu: model name as the kernel gives it.
    int8_instructions: those of the CPU's flags that int8 kernels use; empty where there are none or none are known.
    cores: logical ones that this process may run on.
    memory_gb: 10^9 bytes in all; None where it is not known.
    """

    cpu: str
    int8_instructions: tuple[str, ...]
    cores: int
    memory_gb: float | None
    system: str
    python: str
    onnxruntime: str


def this_machine() -> Machine:
    """Describes the machine that this process runs on.

    Raises:
        MissingExtra: there is no ONNX Runtime.
    """
    with extra("serve", "running a bundle"):
        import onnxruntime
    cpuinfo, meminfo = _read("/proc/cpuinfo"), _read("/proc/meminfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        int8_instructions=tuple(flag for flag in _INT8_FLAGS if flag in known),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""
