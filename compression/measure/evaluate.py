"""How good a classifier's logits are: against labels and against another classifier, alone and in a batch."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression.bundle import ClassFigures, softmax
from compression.bundle.runtime import Logits
from compression.data import Examples, require_known_labels
from compression.errors import DataError
from compression.measure.evidence import Bin
from compression.parent.classifier import Classifier, load_classifier, predict

Answers = npt.NDArray[np.intp]  # (texts,) index of a label
Counts = npt.NDArray[np.float64]
_MIN_ROWS_FOR_TEMPERATURE = 50
_BINS = 15
SELECTION_TEXTS = 400  # that each step is judged on, at most; the numbers guide, they do not prove


@dataclass(frozen=True)
class Quality:
    """Fractions, not percent; None where no row has a label."""

    texts: int
    labelled: int
    correct: int
    accuracy: float | None
    macro_f1: float | None  # mean over the labels that occur in the data or in the answers


def evaluate(model: str, examples: Examples, source: Path, against: str | None = None) -> dict[str, Any]:
    """Loads a model (and another to compare with) and measures it.

    Returns:
        the fields of Quality; with `against`, `agreement` too: the fraction of texts with the same label from both.
        Where no row has a label, `texts` and `agreement` alone.

    Raises:
        LatheError: a model cannot be loaded, labels do not fit, or there is neither a label nor another model.
    """
    labelled = len(examples.labelled)
    if not labelled and against is None:
        raise DataError(
            f"{source}: no row has a label, so there is nothing to count; name the column with --label-column, or pass "
            "--against with another bundle or the parent, which needs no labels"
        )
    classifier = load_classifier(model)
    require_known_labels(examples, classifier.labels, source)
    logits = predict(classifier, examples.texts, "Evaluate")
    figures: dict[str, Any] = (
        asdict(quality(logits, classifier.labels, examples)) if labelled else {"texts": len(examples)}
    )
    if against is not None:
        other = load_classifier(against)
        if set(other.labels) != set(classifier.labels):
            raise DataError(f"{model} and {against} have different labels; they cannot agree")
        columns = [other.labels.index(label) for label in classifier.labels]
        figures["agreement"] = agreement(logits, predict(other, examples.texts, "Evaluate the other")[:, columns])
    return figures


def quality(logits: Logits, names: Sequence[str], examples: Examples) -> Quality:
    """Counts the right answers.

    Args:
        logits: (texts, labels) for all of the examples.
        names: label names in the order of the logits.
    """
    rows, expected = labelled_rows(names, examples)
    answered = logits[rows].argmax(axis=-1)
    correct = int((answered == expected).sum())
    return Quality(
        texts=len(examples),
        labelled=len(rows),
        correct=correct,
        accuracy=correct / len(rows) if rows else None,
        macro_f1=float(macro_f1(np.ones((1, len(rows))), expected, answered)[0]) if rows else None,
    )


def macro_f1(drawn: Counts, truth: Answers, answered: Answers) -> Counts:
    """Mean F1 over the labels that occur in a draw's texts or answers, as scikit-learn has it.

    Args:
        drawn: (draws, texts) how often each text occurs.
        truth: (texts,) index of a label; as is `answered`.

    Returns:
        (draws,)
    """
    labels = np.arange(1 + max(truth.max(), answered.max()))
    is_truth, is_answer = (truth[:, None] == labels).astype(float), (answered[:, None] == labels).astype(float)
    hits = drawn @ (is_truth * is_answer)  # (draws, labels); so are the others
    occurrences = drawn @ (is_truth + is_answer)
    f1 = 2 * hits / np.maximum(occurrences, 1)
    return np.asarray(f1.sum(axis=1) / (occurrences > 0).sum(axis=1), np.float64)


def agreement(one: Logits, other: Logits) -> float:
    """Fraction of texts that get the same label from both; the columns must be in the same order."""
    return float((one.argmax(axis=-1) == other.argmax(axis=-1)).mean())


def batch_invariance(classifier: Classifier, texts: Sequence[str], seed: int = 0) -> tuple[int, float]:
    """A text alone against the same text in a shuffled batch of sixteen.

    Returns:
        how many texts get another label, and the largest difference of any score.
    """
    encoded = [classifier.encode(text) for text in texts]
    random.Random(seed).shuffle(encoded)  # noqa: S311
    changes, deviation = 0, 0.0
    for start in range(0, len(encoded), 16):
        batch = encoded[start : start + 16]
        together = softmax(classifier.forward(batch))
        alone = softmax(np.concatenate([classifier.forward([text]) for text in batch]))
        changes += int((together.argmax(axis=-1) != alone.argmax(axis=-1)).sum())
        deviation = max(deviation, float(np.abs(together - alone).max()))
    return changes, deviation


def class_figures(parent: Logits, bundle: Logits, names: Sequence[str], examples: Examples) -> tuple[ClassFigures, ...]:
    """Recall of each label that occurs in the examples."""
    rows, targets = labelled_rows(names, examples)
    right = [logits[rows].argmax(axis=-1) == targets for logits in (parent, bundle)]
    return tuple(
        ClassFigures(
            label=name,
            texts=int(has.sum()),
            parent_recall=float(right[0][has].mean()),
            bundle_recall=float(right[1][has].mean()),
        )
        for index, name in enumerate(names)
        if (has := targets == index).any()
    )


def reliability(logits: Logits, names: Sequence[str], examples: Examples, temperature: float = 1.0) -> tuple[Bin, ...]:
    """The labelled texts in bins of equal width by their top score; empty bins are left out (Naeini et al. 2015)."""
    rows, targets = labelled_rows(names, examples)
    scores = softmax(logits[rows], temperature)
    confidence, right = scores.max(axis=-1), scores.argmax(axis=-1) == targets
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return tuple(
        Bin(texts=int(chosen.sum()), confidence=float(confidence[chosen].mean()), accuracy=float(right[chosen].mean()))
        for index in range(_BINS)
        if (chosen := bins == index).any()
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy, weighted by texts (Guo et al. 2017)."""
    return sum(one.texts * abs(one.confidence - one.accuracy) for one in bins) / sum(one.texts for one in bins)


def fit_temperature(logits: Logits, names: Sequence[str], examples: Examples) -> float:
    """The temperature that minimises the labels' negative log likelihood (Guo et al. 2017).

    It is 1 with too few texts, or where all have one label: they would only say how often that one is given.
    """
    from scipy.optimize import minimize_scalar  # only needed where bundles are made

    rows, targets = labelled_rows(names, examples)
    if len(rows) < _MIN_ROWS_FOR_TEMPERATURE or len(np.unique(targets)) < 2:
        return 1.0

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits[rows], float(np.exp(log_temperature)))
        return float(-np.log(probabilities[range(len(rows)), targets] + 1e-12).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10.0)), method="bounded").x))


def labelled_rows(names: Sequence[str], examples: Examples) -> tuple[list[int], npt.NDArray[np.intp]]:
    """The rows that have a label, and the columns of those labels."""
    columns = {name: index for index, name in enumerate(names)}
    rows = [index for index, label in enumerate(examples.labels) if label is not None]
    return rows, np.array([columns[str(examples.labels[index])] for index in rows], np.intp)
