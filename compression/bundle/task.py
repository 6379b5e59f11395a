"""What kind of model it is: how logits become scores, and which labels a text gets.

Labelling ┬ SingleLabel     labels exclude each other: softmax, and a text gets the most probable one
          └ SeveralLabels   a text has any number of them: a sigmoid each, and it gets those at or over their thresholds
Number                      one output, which is the answer: as it is, or by a sigmoid

Nothing else in the project asks which of them it is, but where answers are judged by labels, and where a person reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

TaskName = Literal["text-classification", "multi-label-text-classification", "text-regression"]
Logits: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = npt.NDArray[np.float64]  # (texts, labels): probabilities, or the number
Answers: TypeAlias = npt.NDArray[np.bool_]  # (texts, labels): which labels each text gets, or has
Flags: TypeAlias = npt.NDArray[np.bool_]  # (texts,)

DEFAULT_THRESHOLD = 0.5
_SAME_NUMBER = 0.2  # standard deviations: what Cohen 1988 calls a small effect
_WIDTH = 4.0  # standard deviations that hold nearly all numbers
_NOT_ZERO = 1e-12  # added to a probability before its logarithm


@dataclass(frozen=True)
class Task(ABC):
    """A kind of model, with the labels of one.

    Attributes:
        labels: names in the order of the logits; of a number, its own.
    """

    labels: tuple[str, ...]

    name: ClassVar[TaskName]
    gives: ClassVar[str]  # to a text, in words
    several: ClassVar[bool] = False  # whether a text may have any number of labels

    @property
    @abstractmethod
    def function(self) -> Literal["softmax", "sigmoid", "none"]:
        """What makes scores of logits, as transformers' pipeline calls it."""

    @property
    def scale(self) -> float:
        """The width in which scores lie: 1 for probabilities."""
        return 1.0

    @abstractmethod
    def scores(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Scores:
        """Of each label: (texts, labels), as the logits are."""

    @abstractmethod
    def logits_of(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Logits that have these scores."""

    @abstractmethod
    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        """Which labels each text gets, at temperature 1."""

    @abstractmethod
    def lead(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """By how much probability each text's labels are decided, (texts,); 0 where there is nothing to decide."""

    def at(self, temperature: float) -> Self:
        """The same decisions, of logits that are divided by a temperature."""
        return self

    def mean(self, others: Sequence["Task"], weights: Sequence[float]) -> Self:
        """Of an ensemble of these: their scores are averaged with these weights."""
        return self

    def same(self, one: npt.NDArray[np.floating], other: npt.NDArray[np.floating], of: "Task | None" = None) -> Flags:
        """Whether the same answers follow from both logits, (texts,).

        Args:
            of: the task of the other logits, where it is not this one; its labels may stand in another order.
        """
        of = of or self
        theirs = of.decide(other)[..., [of.labels.index(label) for label in self.labels]]
        return np.asarray((self.decide(one) == theirs).all(axis=-1))

    def like(self, other: "Task") -> bool:
        """Whether scores mean the same in both, so that one may answer for the other where the labels are equal."""
        return (self.name, self.function) == (other.name, other.function)

    def named(self, answer: Answers) -> tuple[str, ...]:
        """The labels of one text's answer, (labels,), in the order of the logits."""
        return tuple(label for label, given in zip(self.labels, answer, strict=True) if given)


class Labelling(Task):
    """Answers are labels, and right or wrong."""

    accuracy: ClassVar[str]  # what the fraction of texts that get exactly their labels is called

    @abstractmethod
    def confidence(self, logits: Logits, truth: Answers, temperature: float = 1.0) -> tuple[Scores, Answers]:
        """Probabilities that were given to labels, and whether each was right: both (decisions,)."""

    @abstractmethod
    def answer_confidence(self, logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        """How probable the model holds it that a text has exactly the labels that it gets, (texts,)."""

    @abstractmethod
    def loss(self, logits: Logits, truth: Answers, temperature: float) -> float:
        """Negative log likelihood of the labels, mean over the texts."""


class SingleLabel(Labelling):
    """One label to a text."""

    name = "text-classification"
    gives = "one label"
    accuracy = "accuracy"

    @property
    def function(self) -> Literal["softmax"]:
        return "softmax"

    def scores(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Scores:
        return softmax(logits, temperature)

    def logits_of(self, scores: Scores) -> npt.NDArray[np.float64]:
        return np.log(np.maximum(scores, np.finfo(np.float64).tiny))

    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        return np.asarray(np.arange(logits.shape[-1]) == logits.argmax(axis=-1)[..., None])

    def lead(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        highest = np.sort(softmax(logits), axis=-1)
        return np.asarray(highest[..., -1] - highest[..., -2])

    def confidence(self, logits: Logits, truth: Answers, temperature: float = 1.0) -> tuple[Scores, Answers]:
        scores = softmax(logits, temperature)
        right = np.take_along_axis(truth, scores.argmax(axis=-1)[..., None], axis=-1)
        return scores.max(axis=-1), right[..., 0]

    def answer_confidence(self, logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        return np.asarray(softmax(logits, temperature).max(axis=-1))

    def loss(self, logits: Logits, truth: Answers, temperature: float) -> float:
        return float(-np.log(softmax(logits, temperature)[truth] + _NOT_ZERO).mean())


@dataclass(frozen=True)
class SeveralLabels(Labelling):
    """Any number of labels to a text.

    Attributes:
        thresholds: of the labels, in their order: probabilities at temperature 1, between 0 and 1.
    """

    thresholds: tuple[float, ...]

    name = "multi-label-text-classification"
    gives = "any number of labels"
    several = True
    accuracy = "exact match"

    @property
    def function(self) -> Literal["sigmoid"]:
        return "sigmoid"

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """With the threshold that transformers' users know, for every label."""
        return cls(tuple(labels), (DEFAULT_THRESHOLD,) * len(labels))

    def scores(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Scores:
        return sigmoid(logits, temperature)

    def logits_of(self, scores: Scores) -> npt.NDArray[np.float64]:
        return logit(scores)

    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        return np.asarray(sigmoid(logits) >= np.array(self.thresholds))

    def lead(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        return np.asarray(np.abs(sigmoid(logits) - np.array(self.thresholds)).min(axis=-1))

    def confidence(self, logits: Logits, truth: Answers, temperature: float = 1.0) -> tuple[Scores, Answers]:
        return sigmoid(logits, temperature).ravel(), truth.ravel()

    def answer_confidence(self, logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        scores = sigmoid(logits, temperature)  # of labels that are independent given the text, as the loss has them
        return np.asarray(np.where(self.decide(logits), scores, 1 - scores).prod(axis=-1))

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


@dataclass(frozen=True)
class Number(Task):
    """A number for each text: what a regression gives, or a score between 0 and 1.

    Two numbers count as the same within a fifth of the standard deviation.

    Attributes:
        labels: its name alone.
        applied: what makes the number of the logit.
        spread: standard deviation of the parent's numbers on texts like those to be served; 0 where it is not known.
    """

    applied: Literal["none", "sigmoid"]
    spread: float = 0.0

    name = "text-regression"
    gives = "a number"

    @property
    def function(self) -> Literal["none", "sigmoid"]:
        return self.applied

    @property
    def scale(self) -> float:
        return _WIDTH * self.spread

    @property
    def tolerance(self) -> float:
        """The largest difference of numbers that count as the same."""
        return _SAME_NUMBER * self.spread

    def scores(self, logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Scores:
        return sigmoid(logits) if self.applied == "sigmoid" else logits.astype(np.float64)

    def logits_of(self, scores: Scores) -> npt.NDArray[np.float64]:
        return logit(scores) if self.applied == "sigmoid" else scores

    def decide(self, logits: npt.NDArray[np.floating]) -> Answers:
        return np.ones(logits.shape, np.bool_)

    def lead(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        return np.zeros(logits.shape[:-1])

    def mean(self, others: Sequence[Task], weights: Sequence[float]) -> Self:
        spreads = [other.spread for other in others if isinstance(other, Number)]
        return replace(self, spread=float(np.average(spreads, weights=weights)))

    def same(self, one: npt.NDArray[np.floating], other: npt.NDArray[np.floating], of: Task | None = None) -> Flags:
        apart = np.abs(self.scores(one) - (of or self).scores(other))
        return np.asarray((apart <= self.tolerance).all(axis=-1))


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Scores:
    """Probabilities over the last axis, in float64 so that they sum to 1 within 1e-12."""
    scaled = logits.astype(np.float64) / temperature
    # The methods of an array do the same, for twice the time of so few numbers.
    exponentials = np.exp(scaled - np.maximum.reduce(scaled, axis=-1, keepdims=True))
    return np.asarray(exponentials / np.add.reduce(exponentials, axis=-1, keepdims=True))


def sigmoid(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Scores:
    """The probability of each logit by itself, in float64; no logit overflows."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(-np.abs(scaled))
    return np.asarray(np.where(scaled >= 0, 1, exponentials) / (1 + exponentials))


def logit(probabilities: Scores) -> npt.NDArray[np.float64]:
    """What has these sigmoids; finite for 0 and 1 too."""
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log(np.maximum(probabilities, tiny)) - np.log(np.maximum(1 - probabilities, tiny)))
