"""What a parent's logits say, by the kind of model that its config names.

A number is taken for the mean of a normal distribution, so that its divergence is the squared error: what a regression
is trained with. Where the number is a sigmoid, it is the probability of one label, that is there or not.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from compression.bundle import Number, SeveralLabels, SingleLabel, Task

SEVERAL = "multi_label_classification"
REGRESSION = "regression"


def task_of(config: PreTrainedConfig, labels: Sequence[str]) -> Task:
    """What transformers' pipeline takes it for.

    A number where there is one output: as it is where `problem_type` says regression, else a sigmoid. Several labels
    where it says so, with the threshold 0.5; else one.
    """
    if len(labels) == 1:
        return Number(tuple(labels), "none" if config.problem_type == REGRESSION else "sigmoid")
    return SeveralLabels.of(labels) if config.problem_type == SEVERAL else SingleLabel(tuple(labels))


def are_numbers(model: PreTrainedModel) -> bool:
    """Whether the logits are the answer."""
    return bool(model.config.problem_type == REGRESSION)


def are_apart(model: PreTrainedModel) -> bool:
    """Whether each logit is of a label that is there or not, whatever the others are."""
    return model.config.problem_type == SEVERAL or (model.config.num_labels == 1 and not are_numbers(model))


def outcomes(model: PreTrainedModel, logits: torch.Tensor) -> torch.Tensor:
    """What logits say, in the form that `divergence` compares.

    Log-probabilities of the outcomes: (texts, labels), or (texts, labels, 2) where each label of a text is there or
    not. Numbers as they are, (texts, 1).
    """
    if are_numbers(model):
        return logits
    if are_apart(model):
        return torch.stack([functional.logsigmoid(logits), functional.logsigmoid(-logits)], -1)
    return logits.log_softmax(-1)


def divergence(model: PreTrainedModel, theirs: torch.Tensor, mine: torch.Tensor, spread: float = 1.0) -> torch.Tensor:
    """KL(theirs || mine) of each text, (texts,).

    Args:
        spread: of numbers, the standard deviation that both distributions have.
    """
    if are_numbers(model):
        return (theirs - mine).square().sum(-1) / (2 * spread**2)
    return functional.kl_div(mine, theirs, log_target=True, reduction="none").flatten(1).sum(1)
