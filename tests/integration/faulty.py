"""The service, with an engine that fails at texts of one word alone: `tests.integration.faulty:Lathe`.

Five times the word: it raises. Six times: it raises once, and then never again. Seven times: it never ends. Eight
times: it waits for a file, whose name is in GO. More than the window takes: its thread ends.
"""

import os
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compression.bundle import Encoded
from service.app import Lathe
from service.engine.engine import Engine

__all__ = ["Lathe"]

_infer = Engine.infer
_failed_once = False


class Died(BaseException):
    """What native code raises when it cannot go on."""


def _infer_or_fail(self: Engine, batch: Sequence[Encoded]) -> npt.NDArray[np.float32]:
    global _failed_once  # noqa: PLW0603  # of the whole process, as the function that is replaced
    for encoded in batch:
        if len(set(encoded.ids)) > 3:  # first, word, last
            continue
        if encoded.truncated:
            raise Died
        words = len(encoded) - 2
        if words == 5:
            raise RuntimeError("this text")
        if words == 6 and not _failed_once:
            _failed_once = True
            raise RuntimeError("this once")
        if words == 7:
            threading.Event().wait()
        if words == 8:
            while not os.path.exists(os.environ["GO"]):
                time.sleep(0.01)
    return _infer(self, batch)


Engine.infer = _infer_or_fail  # type: ignore[method-assign]
