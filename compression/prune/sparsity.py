"""Sets weights of the encoder's linear layers to zero: for stored size (unstructured), or for GPUs (2:4).

What a weight is worth is compared within its output row. By `wanda` (Sun et al. 2024): its magnitude times the size of
the input that it meets, from one look at the text. By `magnitude` alone. By `movement` (Sanh et al. 2020): the
magnitude that it has after a short distillation moved it; of the three, this alone changes the weights that stay.
"""

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from compression.bundle import Input
from compression.errors import RecipeError
from compression.parent.batches import Batch
from compression.parent.checkpoint import Parent
from compression.progress import track
from compression.prune.encoder import sublayers
from compression.prune.movement import movement
from compression.prune.observe import batches
from compression.recipe import SparsifyStep

Pattern = Literal["unstructured", "2:4"]

_MAX_TOKENS = 8_000


def sparsify(parent: Parent, model: Parent, texts: Sequence[Input], step: SparsifyStep) -> Parent:
    """Sparsifies a copy of the model.

    Args:
        parent: whose predictions movement distils.
        texts: unlabelled; wanda looks at the first few hundred, movement learns from all.

    Raises:
        CheckpointError: an architecture whose layers are not known.
        RecipeError: 2:4 for a layer whose width is no multiple of four.
    """
    result = dataclasses.replace(model, model=copy.deepcopy(model.model))
    linears = [linear for part in sublayers(result.model) for linear in (*part.inputs, part.output)]
    weights = [linear.weight.detach() for linear in linears]
    zeroed = partial(_zeroed, pattern=step.pattern)
    match step.score:
        case "wanda":
            sizes = _input_sizes(result, linears, batches(model, texts, _MAX_TOKENS))
            scores = [weight.abs() * size for weight, size in zip(weights, sizes, strict=True)]
        case "magnitude":
            scores = [weight.abs() for weight in weights]
        case "movement":
            for weight, moved in zip(weights, movement(parent, model, texts, zeroed, step.sparsity), strict=True):
                weight.copy_(moved)
            scores = [weight.abs() for weight in weights]
    for weight, score in zip(weights, scores, strict=True):
        weight.masked_fill_(zeroed(score, step.sparsity), 0.0)
    return result


def _zeroed(score: torch.Tensor, sparsity: float, pattern: Pattern) -> torch.Tensor:
    """Which weights go."""
    if pattern == "2:4":
        if score.shape[1] % 4:
            raise RecipeError(f"sparsify: 2:4 needs widths in multiples of 4, and a layer has {score.shape[1]}")
        groups = score.view(len(score), -1, 4)
        smallest, scores = groups.topk(2, dim=-1, largest=False).indices, groups
    else:
        smallest, scores = score.topk(round(sparsity * score.shape[1]), dim=1, largest=False).indices, score
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, smallest, True).view_as(score)


@torch.no_grad()
def _input_sizes(parent: Parent, linears: Sequence[nn.Linear], found: Sequence[Batch]) -> list[torch.Tensor]:
    """Per linear, the root of the summed squares of each input channel over real tokens."""
    squares = [torch.zeros(linear.in_features) for linear in linears]
    mask = torch.empty(0)

    def note(position: int, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[:2] == mask.shape:  # DeBERTa also projects relative positions
            squares[position] += inputs[0][mask].square().sum(0)

    hooks = [linear.register_forward_pre_hook(partial(note, position)) for position, linear in enumerate(linears)]
    try:
        for batch in track(found, "Observe inputs"):
            mask = batch["attention_mask"].bool()
            parent.model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [square.sqrt() for square in squares]
