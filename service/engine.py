"""Tokenizer and runtime sessions of one bundle, on the device that was asked for. Knows no HTTP and no queue."""

import itertools
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from compression.bundle import GOLDEN_WITHIN, Bundle, BundleError, Encoded, Provider, Runtime, read_golden
from service.errors import ConfigurationError
from service.settings import Device

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_PROVIDERS = {"cpu": (_CPU,), "cuda": (_CUDA, _CPU), "tensorrt": (_TENSORRT, _CUDA, _CPU)}
# TensorRT compiles for shapes, which takes minutes: once, for all that a batch can have, best for the second.
_TENSORRT_TEXTS = 256
_TENSORRT_USUAL = (32, 32)  # texts, tokens
_TENSORRT_CACHE = Path.home() / ".cache" / "lathe" / "tensorrt"
# What a GPU is for: names of operators have one of these in them.
_HEAVY = ("MatMul", "Gemm", "Attention")
_WARM_UP = "The quick brown fox jumps over the lazy dog."


def require_device(device: Device) -> None:
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


def try_out(bundles: Sequence[Bundle], device: Device) -> None:
    """Loads bundles in a process of its own: this one would keep what it had touched of a GPU.

    Raises:
        ConfigurationError, BundleError: see `Engine`; or that process has died.
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
        Engine(bundle, device)


class Engine:
    """The sessions of one bundle, one for each GPU. `encode` and `infer` release the GIL, and may run on several
    threads at once; a thread keeps to one GPU, so that each GPU takes the next batch when it is free.

    ONNX Runtime only warns where it cannot use what it was asked for, and computes on the CPU. That is an error here.

    Raises:
        BundleError: the bundle cannot be loaded, or the GPU could not compute it.
        ConfigurationError: there is no such device.
    """

    def __init__(self, bundle: Bundle, device: Device = Device()) -> None:
        require_device(device)
        self.bundle = bundle
        self._device = device
        if device.gpus:
            onnxruntime.preload_dlls()  # CUDA and cuDNN, where they came as packages
        self._runtimes = [Runtime.of(bundle, providers) for providers in _placements(bundle, device)]
        for runtime in self._runtimes:
            _require_placement(bundle, device, runtime.placement())
        self._turns = itertools.cycle(self._runtimes)
        self._of_thread = threading.local()

    @cached_property
    def tokenizer_key(self) -> tuple[str, int]:
        """The same for engines that tokenise every text alike: the tokenizer's digest, and the window."""
        manifest = self.bundle.manifest
        return manifest.files[self.bundle.tokenizer_path.name], manifest.max_length

    def batch_texts(self, batch_tokens: int) -> int:
        """Texts that a batch of so many tokens may have: one where an answer would depend on its neighbours."""
        if not self.bundle.manifest.runtime.batch_exact:
            return 1
        return min(batch_tokens, _TENSORRT_TEXTS) if self._device.kind == "tensorrt" else batch_tokens

    def encode(self, text: str) -> Encoded:
        """Tokenises one text, cut to the model's window."""
        return self._runtimes[0].encode(text)

    def infer(self, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
        """Logits, (texts, labels)."""
        runtime: Runtime | None = getattr(self._of_thread, "runtime", None)
        if runtime is None:
            runtime = self._of_thread.runtime = next(self._turns)
        return runtime.logits(batch)

    def verify(self) -> None:
        """Compares this machine's answers with the bundle's golden ones, where it has any.

        Raises:
            BundleError: they are not the same.
        """
        golden = read_golden(self.bundle)
        if golden is None:
            return
        for runtime in self._runtimes:
            answers = [runtime.logits([runtime.encode(text)]) for text in golden.texts]
            difference = golden.difference(np.concatenate(answers))
            if difference is not None:
                raise BundleError(
                    f"{self.bundle.path}: this machine does not give the bundle's golden answers: {difference}, and "
                    f"{GOLDEN_WITHIN} is allowed; make the bundle on a machine like this one, without int8 if need be"
                )

    def warm_up(self) -> None:
        """Answers one text alone and in a batch, so that the first client does not wait for allocations.

        Raises:
            ConfigurationError: the model gives no finite answer.
        """
        encoded = self.encode(_WARM_UP)
        for runtime, count in itertools.product(self._runtimes, (1, 8)):
            logits = runtime.logits([encoded] * count)
            if logits.shape != (count, len(self.bundle.manifest.labels)) or not np.isfinite(logits).all():
                raise ConfigurationError(f"{self.bundle.path}: the model gives no sensible answer to a warm-up text")


def _placements(bundle: Bundle, device: Device) -> list[list[Provider]]:
    """The providers of each session, in order of preference.

    Source: ONNX Runtime's pages on its CUDA and TensorRT execution providers.
    """
    if device.kind == "cpu":
        return [[_CPU]]
    placements: list[list[Provider]] = []
    for gpu in device.gpus:
        cuda = {"device_id": str(gpu), "use_tf32": "0"}  # float32 is float32; a bundle for speed is in float16
        placements.append([(_CUDA, cuda), _CPU])
        if device.kind == "tensorrt":
            placements[-1].insert(0, (_TENSORRT, {"device_id": str(gpu), **_tensorrt_options(bundle)}))
    return placements


def _tensorrt_options(bundle: Bundle) -> dict[str, str]:
    inputs = Runtime.of(bundle).inputs
    shapes = {"min": (1, 1), "opt": _TENSORRT_USUAL, "max": (_TENSORRT_TEXTS, bundle.manifest.max_length)}
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(_TENSORRT_CACHE / bundle.version),
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
