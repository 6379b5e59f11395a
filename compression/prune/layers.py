"""Removes whole layers, each time the one whose absence moves the parent's predictions least; no labels are used."""

import copy
import dataclasses
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from compression.bundle import Input
from compression.errors import RecipeError
from compression.parent.batches import Batch
from compression.parent.checkpoint import Parent
from compression.parent.predictions import divergence, outcomes
from compression.progress import track
from compression.prune.encoder import encoder_layers, remove_layer, require_layers_alike
from compression.prune.observe import batches

_MAX_TOKENS = 8_000


def drop_layers(parent: Parent, texts: Sequence[Input], count: int) -> Parent:
    """Prunes a copy of the parent.

    Args:
        texts: unlabelled, like those to be served; the first few hundred are looked at.

    Raises:
        CheckpointError: an architecture that cannot be pruned, or not by layers.
        RecipeError: it has no more layers than are to go.
    """
    require_layers_alike(parent.model)
    model = copy.deepcopy(parent.model)
    layers = len(encoder_layers(model))
    if count >= layers:
        raise RecipeError(f"drop_layers: count is {count}, but {parent.name} has {layers} layers; leave at least one")
    found = batches(parent, texts, _MAX_TOKENS)
    expected = [_outcomes(model, batch) for batch in found]
    for _ in track(range(count), "Drop layers"):
        divergences = [_without(model, index, found, expected) for index in range(len(encoder_layers(model)))]
        remove_layer(model, divergences.index(min(divergences)))
    return dataclasses.replace(parent, model=model)


def _without(model: PreTrainedModel, index: int, found: Sequence[Batch], expected: Sequence[torch.Tensor]) -> float:
    """KL(parent || model without this layer), summed over the texts."""
    stack = encoder_layers(model)
    layer = stack[index]
    del stack[index]
    total = 0.0
    for batch, theirs in zip(found, expected, strict=True):
        total += float(divergence(model, theirs, _outcomes(model, batch)).sum())
    stack.insert(index, layer)
    return total


@torch.inference_mode()
def _outcomes(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return outcomes(model, model(**batch).logits)
