"""The service, with an engine that does nothing: `benchmarks.serving.noop_lathe:Lathe`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compression.bundle import Encoded, Input
from service.app import Lathe
from service.engine.engine import Engine

__all__ = ["Lathe"]

_ENCODED = Encoded([0] * 16, [0] * 16, False)


def _encode(self: Engine, given: Input) -> Encoded:
    return _ENCODED


def _infer(self: Engine, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
    return np.zeros((len(batch), len(self.bundle.manifest.labels)), np.float32)


Engine.encode = _encode  # type: ignore[method-assign]
Engine.infer = _infer  # type: ignore[method-assign]
Engine.verify = lambda self: None  # type: ignore[method-assign]  # its answers are nobody's
