"""How good a classifier's logits are: against labels, against another classifier, alone against in a batch."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score

from compression.bundle import softmax
from compression.bundle.runtime import Logits
from compression.classifier import Classifier, load_classifier, predict
from compression.data import Examples, require_known_labels
from compression.errors import DataError

_MIN_ROWS_FOR_TEMPERATURE = 50


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

    Raises:
        LatheError: a model cannot be loaded, or labels do not fit.
    """
    classifier = load_classifier(model)
    require_known_labels(examples, classifier.labels, source)
    logits = predict(classifier, examples.texts, "Evaluate")
    figures = asdict(quality(logits, classifier.labels, examples))
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
    rows = [index for index, label in enumerate(examples.labels) if label is not None]
    expected = [examples.labels[index] for index in rows]
    answered = [names[index] for index in logits[rows].argmax(axis=-1)]
    correct = sum(want == got for want, got in zip(expected, answered, strict=True))
    return Quality(
        texts=len(examples),
        labelled=len(rows),
        correct=correct,
        accuracy=correct / len(rows) if rows else None,
        macro_f1=float(f1_score(expected, answered, average="macro", zero_division=0)) if rows else None,
    )


def agreement(one: Logits, other: Logits) -> float:
    """Fraction of texts that get the same label from both; the columns must be in the same order."""
    return float((one.argmax(axis=-1) == other.argmax(axis=-1)).mean())


def batch_deviation(classifier: Classifier, texts: Sequence[str], seed: int = 0) -> float:
    """Largest difference of any score between a text alone and the same text in a shuffled batch of sixteen."""
    encoded = [classifier.encode(text) for text in texts]
    random.Random(seed).shuffle(encoded)  # noqa: S311
    deviation = 0.0
    for start in range(0, len(encoded), 16):
        batch = encoded[start : start + 16]
        together = softmax(classifier.forward(batch))
        alone = softmax(np.concatenate([classifier.forward([text]) for text in batch]))
        deviation = max(deviation, float(np.abs(together - alone).max()))
    return deviation


def fit_temperature(logits: Logits, names: Sequence[str], examples: Examples) -> float:
    """The temperature that minimises the labels' negative log likelihood (Guo et al. 2017); 1 with too few labels."""
    rows = [index for index, label in enumerate(examples.labels) if label is not None]
    if len(rows) < _MIN_ROWS_FOR_TEMPERATURE:
        return 1.0
    targets = [names.index(str(examples.labels[index])) for index in rows]

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits[rows], float(np.exp(log_temperature)))
        return float(-np.log(probabilities[range(len(rows)), targets] + 1e-12).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10.0)), method="bounded").x))
