"""How near a model's numbers are to those of the data, and a bundle's to its parent's.

Intervals are percentiles of a bootstrap over the texts; that of a difference is paired, as for labels. A draw says how
often each text occurs: ranks within it are counted from that, without sorting every draw.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from compression.bundle import Deviation, Difference, Estimate, Logits, Number, NumberDifferences, NumberFigures
from compression.data import Examples
from compression.labels import number_of

Numbers = npt.NDArray[np.float64]  # (texts,)
Draws = npt.NDArray[np.float64]  # (draws, texts): how often each text occurs
Measure = Callable[[Draws, Numbers, Numbers], npt.NDArray[np.float64]]  # of truth and given, (draws,)

RESAMPLES = 2000
_CELLS = 4_000_000  # of draws that are in memory at once


@dataclass(frozen=True)
class NumberQuality:
    """Attributes:
    number: None where no row has a label.
    """

    texts: int
    labelled: int
    number: NumberFigures | None


def number_quality(logits: Logits, task: Number, examples: Examples) -> NumberQuality:
    """Holds numbers against the labels.

    Args:
        logits: (texts, 1) for all of the examples.
    """
    rows, truth = number_rows(examples)
    given = task.scores(logits)[rows, 0]
    return NumberQuality(len(examples), len(rows), number_figures(truth, given) if rows else None)


def fit_spread(task: Number, logits: Logits) -> Number:
    """The same task, with the standard deviation of these numbers.

    Args:
        logits: (texts, 1).
    """
    return replace(task, spread=float(task.scores(logits).std()))


def number_rows(examples: Examples) -> tuple[list[int], Numbers]:
    """The rows that have a label, and its number, (rows,)."""
    found = {row: number_of(str(label)) for row, label in enumerate(examples.labels) if label is not None}
    return list(found), np.array(list(found.values()), np.float64)


def number_figures(truth: Numbers, given: Numbers, seed: int = 0) -> NumberFigures:
    """Of at least one text."""

    def figure(measure: Measure) -> Estimate:
        value, low, high = _interval(lambda drawn: measure(drawn, truth, given), len(truth), seed)
        return Estimate(value=value, low=low, high=high)

    correlated = _varies(truth) and _varies(given)
    return NumberFigures(
        spearman=figure(spearman) if correlated else None,
        pearson=figure(pearson) if correlated else None,
        mae=figure(mae),
        rmse=figure(rmse),
    )


def compare_numbers(truth: Numbers, parent: Numbers, bundle: Numbers, seed: int = 0) -> NumberDifferences:
    """Bundle against parent on the same texts, at least one."""

    def difference(measure: Measure) -> Difference:
        def values(drawn: Draws) -> npt.NDArray[np.float64]:
            return measure(drawn, truth, bundle) - measure(drawn, truth, parent)

        value, low, high = _interval(values, len(truth), seed)
        return Difference(value=value, low=low, high=high)

    correlated = all(map(_varies, (truth, parent, bundle)))
    return NumberDifferences(
        spearman=difference(spearman) if correlated else None,
        pearson=difference(pearson) if correlated else None,
        mae=difference(mae),
        rmse=difference(rmse),
        resamples=RESAMPLES,
    )


def deviation(parent: Logits, bundle: Logits, task: Number) -> Deviation:
    """Of at least one text; no label is needed."""
    one, other = (task.scores(logits)[:, 0] for logits in (parent, bundle))
    apart = np.abs(one - other)
    return Deviation(
        spearman=plain(spearman, one, other),
        mean=float(apart.mean()),
        largest=float(apart.max()),
        tolerance=task.tolerance,
    )


def plain(correlation: Measure, one: Numbers, other: Numbers) -> float | None:
    """A correlation of the texts as they are; None where either side is the same for all."""
    if not (_varies(one) and _varies(other)):
        return None
    return float(correlation(np.ones((1, len(one))), one, other)[0])


def pearson(drawn: Draws, one: Numbers, other: Numbers) -> npt.NDArray[np.float64]:
    """Correlation of the numbers; 0 in a draw where either side is the same for all texts."""
    return _correlation(drawn, one[None], other[None])


def spearman(drawn: Draws, one: Numbers, other: Numbers) -> npt.NDArray[np.float64]:
    """Correlation of the ranks within each draw; equal numbers share the mean of theirs."""
    return _correlation(drawn, _ranks(drawn, one), _ranks(drawn, other))


def mae(drawn: Draws, truth: Numbers, given: Numbers) -> npt.NDArray[np.float64]:
    """Mean absolute error."""
    return np.asarray(drawn @ np.abs(given - truth) / drawn.sum(axis=1))


def rmse(drawn: Draws, truth: Numbers, given: Numbers) -> npt.NDArray[np.float64]:
    """Root of the mean squared error."""
    return np.asarray(np.sqrt(drawn @ np.square(given - truth) / drawn.sum(axis=1)))


def _correlation(drawn: Draws, one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of values that are the same in every draw, (1, texts), or its own, (draws, texts)."""
    total = drawn.sum(axis=1, keepdims=True)
    one, other = (side - (drawn * side).sum(axis=1, keepdims=True) / total for side in (one, other))
    together, *alone = ((drawn * a * b).sum(axis=1) for a, b in ((one, other), (one, one), (other, other)))
    size = np.sqrt(alone[0] * alone[1])
    return np.asarray(np.where(size > 0, together / np.where(size > 0, size, 1), 0.0))


def _ranks(drawn: Draws, values: Numbers) -> npt.NDArray[np.float64]:
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.add.reduceat(drawn[:, order], begins, axis=1)  # (draws, different values)
    ranks = counts.cumsum(axis=1) - (counts - 1) / 2
    return np.asarray(ranks[:, np.searchsorted(ordered[begins], values)])


def _interval(values: Callable[[Draws], npt.NDArray[np.float64]], texts: int, seed: int) -> tuple[float, float, float]:
    """The figure of the texts as they are, and the 95 % interval of resampled ones."""
    found = np.concatenate([values(drawn) for drawn in _draws(texts, seed)])
    low, high = np.quantile(found, (0.025, 0.975))
    return float(values(np.ones((1, texts)))[0]), float(low), float(high)


def _draws(texts: int, seed: int) -> Iterator[Draws]:
    """RESAMPLES of them in parts, the same for the same seed."""
    choose = np.random.default_rng(seed)
    left, most = RESAMPLES, max(1, _CELLS // texts)
    while left:
        count = min(left, most)
        yield choose.multinomial(texts, np.full(texts, 1 / texts), size=count).astype(np.float64)
        left -= count


def _varies(values: Numbers) -> bool:
    return bool(values.min() < values.max())
