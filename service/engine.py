"""Tokenizer and runtime session of one bundle, on the device that was asked for. Knows no HTTP and no queue."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from compression.bundle import GOLDEN_WITHIN, Bundle, BundleError, Encoded, Runtime, read_golden
from service.errors import ConfigurationError

Device = Literal["cpu", "cuda", "tensorrt"]

_PROVIDERS: dict[Device, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
_WARM_UP = "The quick brown fox jumps over the lazy dog."


def require_device(device: Device) -> None:
    """Refuses a device that this installation of ONNX Runtime does not have, rather than falling back to a slower one.

    Raises:
        ConfigurationError: names what is missing and what there is.
    """
    wanted, available = _PROVIDERS[device][0], onnxruntime.get_available_providers()
    if wanted not in available:
        raise ConfigurationError(
            f"LATHE_DEVICE={device!r} needs {wanted}, and this ONNX Runtime has {', '.join(available)}; "
            "install the extra `gpu` in place of `serve` (never both), or set LATHE_DEVICE=cpu"
        )


class Engine:
    """One session of one bundle. `encode` and `infer` release the GIL, and may run on several threads at once."""

    def __init__(self, bundle: Bundle, device: Device) -> None:
        self.bundle = bundle
        self._runtime = Runtime.of(bundle, _PROVIDERS[device])

    @property
    def tokenizer_key(self) -> tuple[str, int]:
        """The same for engines that tokenise every text alike: the tokenizer's digest, and the window."""
        manifest = self.bundle.manifest
        return manifest.files[self.bundle.tokenizer_path.name], manifest.max_length

    def encode(self, text: str) -> Encoded:
        """Tokenises one text, cut to the model's window."""
        return self._runtime.encode(text)

    def infer(self, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
        """Logits, (texts, labels)."""
        return self._runtime.logits(batch)

    def verify(self) -> None:
        """Compares this machine's answers with the bundle's golden ones, where it has any.

        Raises:
            BundleError: they are not the same.
        """
        golden = read_golden(self.bundle)
        if golden is None:
            return
        difference = golden.difference(np.concatenate([self.infer([self.encode(text)]) for text in golden.texts]))
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
        for batch in ([encoded], [encoded] * 8):
            logits = self.infer(batch)
            if logits.shape != (len(batch), len(self.bundle.manifest.labels)) or not np.isfinite(logits).all():
                raise ConfigurationError(f"{self.bundle.path}: the model gives no sensible answer to a warm-up text")
