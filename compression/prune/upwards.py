"""Prunes from the bottom up: each sublayer on the inputs that the pruned layers below give it.

Its output projection is refitted against the parent's own output less the current residual, so that each refit also
repairs what those below it broke (Park et al., K-prune, ICLR 2024). Which units stay is for the caller to say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from compression.bundle import Input
from compression.parent import predictions
from compression.parent.checkpoint import Parent
from compression.progress import track
from compression.prune.encoder import Sublayer, sublayers
from compression.prune.observe import Observation, batches, observe, run_layers, tapped
from compression.prune.regression import Moments, Refit, refit

_MAX_TOKENS = 18_000  # of calibration text held in memory: 12 layers of width 768 make 2 GB of it
_HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Seen:
    """What the parent did on the texts that fit, and on those held out."""

    fit: list[Observation]
    held_out: list[Observation]


def see(parent: Parent, texts: Sequence[Input]) -> Seen:
    """Runs the parent over unlabelled texts; a fifth of the batches is held out."""
    found = batches(parent, texts, _MAX_TOKENS)
    # They are sorted by length: taking every fifth gives both parts all lengths.
    held_out = found[_HELD_OUT_EVERY // 2 :: _HELD_OUT_EVERY] or found
    fit = [batch for at, batch in enumerate(found) if at % _HELD_OUT_EVERY != _HELD_OUT_EVERY // 2]
    return Seen(observe(parent.model, fit), observe(parent.model, held_out))


def prune_upwards(
    model: PreTrainedModel, seen: Seen, choose: Callable[[PreTrainedModel, int, Moments], Sequence[int]]
) -> None:
    """Prunes in place.

    Args:
        model: a copy of the parent that was seen.
        choose: the units of a sublayer that stay, in order and at least one, given the model as it is by then, the
            sublayer's position and its moments.
    """
    hidden = [[one.hidden[0] for one in group] for group in (seen.fit, seen.held_out)]
    count = len(sublayers(model))
    for at in track(range(count), "Prune and refit"):
        fit, held_out = (
            moments_of(model, at, group, inputs)
            for group, inputs in zip((seen.fit, seen.held_out), hidden, strict=True)
        )
        part = sublayers(model)[at]
        new = refit_to(part, choose(model, at, fit), fit, held_out)
        part.keep(new.units, (new.weight, new.bias))
        if part.kind == "ffn" and at + 1 < count:
            hidden = [
                [run_layers(model, one.batch, its, part.layer, 1)[0] for one, its in zip(group, inputs, strict=True)]
                for group, inputs in zip((seen.fit, seen.held_out), hidden, strict=True)
            ]


def moments_of(
    model: PreTrainedModel, at: int, observations: Sequence[Observation], hidden: Sequence[torch.Tensor]
) -> Moments:
    """Of one sublayer's units with these inputs to its layer, and of what it lacks of the parent's output."""
    part = sublayers(model)[at]
    moments = Moments.zeros(part.output.in_features, part.output.out_features)
    with tapped([part]) as (tap,):
        for one, inputs in zip(observations, hidden, strict=True):
            run_layers(model, one.batch, inputs, part.layer, 1)
            residual = tap.summed - tap.output
            real = one.weights[at] > 0
            moments.add(tap.units[real], (one.outputs[at] - residual)[real], one.weights[at][real])
    return moments


def refit_to(part: Sublayer, units: Sequence[int], fit: Moments, held_out: Moments) -> Refit:
    """What a sublayer's output projection becomes when only these units stay."""
    weight = part.output.weight.detach()
    bias = weight.new_zeros(len(weight)) if part.output.bias is None else part.output.bias.detach()
    return refit(weight, bias, units, part.unit, fit, held_out)


def divergence(model: PreTrainedModel, observations: Sequence[Observation], first: int = 0) -> float:
    """KL(parent || model), mean over texts; the layers below `first` are the parent's."""
    total, texts = 0.0, 0
    for one in observations:
        logits = run_layers(model, one.batch, one.hidden[first], first)[1]
        total += float(predictions.divergence(model, one.outcomes, predictions.outcomes(model, logits)).sum())
        texts += len(logits)
    return total / texts
