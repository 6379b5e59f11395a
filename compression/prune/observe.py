"""Runs a classifier, or a stretch of its layers, over batches, and notes what its sublayers read and give."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

from compression.bundle import Input
from compression.parent.batches import Batch, by_length, collate
from compression.parent.batches import rows as rows_of
from compression.parent.checkpoint import Parent
from compression.parent.predictions import are_apart, are_numbers, outcomes
from compression.progress import track
from compression.prune.encoder import Sublayer, encoder_layers, hidden_of, sublayers

_DRAWS = 2  # of random directions, where there are more than two labels
_UNIFORM = 0.2  # share of a token's weight that does not depend on the predictions


@dataclass
class Observation:
    """One batch as the parent sees it.

    Attributes:
        hidden: per layer, its input: (texts, tokens, width).
        outputs: per sublayer, residual and output together.
        weights: per sublayer, how much each token's output matters to the predictions: (texts, tokens); padding is 0.
        outcomes: see `compression.parent.predictions`.
    """

    batch: Batch
    hidden: list[torch.Tensor]
    outputs: list[torch.Tensor]
    weights: list[torch.Tensor]
    outcomes: torch.Tensor


@dataclass
class Tap:
    """What went through one sublayer in the last run: its units, its output, and its output with the residual."""

    units: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    output: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    summed: torch.Tensor = field(default_factory=lambda: torch.empty(0))


def batches(parent: Parent, texts: Sequence[Input], max_tokens: int) -> list[Batch]:
    """The texts in batches of similar length; stops when `max_tokens` are reached, so that memory stays bounded."""
    rows = rows_of(parent, texts)
    total = list(itertools.accumulate(len(row) for row in rows))
    rows = rows[: max(1, bisect.bisect_right(total, max_tokens))]
    return [collate(parent, [rows[position] for position in group]) for group in by_length(rows)]


def observe(model: PreTrainedModel, found: Sequence[Batch]) -> list[Observation]:
    """Runs each batch forwards and backwards.

    A token's weight is the squared gradient of the model's own prediction with respect to the output there: the Fisher
    information of `fisher_directions`. No label is needed. Weights have a mean of 1 over real tokens.
    """
    generator = torch.Generator().manual_seed(0)
    observations = [_observe(model, batch, generator) for batch in track(found, "Observe the parent")]
    tokens = sum(float(seen.batch["attention_mask"].sum()) for seen in observations)
    for position in range(len(observations[0].weights)):
        total = sum(float(seen.weights[position].sum()) for seen in observations)
        for seen in observations:
            share = seen.weights[position] * (tokens / max(total, 1e-30))
            mask = seen.batch["attention_mask"].float()
            seen.weights[position] = (_UNIFORM + (1 - _UNIFORM) * share) * mask
    return observations


def _observe(model: PreTrainedModel, batch: Batch, generator: torch.Generator) -> Observation:
    hidden: list[torch.Tensor] = []
    # Where no weight needs a gradient (a merged adapter), there would be nothing to differentiate: begin here.
    embeddings = model.get_input_embeddings()
    hooks = [embeddings.register_forward_hook(lambda _, __, output: output.detach().requires_grad_(True))]
    hooks += [
        layer.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].detach()))
        for layer in encoder_layers(model)
    ]
    try:
        with tapped(sublayers(model)) as taps, torch.enable_grad():
            logits = model(**batch).logits
            weights = _weights(model, logits, [tap.output for tap in taps], batch["attention_mask"], generator)
    finally:
        for hook in hooks:
            hook.remove()
    return Observation(batch, hidden, [tap.summed.detach() for tap in taps], weights, outcomes(model, logits.detach()))


@contextmanager
def tapped(parts: Sequence[Sublayer]) -> Iterator[list[Tap]]:
    """Fills one Tap per sublayer whenever the model runs."""
    taps = [Tap() for _ in parts]
    hooks = []
    for part, tap in zip(parts, taps, strict=True):

        def at_output(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, tap: Tap = tap) -> None:
            tap.units, tap.output = inputs[0], output

        def at_sum(summed: torch.Tensor, tap: Tap = tap) -> None:
            tap.summed = summed

        hooks += [part.output.register_forward_hook(at_output), part.on_sum(at_sum)]
    try:
        yield taps
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def run_layers(
    model: PreTrainedModel, batch: Batch, hidden: torch.Tensor, first: int, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs only the layers from `first` on, with `hidden` as their input.

    Returns:
        the last of these layers' output, and the logits that the head makes of it.
    """
    stack = encoder_layers(model)
    modules = dict(stack._modules)
    part = list(stack)[first : None if count is None else first + count]
    outputs: list[torch.Tensor] = []

    def keep(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        outputs.append(hidden_of(output))

    hooks = [
        part[0].register_forward_pre_hook(lambda _, inputs: (hidden, *inputs[1:])),
        part[-1].register_forward_hook(keep),
    ]
    stack._modules.clear()
    stack._modules.update({str(index): layer for index, layer in enumerate(part)})
    try:
        logits = model(**batch).logits
    finally:
        stack._modules.clear()
        stack._modules.update(modules)
        for hook in hooks:
            hook.remove()
    return outputs[-1], logits


def fisher_directions(model: PreTrainedModel, logits: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Directions of the logits, each (texts, labels): squared derivatives along them give the Fisher information.

    It is that of the predictive distribution p: exact for two labels, and for more estimated without bias from random
    directions of covariance diag(p) - p p'; diag(p (1 - p)) where each label is there or not by itself, and 1 of a
    number.
    """
    if are_numbers(model):
        return [torch.ones_like(logits)]
    if are_apart(model):
        apart = logits.detach().sigmoid()
        spread = (apart * (1 - apart)).sqrt()
        return [spread * torch.randn(spread.shape, generator=generator) for _ in range(_DRAWS)]
    probabilities = logits.detach().softmax(-1)
    root = probabilities.sqrt()
    if probabilities.shape[1] == 2:
        return [root.prod(-1, keepdim=True) * torch.tensor([1.0, -1.0])]
    noises = [root * torch.randn(root.shape, generator=generator) for _ in range(_DRAWS)]
    return [noise - probabilities * (root * noise).sum(-1, keepdim=True) for noise in noises]


def _weights(
    model: PreTrainedModel,
    logits: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    mask: torch.Tensor,
    generator: torch.Generator,
) -> list[torch.Tensor]:
    total = [torch.zeros(output.shape[:2]) for output in outputs]
    for direction in fisher_directions(model, logits, generator):
        gradients = torch.autograd.grad((direction * logits).sum(), list(outputs), retain_graph=True)
        total = [sums + gradient.square().sum(-1) for sums, gradient in zip(total, gradients, strict=True)]
    return [sums * mask for sums in total]
