"""Where a bundle's sessions run: ONNX Runtime's execution providers for a device, and whether they do what was asked.

ONNX Runtime only warns where it cannot use what it was asked for, and computes on the CPU. Here that is an error.
Source of the options: ONNX Runtime's pages on its CUDA and TensorRT execution providers.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import onnxruntime

from compression.bundle import Bundle, BundleError, Provider, Runtime
from compression.bundle.cpu import usable_cores
from service.errors import ConfigurationError
from service.setting_types import Device

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_PROVIDERS = {"cpu": (_CPU,), "cuda": (_CUDA, _CPU), "tensorrt": (_TENSORRT, _CUDA, _CPU)}
# TensorRT compiles for shapes, which takes minutes: once, for all that a batch can have, best for the second.
_TENSORRT_TEXTS = 256
_TENSORRT_USUAL = (32, 32)  # texts, tokens
_TENSORRT_CACHE = Path("~/.cache/lathe/tensorrt")
# What a GPU is for: names of operators have one of these in them.
_HEAVY = ("MatMul", "Gemm", "Attention")


def _require_device(device: Device) -> None:
    """Refuses a device that this installation of ONNX Runtime is not made for.

    Raises:
        ConfigurationError: names what is missing and what there is.
    """
    wanted, available = _PROVIDERS[device.kind][0], onnxruntime.get_available_providers()
    if wanted not in available:
        raise ConfigurationError(
            f"LATHE_DEVICE={str(device)!r} needs {wanted}, and this ONNX Runtime has {', '.join(available)}; "
            "install the extra `gpu` in place of `serve` (never both), or set LATHE_DEVICE=cpu"
        )


def load(bundle: Bundle, device: Device) -> list[Runtime]:
    """A session for each GPU; one on the CPU.

    Raises:
        BundleError: the bundle cannot be loaded, or the GPU could not compute it.
        ConfigurationError: there is no such device.
    """
    _require_device(device)
    if device.gpus:
        onnxruntime.preload_dlls()  # CUDA and cuDNN, where they came as packages
    runtimes = [Runtime.of(bundle, providers) for providers in placements(bundle, device)]
    for runtime in runtimes:
        _require_placement(bundle, device, runtime.placement())
    return runtimes


def try_out(bundles: Sequence[Bundle], device: Device) -> None:
    """Loads bundles in a process of its own: this one would keep what it had touched of a GPU.

    Raises:
        BundleError, ConfigurationError: see `load`; or that process has died.
    """
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            process.submit(_load_each, bundles, device).result()
    except BrokenProcessPool:
        raise ConfigurationError(
            f"LATHE_DEVICE={str(device)!r}: a process that loaded the models there was killed; its log above says more"
        ) from None


def _load_each(bundles: Sequence[Bundle], device: Device) -> None:
    for bundle in bundles:
        load(bundle, device)


def streams(device: Device) -> int:
    """Batches at the same time that keep it busy: one on each core; on a GPU one computes while one is brought."""
    return 2 * len(device.gpus) or usable_cores()


def batch_texts(device: Device, batch_tokens: int) -> int:
    """Texts that a batch of so many tokens may have there."""
    return min(batch_tokens, _TENSORRT_TEXTS) if device.kind == "tensorrt" else batch_tokens


def placements(bundle: Bundle, device: Device) -> list[list[Provider]]:
    """The providers of each session, one for each GPU, in order of preference."""
    if device.kind == "cpu":
        return [[_CPU]]
    placements: list[list[Provider]] = []
    for gpu in device.gpus:
        cuda = {"device_id": str(gpu), "use_tf32": "0"}  # float32 is float32; a bundle for speed is in float16
        placements.append([(_CUDA, cuda), _CPU])
        if device.kind == "tensorrt":
            placements[-1].insert(0, (_TENSORRT, {"device_id": str(gpu), **_tensorrt_options(bundle)}))
    return placements


def _tensorrt_cache(bundle: Bundle) -> Path:
    """Where what TensorRT compiles for a bundle is kept.

    Raises:
        ConfigurationError: this user has no home directory that can be written.
    """
    try:
        folder = _TENSORRT_CACHE.expanduser() / bundle.version
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter of a user without a home directory
        raise ConfigurationError(
            f"LATHE_DEVICE=tensorrt keeps what it compiles in {_TENSORRT_CACHE}, which cannot be written ({error}); "
            "set HOME to a directory that can"
        ) from error
    return folder


def _tensorrt_options(bundle: Bundle) -> dict[str, str]:
    inputs = Runtime.of(bundle).inputs
    shapes = {"min": (1, 1), "opt": _TENSORRT_USUAL, "max": (_TENSORRT_TEXTS, bundle.manifest.max_length)}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(_tensorrt_cache(bundle)),
        "trt_timing_cache_enable": "1",
        **{
            f"trt_profile_{name}_shapes": ",".join(f"{value}:{texts}x{tokens}" for value in inputs)
            for name, (texts, tokens) in shapes.items()
        },
    }


def _require_placement(bundle: Bundle, device: Device, placement: dict[str, set[str]]) -> None:
    """Refuses a session that computes on something else than it was asked to.

    Args:
        placement: see `Runtime.placement`.

    Raises:
        ConfigurationError: its provider could not be started.
        BundleError: its provider cannot compute what matters.
    """
    wanted = _PROVIDERS[device.kind][0]
    if wanted not in placement:
        raise ConfigurationError(
            f"LATHE_DEVICE={str(device)!r}: ONNX Runtime could not start {wanted}, and would use "
            f"{', '.join(placement)}; what it says of that is above"
        )
    left = sorted(name for name in placement.get(_CPU, ()) if any(part in name for part in _HEAVY))
    if left and wanted != _CPU:
        raise BundleError(
            f"{bundle.path}: {', '.join(left)} would run on the CPU, because {wanted} cannot compute them; make the "
            "bundle with --recipe gpu or --recipe float, or set LATHE_DEVICE=cpu"
        )
