"""`lathe doctor`: what this environment has, what is missing, and what would be slow here and why."""

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

from compression.measure.machine import Machine, this_machine

_PACKAGES = ("lathe", "onnxruntime", "onnxruntime-gpu", "bentoml", "tokenizers", "numpy", "torch", "transformers")
_EXTRAS = ("serve", "gpu", "compress", "client", "ray")
_GPUS = Path("/proc/driver/nvidia/gpus")  # the kernel's driver lists them, with or without any library


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        packages: versions by name, of those that are installed.
        missing: by extra, its packages that are not installed.
        providers: execution providers of ONNX Runtime.
        gpus: names of NVIDIA's, as the kernel's driver has them.
        advice: what is wrong or slow here, each with its remedy.
    """

    machine: Machine
    packages: dict[str, str]
    missing: dict[str, tuple[str, ...]]
    providers: tuple[str, ...]
    gpus: tuple[str, ...]
    advice: tuple[str, ...]


def examine() -> Findings:
    """Looks at this process's machine and environment; changes nothing and starts nothing."""
    machine = this_machine()
    packages = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    providers, gpus = _providers(), _gpus(_GPUS)
    return Findings(
        machine=machine,
        packages=packages,
        missing={extra: _missing(extra) for extra in _EXTRAS},
        providers=providers,
        gpus=gpus,
        advice=advice(machine, packages, providers, gpus),
    )


def advice(
    machine: Machine, packages: dict[str, str], providers: tuple[str, ...], gpus: tuple[str, ...]
) -> tuple[str, ...]:
    """What is wrong or slow in such an environment, worst first."""
    found = []
    if {"onnxruntime", "onnxruntime-gpu"} <= packages.keys():
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed, and write the same files: which one runs is chance. "
            "Remove both, then install one of the extras serve and gpu"
        )
    if not machine.int8_instructions and machine.system.startswith("Linux"):  # elsewhere they are not known
        found.append(
            "this CPU shows no VNNI, AMX or other instructions for products of 8-bit numbers: int8 bundles give the "
            "same answers, but more slowly. lathe bench shows how fast; the recipe float may be as fast here"
        )
    usable = min(machine.cores, machine.cpu_quota or machine.cores)
    if usable < machine.machine_cores:
        found.append(
            f"this process may use {usable:g} of the machine's {machine.machine_cores} cores; lathe serve starts "
            f"{max(1, int(usable))} streams here, and more would wait for each other"
        )
    if gpus and "CUDAExecutionProvider" not in providers:
        found.append(
            "there is a GPU, and this ONNX Runtime is made for the CPU: to serve on the GPU, install the extra gpu in "
            "place of serve"
        )
    if not gpus and "CUDAExecutionProvider" in providers:
        found.append("this ONNX Runtime is made for GPUs, and the driver shows none: LATHE_DEVICE=cuda will not start")
    return tuple(found)


def findings_text(findings: Findings) -> str:
    """The findings as text."""
    machine = findings.machine
    quota = "none" if machine.cpu_quota is None else f"{machine.cpu_quota:g} CPUs"
    memory = "unknown" if machine.memory_gb is None else f"{machine.memory_gb} GB"
    limit = "none" if machine.memory_limit_gb is None else f"{machine.memory_limit_gb} GB"
    complete = [extra for extra, missing in findings.missing.items() if not missing]
    lines = [
        ("CPU", machine.cpu),
        ("int8", ", ".join(machine.int8_instructions) or "no instructions for it"),
        ("cores", f"{machine.machine_cores}, of which this process may use {machine.cores}; cgroup quota {quota}"),
        ("memory", f"{memory}; cgroup limit {limit}"),
        ("GPU", ", ".join(findings.gpus) or "none"),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in findings.packages.items())),
        ("providers", ", ".join(findings.providers) or "none: no ONNX Runtime"),
        ("extras", ", ".join(complete) or "none"),
    ]
    text = [f"{name:<10} {value}" for name, value in lines]
    text += [f"\n{number}. {line}." for number, line in enumerate(findings.advice, start=1)]
    return "\n".join(text if findings.advice else [*text, "\nNothing to mend."])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _missing(extra: str) -> tuple[str, ...]:
    """The extra's packages that are not installed, as Lathe's own metadata lists them."""
    wanted = [line for line in importlib.metadata.requires("lathe") or () if f'extra == "{extra}"' in line]
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in wanted]
    return tuple(name for name in names if _version(name) is None)


def _providers() -> tuple[str, ...]:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return ()
    return tuple(onnxruntime.get_available_providers())


def _gpus(folder: Path) -> tuple[str, ...]:
    models = [re.search(r"^Model:\s*(.+)$", path.read_text(), re.MULTILINE) for path in folder.glob("*/information")]
    return tuple(model[1].strip() for model in models if model)
