"""What kind of classifier a model is: how logits become probabilities, and which labels a text gets.

SingleLabel     labels exclude each other: softmax, and a text gets the most probable one
SeveralLabels   a text has any number of them: a sigmoid each, and it gets those at or over their thresholds

Nothing else in the project asks which of the two it is, but where a person reads the answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

TaskName = Literal["text-classification", "multi-label-text-classification"]
Logits: TypeAlias = npt.NDArray[np.float32]
Probabilities: TypeAlias = npt.NDArray[np.float64]
Answers: TypeAlias = npt.NDArray[np.bool_]  # (texts, labels): which labels each text gets, or has

DEFAULT_THRESHOLD = 0.5
_NOT_ZERO = 1e-12  # added to a probability before its logarithm


@dataclass(frozen=True)
class Task(ABC):
    """A kind of classifier, with the labels of one.

    Attributes:
        labels: names in the order of the logits.
    """

    labels: tuple[str, ...]

    name: ClassVar[TaskName]
    several: ClassVar[bool]  # whether a text may have any number of labels
    function: ClassVar[Literal["softmax", "sigmoid"]]
    accuracy: ClassVar[str]  # what the fraction of texts that get exactly their labels is called

    @abstractmethod
    def probabilities(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
        """Of each label: (texts, labels), as the logits are."""

    @abstractmethod
    def logits_of(self, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        """Logits that have these probabilities."""

    @abstractmethod
    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        """Which labels each text gets, at temperature 1."""

    @abstractmethod
    def lead(self, logits: npt.NDArray[np.floating]) -> Probabilities:
        """By how much probability each text's answer is decided, (texts,)."""

    @abstractmethod
    def confidence(self, logits: Logits, truth: Answers, temperature: float = 1.0) -> tuple[Probabilities, Answers]:
        """Probabilities that were given to labels, and whether each was right: both (decisions,)."""

    @abstractmethod
    def loss(self, logits: Logits, truth: Answers, temperature: float) -> float:
        """Negative log likelihood of the labels, mean over the texts."""

    def at(self, temperature: float) -> Self:
        """The same decisions, of logits that are divided by a temperature."""
        return self

    def mean(self, others: Sequence["Task"], weights: Sequence[float]) -> Self:
        """Of an ensemble of these: their probabilities are averaged with these weights."""
        return self

    def same(self, one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> Answers:
        """Whether the same labels follow from both logits, (texts,)."""
        return np.asarray((self.decide(one) == self.decide(other)).all(axis=-1))

    def named(self, answer: Answers) -> tuple[str, ...]:
        """The labels of one text's answer, (labels,), in the order of the logits."""
        return tuple(label for label, given in zip(self.labels, answer, strict=True) if given)


class SingleLabel(Task):
    """One label to a text."""

    name = "text-classification"
    several = False
    function = "softmax"
    accuracy = "accuracy"

    def probabilities(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
        return softmax(logits, temperature)

    def logits_of(self, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))

    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        return np.asarray(np.arange(logits.shape[-1]) == logits.argmax(axis=-1)[..., None])

    def lead(self, logits: npt.NDArray[np.floating]) -> Probabilities:
        highest = np.sort(softmax(logits), axis=-1)
        return np.asarray(highest[..., -1] - highest[..., -2])

    def confidence(self, logits: Logits, truth: Answers, temperature: float = 1.0) -> tuple[Probabilities, Answers]:
        scores = softmax(logits, temperature)
        right = np.take_along_axis(truth, scores.argmax(axis=-1)[..., None], axis=-1)
        return scores.max(axis=-1), right[..., 0]

    def loss(self, logits: Logits, truth: Answers, temperature: float) -> float:
        return float(-np.log(softmax(logits, temperature)[truth] + _NOT_ZERO).mean())


@dataclass(frozen=True)
class SeveralLabels(Task):
    """Any number of labels to a text.

    Attributes:
        thresholds: of the labels, in their order: probabilities at temperature 1, between 0 and 1.
    """

    thresholds: tuple[float, ...]

    name = "multi-label-text-classification"
    several = True
    function = "sigmoid"
    accuracy = "exact match"

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """With the threshold that transformers' users know, for every label."""
        return cls(tuple(labels), (DEFAULT_THRESHOLD,) * len(labels))

    def probabilities(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
        return sigmoid(logits, temperature)

    def logits_of(self, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        tiny = np.finfo(np.float64).tiny
        return np.asarray(np.log(np.maximum(probabilities, tiny)) - np.log(np.maximum(1 - probabilities, tiny)))

    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        return np.asarray(sigmoid(logits) >= np.array(self.thresholds))

    def lead(self, logits: npt.NDArray[np.floating]) -> Probabilities:
        return np.asarray(np.abs(sigmoid(logits) - np.array(self.thresholds)).min(axis=-1))

    def confidence(self, logits: Logits, truth: Answers, temperature: float = 1.0) -> tuple[Probabilities, Answers]:
        return sigmoid(logits, temperature).ravel(), truth.ravel()

    def loss(self, logits: Logits, truth: Answers, temperature: float) -> float:
        scores = sigmoid(logits, temperature)
        right = np.where(truth, scores, 1 - scores)
        return float(-np.log(right + _NOT_ZERO).sum(axis=-1).mean())

    def at(self, temperature: float) -> Self:
        if temperature == 1:
            return self
        moved = sigmoid(self.logits_of(np.array(self.thresholds)), temperature)
        return replace(self, thresholds=tuple(moved.tolist()))

    def mean(self, others: Sequence[Task], weights: Sequence[float]) -> Self:
        thresholds = [other.thresholds for other in others if isinstance(other, SeveralLabels)]
        return replace(self, thresholds=tuple(np.average(thresholds, axis=0, weights=weights).tolist()))


def task_of(name: TaskName, labels: tuple[str, ...], thresholds: tuple[float, ...] | None) -> Task:
    """The task of a bundle, as its manifest has it."""
    if name == SingleLabel.name:
        return SingleLabel(labels)
    assert thresholds is not None  # the manifest sees to it
    return SeveralLabels(labels, thresholds)


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
    """Probabilities over the last axis, in float64 so that they sum to 1 within 1e-12."""
    scaled = logits.astype(np.float64) / temperature
    # The methods of an array do the same, for twice the time of so few numbers.
    exponentials = np.exp(scaled - np.maximum.reduce(scaled, axis=-1, keepdims=True))
    return np.asarray(exponentials / np.add.reduce(exponentials, axis=-1, keepdims=True))


def sigmoid(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
    """The probability of each logit by itself, in float64; no logit overflows."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(-np.abs(scaled))
    return np.asarray(np.where(scaled >= 0, 1, exponentials) / (1 + exponentials))
