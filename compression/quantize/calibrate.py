"""Finds the range of each activation that is to become 8-bit, from the float model on real text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

Floats = npt.NDArray[np.float32]
Feed = dict[str, npt.NDArray[np.int64]]

_BINS = 2048
_LEVELS = 255  # steps of an unsigned 8-bit number
_SHRINKS = np.linspace(1.0, 0.3, 71)  # candidates for the clipped range, as parts of the observed one


@dataclass(frozen=True)
class Range:
    """The interval of real numbers that the 256 levels of a uint8 cover; always holds zero."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        return max(self.high - self.low, 1e-8) / _LEVELS

    @property
    def zero_point(self) -> int:
        return int(np.clip(round(-self.low / self.scale), 0, _LEVELS))


def calibrate(model: onnx.ModelProto, tensors: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Range]:
    """The range of each tensor that loses least, in mean squared error, over the calibration feeds.

    Args:
        model: the float model.
        tensors: names of float activations inside it.
        feeds: model inputs, one per text and unpadded, so that padding cannot widen a range.

    Outliers are clipped when the finer steps that this buys for everything else are worth more than what they lose
    (the MSE criterion; see Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1).
    """
    session = _observing_session(model, tensors)
    lows = dict.fromkeys(tensors, 0.0)
    highs = dict.fromkeys(tensors, 0.0)
    for name, values in _observe(session, tensors, feeds):
        lows[name] = min(lows[name], float(values.min()))
        highs[name] = max(highs[name], float(values.max()))
    histograms = {name: np.zeros(_BINS) for name in tensors}
    for name, values in _observe(session, tensors, feeds):
        histograms[name] += np.histogram(values, bins=_BINS, range=(lows[name], highs[name]))[0]
    return {name: _least_squares_range(histograms[name], lows[name], highs[name]) for name in tensors}


def _observing_session(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    return onnxruntime.InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])


def _observe(
    session: onnxruntime.InferenceSession, tensors: Sequence[str], feeds: Sequence[Feed]
) -> Iterable[tuple[str, Floats]]:
    for feed in feeds:
        yield from zip(tensors, session.run(list(tensors), feed), strict=True)


def _least_squares_range(histogram: npt.NDArray[np.float64], low: float, high: float) -> Range:
    """Shrinks [low, high] to the candidate with the least squared error of rounding and clipping."""
    edges = np.linspace(low, high, _BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    best, least = Range(low, high), np.inf
    for shrink_low in _SHRINKS if low < 0 else (1.0,):
        for shrink_high in _SHRINKS:
            candidate = Range(low * shrink_low, high * shrink_high)
            clipped = np.clip(centres, candidate.low, candidate.high) - centres
            inside = clipped == 0
            error = float(np.sum(histogram * np.where(inside, candidate.scale**2 / 12, clipped**2)))
            if error < least:
                best, least = candidate, error
    return best
