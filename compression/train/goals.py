"""What a model is trained to give: one label, several, or a number. How rows say so, and what is measured meanwhile."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import nn
from transformers import EvalPrediction, PreTrainedConfig

from compression.data import Examples, Labels, names_of, require_labelled
from compression.errors import DataError
from compression.labels import NUMBERS_WANTED, number_of, require_numbers
from compression.measure.evaluate import micro_f1
from compression.measure.numbers import mae
from compression.parent.predictions import REGRESSION, SEVERAL
from compression.progress import warn
from compression.train.watching import LITTLE, doubt_of_learning

_FEW_NUMBERS = 10  # labels that may well be names of classes, as stars are


class Goal(ABC):
    """Attributes:
    labels: names of the outputs, as a config's `id2label` has them.
    """

    problem: ClassVar[str]  # `problem_type` of the config
    measure: ClassVar[str]  # name of the figure on the validation rows that chooses the epoch
    higher_is_better: ClassVar[bool] = True

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    @abstractmethod
    def target(self, labels: Labels, config: PreTrainedConfig) -> int | float | list[float]:
        """What a row is to be answered."""

    @abstractmethod
    def measured(self, prediction: EvalPrediction) -> dict[str, float]:
        """The figure of these rows, by its name."""

    def spoken(self, value: float) -> str:
        """The figure for people."""
        return f"{self.measure.replace('_f1', ' F1')} {100 * value:.1f} %"

    def doubt(self, value: float, labels: Sequence[Labels], rows: str) -> str | None:
        """See `doubt_of_learning`."""
        return doubt_of_learning(value, labels, rows)

    def begin(self, model: nn.Module, kept: bool) -> None:  # noqa: B027  # most heads need nothing
        """Prepares the head; `kept` says that it has learned its task before."""

    def end(self, model: nn.Module) -> None:  # noqa: B027
        """Makes the head give what it is to give from now on."""


class OneLabel(Goal):
    problem = "single_label_classification"
    measure = "accuracy"

    def target(self, labels: Labels, config: PreTrainedConfig) -> int:
        return int(config.label2id[names_of(labels)[0]])

    def measured(self, prediction: EvalPrediction) -> dict[str, float]:
        logits = np.asarray(prediction.predictions)
        return {self.measure: float((logits.argmax(-1) == prediction.label_ids).mean())}


class AnyLabels(Goal):
    problem = SEVERAL
    measure = "micro_f1"

    def target(self, labels: Labels, config: PreTrainedConfig) -> list[float]:
        """1 for each of its labels and 0 for the others."""
        numbers = [config.label2id[name] for name in names_of(labels)]
        return [float(number in numbers) for number in range(config.num_labels)]

    def measured(self, prediction: EvalPrediction) -> dict[str, float]:
        given, truth = (
            np.asarray(prediction.predictions) >= 0,
            np.asarray(prediction.label_ids) > 0,
        )  # thresholds of 0.5
        return {self.measure: float(micro_f1(np.ones((1, len(truth))), truth, given)[0])}


class ANumber(Goal):
    """Trained on numbers of mean 0 and standard deviation 1, whatever their units are: the learning rates suit those.

    The head is scaled before and back after. One without a bias, which cannot be moved, keeps the mean to learn.
    """

    problem = REGRESSION
    measure = "mae"
    higher_is_better = False

    def __init__(self, name: str, train: Examples) -> None:
        super().__init__([name])
        numbers = np.array([number_of(str(label)) for label in train.labels], np.float64)
        self._mean, self._spread = float(numbers.mean()), float(numbers.std())
        if not self._spread > 0:
            raise DataError(f"train has the number {train.labels[0]} in every row; there is nothing to learn")

    def target(self, labels: Labels, config: PreTrainedConfig) -> float:
        value = number_of(str(labels))
        assert value is not None  # `goal_of` has looked
        return (value - self._mean) / self._spread

    def measured(self, prediction: EvalPrediction) -> dict[str, float]:
        given, truth = (np.asarray(side, np.float64).ravel() for side in (prediction.predictions, prediction.label_ids))
        return {self.measure: self._spread * float(mae(np.ones((1, len(truth))), truth, given)[0])}

    def spoken(self, value: float) -> str:
        return f"mean absolute error {value:.4g}"

    def doubt(self, value: float, labels: Sequence[Labels], rows: str) -> str | None:
        numbers = np.array([number_of(str(label)) for label in labels], np.float64)
        median = float(np.median(numbers))
        constant = float(np.abs(numbers - median).mean())
        if value <= (1 - LITTLE) * constant:
            return None
        return (
            f"has a mean absolute error of {value:.3g} on {len(labels)} {rows}, where {median:.3g} for every row has "
            f"{constant:.3g}: it has learned next to nothing. Train longer (--epochs), at a higher --learning-rate, or "
            "on more rows"
        )

    def begin(self, model: nn.Module, kept: bool) -> None:
        head = _head(model)
        if head.bias is None:
            self._mean = 0.0
        if kept:
            _scale(head, 1 / self._spread, -self._mean / self._spread)

    def end(self, model: nn.Module) -> None:
        _scale(_head(model), self._spread, self._mean)


def goal_of(train: Examples, validation: Examples | None, number: str | None) -> Goal:
    """What these rows are to teach.

    Args:
        number: name of the number, where the user says that labels are such; digits may well be names of classes.

    Raises:
        DataError: rows without a label, fewer than two labels, validation labels that train does not have, or labels
            that are no numbers where these are wanted.
    """
    parts = [("train", train), *([("validation", validation)] if validation is not None else [])]
    for name, examples in parts:
        require_labelled(examples, name)
    if number is not None:
        for name, examples in parts:
            require_numbers(examples, name, NUMBERS_WANTED)
        return ANumber(number, train)
    labels = sorted({name for label in train.labels for name in names_of(label)})
    if len(labels) < 2:
        only = f"only the label {labels[0]!r}" if labels else "no label"
        raise DataError(f"train has {only}; a classifier needs two or more")
    seen = () if validation is None else validation.labels
    unseen = sorted({name for label in seen for name in names_of(label)} - set(labels))
    if unseen:
        remedy = "; to learn the number, pass --number" * all(number_of(name) is not None for name in labels)
        raise DataError(f"validation has labels that train does not: {', '.join(map(repr, unseen[:5]))}{remedy}")
    found = [number_of(name) for name in labels]
    if None not in found and (len(labels) > _FEW_NUMBERS or any(value != int(value) for value in found if value)):
        warn(
            f"train has {len(labels)} labels, all of them numbers, and each is trained as a label of its own; to learn "
            "the number, pass --number"
        )
    several = any(examples.several for _, examples in parts)
    return AnyLabels(labels) if several else OneLabel(labels)


def _head(model: nn.Module) -> nn.Linear:
    """The last linear of one output that is trained."""
    found = [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == 1]
    return next(part for part in reversed(found) if part.weight.requires_grad)


def _scale(head: nn.Linear, factor: float, added: float) -> None:
    head.weight.data.mul_(factor)
    if head.bias is not None:
        head.bias.data.mul_(factor).add_(added)


def wide(name: str, goal: Goal) -> bool:
    """Whether a weight of an adapter is to be stored in float32: the head of a number has the number's scale."""
    return isinstance(goal, ANumber) and "lora_" not in name
