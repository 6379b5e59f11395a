"""Movement scores (Sanh et al. 2020): which weights a short distillation from the parent moves away from zero.

score = -sum over the steps of weight * gradient. Each step computes with the weights that the scores so far leave, and
more of them are zero from step to step; the gradient passes straight through the zeros, so that a weight can come back.
The zeros also give the distillation its object: the model as it was may say just what the parent says.
"""

import copy
import random
from collections.abc import Callable, Sequence

import torch

from compression.batches import BATCH_SIZE
from compression.checkpoint import Parent
from compression.finetune import has_bf16
from compression.lessons import distillation_loss, lessons
from compression.progress import track
from compression.prune.encoder import sublayers

_LEARNING_RATE = 1e-4
_RAMP = 0.7  # share of the steps in which the sparsity rises
_TIE = 1e-6  # of the magnitude in the scores: decides only while no gradient has


def movement(
    parent: Parent,
    model: Parent,
    texts: Sequence[str],
    zeroed: Callable[[torch.Tensor, float], torch.Tensor],
    sparsity: float,
) -> list[torch.Tensor]:
    """Scores the weights of the sublayers' linears, each sublayer's inputs first, then its output.

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
    scores = [_TIE * weight.detach().abs() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE)
    steps = -(-len(texts) // BATCH_SIZE)
    taught = track(lessons(parent, student, texts, random.Random(0)), "Movement", steps)  # noqa: S311  (no secret)
    for done, lesson in enumerate(taught):
        risen = min(1.0, done / (_RAMP * steps))
        now = sparsity * (1 - (1 - risen) ** 3)
        dense = [weight.detach().clone() for weight in weights]
        for weight, score in zip(weights, scores, strict=True):
            weight.data.masked_fill_(zeroed(score, now), 0.0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bf16()):
            loss = distillation_loss(student.model, lesson)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for weight, whole, score in zip(weights, dense, scores, strict=True):
            assert weight.grad is not None
            weight.data = whole
            score.sub_(whole * weight.grad)
        optimizer.step()
    return scores
