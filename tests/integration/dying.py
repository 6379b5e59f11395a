"""The service, with an engine whose thread ends when it meets a text that was cut: `tests.integration.dying:Lathe`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compression.bundle import Encoded
from service.app import Lathe
from service.engine import Engine

__all__ = ["Lathe"]

_infer = Engine.infer


class Died(BaseException):
    """What native code raises when it cannot go on."""


def _die(self: Engine, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
    if any(encoded.truncated for encoded in batch):
        raise Died
    return _infer(self, batch)


Engine.infer = _die  # type: ignore[method-assign]
