"""Sets weights of the encoder's linear layers to zero: for stored size (unstructured), or for GPUs (2:4).

A weight's score is its magnitude times the size of the input that it meets, compared within its output row (Wanda, Sun
et al. 2024): no training, one look at the text.
"""

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from compression.batches import Batch
from compression.checkpoint import Parent
from compression.errors import RecipeError
from compression.progress import track
from compression.prune.encoder import sublayers
from compression.prune.observe import batches

_MAX_TOKENS = 8_000


def sparsify(parent: Parent, texts: Sequence[str], sparsity: float, pattern: Literal["unstructured", "2:4"]) -> Parent:
    """Sparsifies a copy of the parent.

    Args:
        texts: unlabelled; the first few hundred are looked at.
        sparsity: fraction of zeros in each row; 2:4 keeps the two best of every four, whatever this says.

    Raises:
        CheckpointError: an architecture whose layers are not known.
        RecipeError: 2:4 for a layer whose width is no multiple of four.
    """
    model = copy.deepcopy(parent.model)
    result = dataclasses.replace(parent, model=model)
    linears = [linear for part in sublayers(model) for linear in (*part.inputs, part.output)]
    sizes = _input_sizes(result, linears, batches(parent, texts, _MAX_TOKENS))
    for linear, size in zip(linears, sizes, strict=True):
        score = linear.weight.detach().abs() * size
        if pattern == "2:4":
            if linear.in_features % 4:
                raise RecipeError(f"sparsify: 2:4 needs widths in multiples of 4, and a layer has {linear.in_features}")
            groups = score.view(len(score), -1, 4)
            kept = torch.zeros_like(groups).scatter_(-1, groups.topk(2, dim=-1).indices, 1.0).view_as(score)
        else:
            smallest = score.argsort(dim=1)[:, : round(sparsity * score.shape[1])]
            kept = torch.ones_like(score).scatter_(1, smallest, 0.0)
        linear.weight.data *= kept
    return result


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
