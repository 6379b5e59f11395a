"""Movement scores (Sanh et al. 2020): which weights a short distillation from the parent moves away from zero.

A weight's score is the magnitude that it has after it was moved. Scores that begin at nothing, as in the paper, rank
the weights by the noise of their gradients unless training is long: after a hundred steps, with 50 % zeros, a model of
sst2 was left with chance. So these begin at the magnitude. Each step computes with the weights that the scores so far
leave, and more of them are zero from step to step (Zhu and Gupta 2017); the gradient passes straight through the zeros,
so that a weight can come back. The zeros also give the distillation its object: the model as it was may say just what
the parent says.
"""

import copy
import random
from collections.abc import Callable, Sequence

import torch
from torch import nn

from compression.bundle import Input
from compression.parent.batches import BATCH_SIZE
from compression.parent.checkpoint import Parent
from compression.progress import track
from compression.prune.encoder import sublayers
from compression.train.finetune import has_bf16
from compression.train.lessons import distillation_loss, lessons, vary

_LEARNING_RATE = 1e-4
_RAMP = 0.7  # share of the steps in which the sparsity rises
_HIDDEN = 1.0  # weight of the hidden states beside the predictions


def movement(
    parent: Parent,
    model: Parent,
    texts: Sequence[Input],
    zeroed: Callable[[torch.Tensor, float], torch.Tensor],
    sparsity: float,
) -> list[torch.Tensor]:
    """The moved weights of the sublayers' linears, each sublayer's inputs first, then its output.

    Args:
        parent: whose predictions are learned.
        model: left as it is.
        zeroed: from scores and a sparsity, which weights go.
    """
    student = copy.deepcopy(model)
    student.model.requires_grad_(False)
    weights = [linear.weight for part in sublayers(student.model) for linear in (*part.inputs, part.output)]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=0.0)  # which would move all towards zero
    steps = -(-len(texts) // BATCH_SIZE)
    choose = random.Random(0)  # noqa: S311  (no secret)
    taught = lessons(parent, student, [vary(text, texts, choose) for text in texts], choose, hidden=True)
    for done, lesson in enumerate(track(taught, "Movement", steps)):
        risen = min(1.0, done / (_RAMP * steps))
        now = sparsity * (1 - (1 - risen) ** 3)
        dense = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.data.masked_fill_(zeroed(weight.detach().abs(), now), 0.0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bf16()):
            loss = distillation_loss(student.model, lesson, _HIDDEN)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        for weight, whole in zip(weights, dense, strict=True):
            weight.data = whole
        optimizer.step()
    return [weight.detach() for weight in weights]
