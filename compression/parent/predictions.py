"""What a parent's logits say, by the kind of classifier that its config names."""

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from compression.bundle import SeveralLabels, SingleLabel, Task

SEVERAL = "multi_label_classification"


def task_of(config: PreTrainedConfig, labels: Sequence[str]) -> Task:
    """Several labels where `problem_type` says so, with the threshold 0.5; else one."""
    return SeveralLabels.of(labels) if config.problem_type == SEVERAL else SingleLabel(tuple(labels))


def log_probabilities(model: PreTrainedModel, logits: torch.Tensor) -> torch.Tensor:
    """Of the outcomes: (texts, labels), or (texts, labels, 2) where each label of a text is there or not.

    Divergences are the same sums of both.
    """
    if model.config.problem_type == SEVERAL:
        return torch.stack([functional.logsigmoid(logits), functional.logsigmoid(-logits)], -1)
    return logits.log_softmax(-1)
