"""The service with a text that takes its time, whatever the machine's cores do: `benchmarks.elastic.slow:Lathe`.

Several replicas on one machine share its cores, so that a second one would be worth nothing. Here a text takes
SECONDS_PER_TEXT in which no core is used: replicas are worth what they are on machines of their own.
"""

import os
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compression.bundle import Encoded
from service.app import Lathe
from service.engine.engine import Engine

__all__ = ["Lathe"]

_infer = Engine.infer


def _infer_slowly(self: Engine, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
    time.sleep(float(os.environ["SECONDS_PER_TEXT"]) * len(batch))
    return _infer(self, batch)


Engine.infer = _infer_slowly  # type: ignore[method-assign]
