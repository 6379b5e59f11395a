"""Chooses how each activation becomes 8-bit: its range, its smoothing, and what to add back, from real text.

Everything is judged by what it does to the outputs of the linears that read the activation, on a sample of token
vectors: an outlier that meets small weights may be clipped, one that meets large weights may not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import onnx

from compression.graph.edit import observing_session
from compression.progress import track
from compression.quantize.linear import Floats, Linear, quantize_weight

Feed = dict[str, npt.NDArray[np.int64]]

_LEVELS = 255  # steps of an unsigned 8-bit number
_TYPICAL_ROWS = 2000
_EXTREME_ROWS = 200
_MIGRATION = (0.5, 0.65, 0.8, 0.95)  # SmoothQuant's alpha: how much of a channel's size moves into the weights
_SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # candidates for the range, as parts of the observed one
_SMOOTHING_PAYS_BELOW = 0.5  # it costs a Mul for each token, so it has to halve the squared error


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

    def round_trip(self, values: Floats) -> Floats:
        """What is left of the values after quantizing them and back."""
        levels = np.clip(np.rint(values / self.scale) + self.zero_point, 0, _LEVELS)
        return ((levels - self.zero_point) * self.scale).astype(np.float32)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Activation:
    """How one tensor becomes 8-bit.

    Attributes:
        range: of the tensor, after smoothing.
        smoothing: (channels,) divides the tensor and multiplies the rows of the weights that read it, or None.
        shifts: by the name of a linear, (outputs,): the mean error of its output, to be taken back in its bias.
    """

    range: Range
    smoothing: Floats | None
    shifts: Mapping[str, Floats]


def calibrate(
    model: onnx.ModelProto,
    layers: Sequence[Linear],
    feeds: Sequence[Feed],
    seed: int = 0,
    entropy: float | None = None,
) -> dict[str, Activation]:
    """Chooses for the input of each linear, by the squared error of the linears' outputs.

    Args:
        model: the float model.
        layers: those of its linears that are to be quantized.
        feeds: model inputs, one per text and unpadded, so that padding cannot widen a range.
        entropy: of the weights, as for `quantize_weight`.

    Smoothing is SmoothQuant's (Xiao et al. 2023), its strength and the clipping searched as in AWQ (Lin et al. 2024);
    the shift is bias correction (Nagel et al. 2019).
    """
    readers: dict[str, list[Linear]] = {}
    for layer in layers:
        readers.setdefault(layer.input, []).append(layer)
    samples = _sample(model, list(readers), feeds, np.random.default_rng(seed))
    chosen: dict[str, Activation] = {}
    for tensors in track(_of_one_weight(readers), "Search int8 ranges"):
        chosen |= _choose({name: samples[name] for name in tensors}, readers, entropy)
    return {name: chosen[name] for name in readers}


def _of_one_weight(readers: Mapping[str, Sequence[Linear]]) -> list[list[str]]:
    """The tensors, those together that meet the same stored weight: it can be smoothed in one way alone."""
    groups: list[tuple[list[str], set[str]]] = []
    for tensor, layers in readers.items():
        stored = {layer.stored for layer in layers}
        alike = [group for group in groups if group[1] & stored]
        groups = [group for group in groups if group not in alike]
        groups.append(
            ([*chain.from_iterable(names for names, _ in alike), tensor], stored.union(*(w for _, w in alike)))
        )
    return [names for names, _ in groups]


def _sample(
    model: onnx.ModelProto, tensors: list[str], feeds: Sequence[Feed], random: np.random.Generator
) -> dict[str, Floats]:
    """Token vectors of each tensor, (rows, channels): random ones, and those with the largest values.

    The latter are rare, but clipping them ruins whole texts: an error that random vectors alone would not show.
    """
    session = observing_session(model, tensors)
    typical: dict[str, list[Floats]] = {name: [] for name in tensors}
    extreme: dict[str, list[Floats]] = {name: [] for name in tensors}
    per_text = -(-_TYPICAL_ROWS // len(feeds))
    for feed in track(feeds, "Observe activations"):
        for name, values in zip(tensors, session.run(tensors, feed), strict=True):
            vectors = values.reshape(-1, values.shape[-1])
            typical[name].append(vectors[random.integers(0, len(vectors), per_text)])
            extreme[name].append(vectors[[np.abs(vectors).max(axis=1).argmax()]])
    return {name: np.concatenate([*typical[name], _largest(np.concatenate(extreme[name]))]) for name in tensors}


def _largest(vectors: Floats) -> Floats:
    order = np.argsort(np.abs(vectors).max(axis=1))
    return vectors[order[-_EXTREME_ROWS:]]


def _choose(
    samples: Mapping[str, Floats], readers: Mapping[str, Sequence[Linear]], entropy: float | None
) -> dict[str, Activation]:
    """Of tensors that are smoothed alike: the smoothing, and the range and the shifts of each."""
    weights = {name: np.concatenate([layer.weight for layer in readers[name]], axis=1) for name in samples}
    exact = {name: sample @ weights[name] for name, sample in samples.items()}

    def smoothed(scale: Floats) -> tuple[float, dict[str, Range]]:
        found = {
            name: _best_range(sample / scale, weights[name] * scale[:, np.newaxis], exact[name], entropy)
            for name, sample in samples.items()
        }
        return sum(error for error, _ in found.values()), {name: best for name, (_, best) in found.items()}

    smoothing, scale = None, np.ones(len(next(iter(weights.values()))), np.float32)
    plain_error, ranges = smoothed(scale)
    least = plain_error * _SMOOTHING_PAYS_BELOW
    activations = np.max([np.abs(sample).max(axis=0) for sample in samples.values()], axis=0)
    largest = np.max([np.abs(weight).max(axis=1) for weight in weights.values()], axis=0)
    for migration in _MIGRATION:
        candidate = _smoothing(activations, largest, migration)
        error, found = smoothed(candidate)
        if error < least:
            least, smoothing, scale, ranges = error, candidate, candidate, found
    chosen = {}
    for name, sample in samples.items():
        rounded = ranges[name].round_trip(sample / scale)
        shifts = {}
        for layer in readers[name]:
            quantized = quantize_weight(layer.weight * scale[:, np.newaxis], entropy).round_trip
            shifts[layer.name] = (sample @ layer.weight - rounded @ quantized).mean(axis=0).astype(np.float32)
        chosen[name] = Activation(ranges[name], smoothing, shifts)
    return chosen


def _best_range(sample: Floats, weight: Floats, exact: Floats, entropy: float | None) -> tuple[float, Range]:
    low, high = min(0.0, float(sample.min())), max(0.0, float(sample.max()))
    quantized = quantize_weight(weight, entropy).round_trip
    best, least = Range(low, high), np.inf
    for shrink in _SHRINKS:
        # The longer side is cut first: it is there that the outliers are.
        bound = shrink * max(-low, high)
        candidate = Range(max(low, -bound), min(high, bound))
        error = float(np.square(candidate.round_trip(sample) @ quantized - exact).mean())
        if error < least:
            least, best = error, candidate
    return least, best


def _smoothing(activations: Floats, weights: Floats, migration: float) -> Floats:
    """Per channel, activation size^alpha / weight size^(1 - alpha), with a geometric mean of 1."""
    scales = np.maximum(activations, 1e-3) ** migration / np.maximum(weights, 1e-3) ** (1 - migration)
    return (scales / np.exp(np.log(scales).mean())).astype(np.float32)  # type: ignore[no-any-return]
