"""How near a model's numbers are to those of the data, and a bundle's to its parent's.

Intervals are percentiles of a bootstrap over the texts; that of a difference is paired, as for labels. A draw says how
often each text occurs: ranks within it are counted from that, without sorting every draw.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compression.bundle import Deviation, Difference, Estimate, Logits, Number, NumberDifferences, NumberFigures
from compression.data import Examples
from compression.labels import number_of

Numbers = npt.NDArray[np.float64]  # (texts,)
Draws = npt.NDArray[np.float64]  # (draws, texts): how often each text occurs

RESAMPLES = 2000
_CELLS = 500_000  # of draws that are in memory at once


class Measure(Protocol):
    """Compares two numbers of each text, in each draw: (draws,)."""

    def __call__(self, drawn: Draws, truth: Numbers, given: Numbers) -> npt.NDArray[np.float64]: ...


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
    measures = {name: partial(measure, truth=truth, given=given) for name, measure in _measures(truth, given).items()}
    found = {name: Estimate(value=value, low=low, high=high) for name, (value, low, high) in
             _intervals(measures, len(truth), seed).items()}  # fmt: skip
    return NumberFigures(
        spearman=found.get("spearman"), pearson=found.get("pearson"), mae=found["mae"], rmse=found["rmse"]
    )


def compare_numbers(truth: Numbers, parent: Numbers, bundle: Numbers, seed: int = 0) -> NumberDifferences:
    """Bundle against parent on the same texts, at least one."""

    def difference(measure: Measure, drawn: Draws) -> npt.NDArray[np.float64]:
        return measure(drawn, truth, bundle) - measure(drawn, truth, parent)

    measures = {name: partial(difference, measure) for name, measure in _measures(truth, parent, bundle).items()}
    found = {name: Difference(value=value, low=low, high=high) for name, (value, low, high) in
             _intervals(measures, len(truth), seed).items()}  # fmt: skip
    return NumberDifferences(
        spearman=found.get("spearman"), pearson=found.get("pearson"), mae=found["mae"], rmse=found["rmse"],
        resamples=RESAMPLES,
    )  # fmt: skip


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


def pearson(drawn: Draws, truth: Numbers, given: Numbers) -> npt.NDArray[np.float64]:
    """Correlation of the numbers; 0 in a draw where either side is the same for all texts."""
    return _correlation(drawn, truth[None], given[None])


def spearman(drawn: Draws, truth: Numbers, given: Numbers) -> npt.NDArray[np.float64]:
    """Correlation of the ranks within each draw; equal numbers share the mean of theirs."""
    return _correlation(drawn, _ranks(drawn, truth), _ranks(drawn, given))


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


def _measures(*sides: Numbers) -> dict[str, Measure]:
    """Those that can be taken: no correlation where one side is the same for all texts."""
    correlations: dict[str, Measure] = {"spearman": spearman, "pearson": pearson} if all(map(_varies, sides)) else {}
    return {**correlations, "mae": mae, "rmse": rmse}


def _intervals(
    measures: Mapping[str, Callable[[Draws], npt.NDArray[np.float64]]], texts: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Each figure of the texts as they are, and the ends of its 95 % interval over the same resamples."""
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in measures}
    for drawn in _draws(texts, seed):
        for name, measure in measures.items():
            found[name].append(measure(drawn))
    as_they_are = np.ones((1, texts))
    result = {}
    for name, measure in measures.items():
        low, high = np.quantile(np.concatenate(found[name]), (0.025, 0.975))
        result[name] = float(measure(as_they_are)[0]), float(low), float(high)
    return result


def _draws(texts: int, seed: int) -> Iterator[Draws]:
    """RESAMPLES of them in parts, the same for the same seed."""
    choose = np.random.default_rng(seed)
    left, most = RESAMPLES, max(1, _CELLS // texts)
    while left:
        count = min(left, most)
        places = choose.integers(texts, size=(count, texts)) + texts * np.arange(count)[:, None]
        yield np.bincount(places.ravel(), minlength=count * texts).reshape(count, texts).astype(np.float64)
        left -= count


def _varies(values: Numbers) -> bool:
    return bool(values.min() < values.max())
