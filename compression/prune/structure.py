"""Prunes attention heads and FFN neurons to a share of the encoder's time, without labels and without training.

1. Observe: the parent runs over calibration text. Per sublayer: moments of its units and of what it gives, each token
   weighted by how much it matters to the parent's predictions (Fisher information).
2. Order: units are eliminated one after another, the rest refitted by least squares each time; noted at a few widths.
3. Price: at each width, how far the parent's predictions move when only this sublayer is pruned (KL divergence, on
   held-out text), and what it costs in measured time. Of the combinations within the share, the one with the smallest
   sum is only a guess, since damage adds up across layers: many others, from randomly reweighted sums, are put together
   and measured, and the best is taken.
4. Prune, from the bottom: each sublayer once more eliminated and refitted, now on the inputs that the pruned model
   gives it, against the parent's own output. So each refit also repairs what those below it broke.

Fisher weights and refitting against the parent's output less the current residual follow Park et al., K-prune, ICLR
2024; elimination by groups and pricing by measured time follow Kurtic et al., ZipLM, NeurIPS 2023; the reweighted sums
are those of Frantar and Alistarh, SPDY, ICML 2022.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from compression.checkpoint import Parent
from compression.progress import track
from compression.prune.encoder import Kind, Sublayer, sublayers
from compression.prune.observe import Observation, batches, observe, run_layers, tapped
from compression.prune.regression import Moments, Refit, eliminate, refit

CostTable = Callable[[Kind, int, int, Sequence[int]], dict[int, float]]

_MAX_TOKENS = 18_000  # of calibration text held in memory: 12 layers of width 768 make 2 GB of it
_HELD_OUT_EVERY = 5
_PRICED_EVERY = 2  # of the held-out batches: enough for a first price
_ATTEMPTS = 40
_SPREAD = 0.5  # of the random weights, in their logarithms
_FFN_SHARES = (1.0, 0.75, 0.5, 0.33, 0.21, 0.125, 0.0625, 0.02)
_FFN_MULTIPLE = 32  # widths that the integer kernels fill without leftovers
_HEAD_SHARES = (1.0, 0.84, 0.67, 0.5, 0.34, 0.25, 0.17, 0.08)


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What the parent did on the texts that fit, and on those held out."""

    fit: list[Observation]
    held_out: list[Observation]


def prune_structure(parent: Parent, texts: Sequence[str], keep: float, cost: CostTable) -> Parent:
    """Prunes a copy of the parent.

    Args:
        texts: unlabelled, like those to be served.
        keep: share of the time of all sublayers that may stay.
        cost: time by number of units, given kind, hidden size, columns of a unit and numbers of units; the unit of
            time does not matter.

    Raises:
        CheckpointError: an architecture that cannot be pruned.
    """
    model = copy.deepcopy(parent.model)
    found = batches(parent, texts, _MAX_TOKENS)
    # They are sorted by length: taking every fifth gives both parts all lengths.
    held_out = found[_HELD_OUT_EVERY // 2 :: _HELD_OUT_EVERY] or found
    fit = [batch for at, batch in enumerate(found) if at % _HELD_OUT_EVERY != _HELD_OUT_EVERY // 2]
    seen = _Seen(observe(model, fit), observe(model, held_out))
    parts = sublayers(model)
    refits = [_refits(model, at, seen) for at in track(range(len(parts)), "Price heads and neurons")]
    tables = {
        shape: cost(shape[0], shape[1], shape[2], levels)
        for shape, levels in {_shape(part): _levels(part) for part in parts}.items()
    }
    _prune(model, _search_widths(model, refits, [tables[_shape(part)] for part in parts], keep, seen.held_out), seen)
    return dataclasses.replace(parent, model=model)


def _search_widths(
    model: PreTrainedModel,
    refits: Sequence[dict[int, Refit]],
    costs: Sequence[dict[int, float]],
    keep: float,
    observations: Sequence[Observation],
) -> list[int]:
    """The widths within `keep` whose model, put together from the refits, stays nearest to the parent."""
    parts = sublayers(model)
    divergences: list[dict[int, float]] = []
    for part, options in zip(parts, refits, strict=True):
        divergences.append({})
        for width, option in options.items():
            with _replaced([part], [option]):
                divergences[-1][width] = _divergence(model, observations[::_PRICED_EVERY], part.layer)
    random = np.random.default_rng(0)
    best_weights, best_widths, least, tried = np.ones(len(parts)), [], math.inf, set()
    for attempt in track(range(_ATTEMPTS), "Search widths"):
        weights = best_weights * np.exp(random.normal(size=len(parts)) * _SPREAD * (attempt > 0))
        reweighted = [
            {width: weight * value for width, value in divergence.items()}
            for weight, divergence in zip(weights, divergences, strict=True)
        ]
        widths = choose_widths(reweighted, costs, keep)
        if tuple(widths) in tried:
            continue
        tried.add(tuple(widths))
        with _replaced(parts, [options[width] for options, width in zip(refits, widths, strict=True)]):
            divergence = _divergence(model, observations, 0)
        if divergence < least:
            best_weights, best_widths, least = weights, widths, divergence
    return best_widths


def choose_widths(divergences: Sequence[dict[int, float]], costs: Sequence[dict[int, float]], keep: float) -> list[int]:
    """One width per sublayer: the smallest sum of divergences whose costs stay within `keep` of the full ones.

    At a price for time each sublayer decides for itself; the price is found by bisection.
    """
    allowed = keep * sum(table[max(table)] for table in costs)

    def at_price(price: float) -> list[int]:
        chosen = []
        for divergence, cost in zip(divergences, costs, strict=True):
            totals = {width: divergence[width] + price * cost[width] for width in divergence}
            chosen.append(min(totals, key=totals.__getitem__))
        return chosen

    low, high = 1e-9, 1e6
    for _ in range(100):
        middle = (low * high) ** 0.5
        total = sum(cost[width] for cost, width in zip(costs, at_price(middle), strict=True))
        low, high = (middle, high) if total > allowed else (low, middle)
    return at_price(high)


def _refits(model: PreTrainedModel, at: int, seen: _Seen) -> dict[int, Refit]:
    """By number of units, what one sublayer of the parent becomes when it is pruned to it."""
    part = sublayers(model)[at]
    fit = _moments(model, at, seen.fit, [one.hidden[part.layer] for one in seen.fit])
    held_out = _moments(model, at, seen.held_out, [one.hidden[part.layer] for one in seen.held_out])
    return {
        level: _refit(part, units, fit, held_out) for level, units in eliminate(fit, part.unit, _levels(part)).items()
    }


def _prune(model: PreTrainedModel, widths: Sequence[int], seen: _Seen) -> None:
    """Prunes in place, from the bottom up."""
    hidden = [[one.hidden[0] for one in group] for group in (seen.fit, seen.held_out)]
    for at, width in enumerate(track(widths, "Prune and refit")):
        part = sublayers(model)[at]
        fit, held_out = (
            _moments(model, at, group, inputs) for group, inputs in zip((seen.fit, seen.held_out), hidden, strict=True)
        )
        new = _refit(part, eliminate(fit, part.unit, [width])[width], fit, held_out)
        part.keep(new.units)
        part.output.weight.data, part.output.bias.data = new.weight, new.bias
        if part.kind == "ffn" and at + 1 < len(widths):
            hidden = [
                [run_layers(model, one.batch, its, part.layer, 1)[0] for one, its in zip(group, inputs, strict=True)]
                for group, inputs in zip((seen.fit, seen.held_out), hidden, strict=True)
            ]


def _moments(
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


def _refit(part: Sublayer, units: Sequence[int], fit: Moments, held_out: Moments) -> Refit:
    return refit(part.output.weight.detach(), part.output.bias.detach(), units, part.unit, fit, held_out)


@contextmanager
def _replaced(parts: Sequence[Sublayer], refits: Sequence[Refit]) -> Iterator[None]:
    """Puts refits in place, with the removed units at zero: the same as without them."""
    before = [(part.output.weight.data, part.output.bias.data) for part in parts]
    for part, new in zip(parts, refits, strict=True):
        weight = torch.zeros_like(part.output.weight.data)
        weight[:, part.columns(new.units)] = new.weight
        part.output.weight.data, part.output.bias.data = weight, new.bias
    try:
        yield
    finally:
        for part, (weight, bias) in zip(parts, before, strict=True):
            part.output.weight.data, part.output.bias.data = weight, bias


def _divergence(model: PreTrainedModel, observations: Sequence[Observation], first: int) -> float:
    """KL(parent || model), mean over texts; the layers below `first` are the parent's."""
    total, texts = 0.0, 0
    for one in observations:
        logits = run_layers(model, one.batch, one.hidden[first], first)[1].log_softmax(-1)
        total += float((one.log_probabilities.exp() * (one.log_probabilities - logits)).sum())
        texts += len(logits)
    return total / texts


def _levels(part: Sublayer) -> tuple[int, ...]:
    """Numbers of units to choose from, the present one among them; never none."""
    if part.kind == "attention":
        levels = {max(1, round(part.units * share)) for share in _HEAD_SHARES}
    else:
        steps = (round(part.units * share / _FFN_MULTIPLE) * _FFN_MULTIPLE for share in _FFN_SHARES)
        levels = {min(part.units, max(_FFN_MULTIPLE, step)) for step in steps}
    return tuple(sorted(levels | {part.units}))


def _shape(part: Sublayer) -> tuple[Kind, int, int, int]:
    return part.kind, part.output.out_features, part.unit, part.units
