"""From which answers a bundle abstains: the threshold on its confidence is chosen here, and judged on other texts.

A model that may abstain has a coverage, the fraction of texts that it answers, and a risk, the fraction of wrong ones
among those (El-Yaniv & Wiener 2010). An answer is wrong unless it is exactly the text's labels, and so is any answer to
a text outside of what the model was made for.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from compression.bundle import AbstainOptions, Estimate, Labelling, Logits, OutsideFigures, SelectiveFigures
from compression.bundle.task import Flags
from compression.data import Examples
from compression.measure.evaluate import right_answers
from compression.measure.evidence import RiskCurve
from compression.measure.intervals import Z

ANSWER_ERROR = 0.05  # among the answers that are stood by, unless the user says otherwise
_DOUBT = 0.05  # how probable it may be that the error is higher than that after all
_LARGER = 1.05  # times as many texts at the next threshold
_MAX_POINTS = 200  # of a curve that is drawn

Confidence = npt.NDArray[np.float64]  # (texts,)


def confidence_and_right(
    logits: Logits, task: Labelling, examples: Examples, temperature: float = 1.0
) -> tuple[Confidence, Flags]:
    """Of the texts with labels, and those outside: how sure the model is of its answer, and whether that is right.

    Args:
        logits: (texts, labels) for all of the examples.
    """
    known = examples.known
    return task.answer_confidence(logits, temperature)[known], right_answers(logits, task, examples)[known]


def choose_abstention(confidence: Confidence, right: Flags, error: float) -> AbstainOptions | None:
    """The lowest threshold that keeps the error among what is answered at `error`, with 95 % probability.

    Fixed sequence testing (Angelopoulos et al. 2021, "Learn then test"): from the surest texts on, each time with some
    more, the exact upper bound of their error (Clopper & Pearson 1934) is held against what is allowed; the threshold
    before the first that fails is taken. The first bad threshold has to pass for a bad one to be taken, so the 5 % are
    not shared among the tests, as bisection has to (Geifman & El-Yaniv 2017), which answers fewer texts. The error that
    was counted, in place of its bound, would be exceeded on every other text file: of many thresholds it takes the one
    that these texts flatter most.

    Returns:
        None where no threshold reaches it.
    """
    descending = np.sort(confidence)[::-1]
    found = None
    for texts in _sequence(len(descending), error):
        least = float(descending[texts - 1])
        answered = confidence >= least  # more where others are as sure
        if _highest_error((answered & ~right).sum(), answered.sum()) > error:
            break
        found = least
    return None if found is None else AbstainOptions(below=found, error=error)


def why_no_abstention(error: float, texts: int) -> str:
    """Why no threshold was found, in a sentence.

    Args:
        texts: how many were there to choose it by.
    """
    fewest = _fewest(error)
    return (
        f"The bundle abstains from no answer: no threshold shows, on {texts} selection texts with labels, that at most "
        f"{100 * error:g} % of what is answered is wrong; "
        + (f"that takes {fewest} without an error. Add texts" if texts < fewest else "the surest are wrong too often")
        + f", or allow more than --answer-error {error:g}"
    )


def judge_abstention(
    expected: Logits, got: Logits, task: Labelling, test: Examples, temperature: float, abstain: AbstainOptions | None
) -> tuple[SelectiveFigures, RiskCurve, RiskCurve]:
    """What abstaining gains on these texts, of which one is `known` at least, and the curves of parent and bundle.

    Args:
        expected: the parent's logits, (texts, labels); `got` are the bundle's.
        temperature: of the bundle; the parent, which it follows, is judged at it too.
    """
    sure, right = confidence_and_right(got, task, test, temperature)
    parent, bundle = risks(*confidence_and_right(expected, task, test, temperature)), risks(sure, right)
    answered = sure >= (0 if abstain is None else abstain.below)
    figures = SelectiveFigures(
        texts=len(right),
        parent_aurc=float(parent.mean()),
        bundle_aurc=float(bundle.mean()),
        answered=int(answered.sum()),
        right=int((answered & right).sum()),
        outside=_judge_outside(expected, got, task, test, temperature, abstain) if any(test.outside) else None,
    )
    return figures, _curve(parent), _curve(bundle)


def _judge_outside(
    expected: Logits, got: Logits, task: Labelling, test: Examples, temperature: float, abstain: AbstainOptions | None
) -> OutsideFigures | None:
    outside = np.array(test.outside)
    inside = ~outside & test.known
    if not inside.any():
        return None
    parent, bundle = (task.answer_confidence(logits, temperature) for logits in (expected, got))
    return OutsideFigures(
        texts=int(outside.sum()),
        parent_auroc=auroc(parent[inside], parent[outside]),
        bundle_auroc=auroc(bundle[inside], bundle[outside]),
        abstained=0 if abstain is None else int((bundle[outside] < abstain.below).sum()),
    )


def auroc(inside: Confidence, outside: Confidence) -> Estimate:
    """How often the model is surer of a text inside than of one outside, with its 95 % interval.

    Ties count half. The variance is that of DeLong, DeLong & Clarke-Pearson 1988, from how each text of one kind fares
    among those of the other.
    """
    one, other = np.sort(inside), np.sort(outside)
    below = (np.searchsorted(other, inside) + np.searchsorted(other, inside, "right")) / (2 * len(other))
    above = 1 - (np.searchsorted(one, outside) + np.searchsorted(one, outside, "right")) / (2 * len(one))
    value = float(below.mean())
    half = Z * float(np.sqrt(below.var() / len(one) + above.var() / len(other)))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def risks(confidence: Confidence, right: Flags) -> npt.NDArray[np.float64]:
    """The error among the surest 1, 2, ... of all texts, (texts,); texts of equal confidence share their errors."""
    _, places, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places, ~right) / counts
    return np.asarray(np.repeat(wrong, counts).cumsum() / np.arange(1, len(right) + 1))


def _curve(risk: npt.NDArray[np.float64]) -> RiskCurve:
    """Coverage and error, from the surest text to all of them."""
    places = np.unique(np.linspace(0, len(risk) - 1, min(_MAX_POINTS, len(risk))).round().astype(int))
    return tuple((float(place + 1) / len(risk), float(risk[place])) for place in places)


def _sequence(texts: int, error: float) -> Iterator[int]:
    """How many of the surest texts are looked at, one number after another: a twentieth more each time.

    The first is the smallest at which half of the error that is allowed passes, for a test that begins with few fails
    by chance; where those would be most of the texts, the smallest that passes without any.
    """
    counts = np.arange(1, texts // 2 + 1)
    enough = np.flatnonzero(_highest_error((counts * error / 2).astype(int), counts) <= error)
    count = int(counts[enough[0]]) if len(enough) else _fewest(error)
    while count < texts:
        yield count
        count = max(count + 1, int(count * _LARGER))
    if texts:
        yield texts


def _fewest(error: float) -> int:
    """How many texts, all of them answered rightly, can show that the error is no higher."""
    return math.ceil(math.log(_DOUBT) / math.log1p(-error))


def _highest_error(wrong: Any, texts: Any) -> Any:
    """One-sided upper bounds of the error where so many of the texts are wrong."""
    from scipy.stats import beta  # only needed where bundles are made

    return np.where(wrong == texts, 1.0, beta.ppf(1 - _DOUBT, wrong + 1, np.maximum(texts - wrong, 1)))
