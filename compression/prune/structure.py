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
from compression.prune.regression import Moments, Refit, eliminate
from compression.prune.upwards import Seen, divergence, moments_of, prune_upwards, refit_to, see

CostTable = Callable[[Kind, int, int, Sequence[int]], dict[int, float]]

_PRICED_EVERY = 2  # of the held-out batches: enough for a first price
_ATTEMPTS = 40
_SPREAD = 0.5  # of the random weights, in their logarithms
_FFN_SHARES = (1.0, 0.75, 0.5, 0.33, 0.21, 0.125, 0.0625, 0.02)
_FFN_MULTIPLE = 32  # widths that the integer kernels fill without leftovers
_HEAD_SHARES = (1.0, 0.84, 0.67, 0.5, 0.34, 0.25, 0.17, 0.08)


@dataclasses.dataclass(frozen=True)
class Priced:
    """Per sublayer, by number of units: what it becomes, and how far that alone moves the predictions (KL)."""

    refits: list[dict[int, Refit]]
    divergences: list[dict[int, float]]


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
    seen = see(parent, texts)
    model = copy.deepcopy(parent.model)
    priced, tables = price(model, seen), cost_tables(model, cost)
    prune_to(model, seen, search_widths(model, seen, priced, tables, keep))
    return dataclasses.replace(parent, model=model)


def cost_tables(model: PreTrainedModel, cost: CostTable) -> list[dict[int, float]]:
    """Per sublayer, milliseconds by number of units; each shape is measured once."""
    parts = sublayers(model)
    tables = {
        shape: cost(shape[0], shape[1], shape[2], levels)
        for shape, levels in {_shape(part): _levels(part) for part in parts}.items()
    }
    return [tables[_shape(part)] for part in parts]


def price(model: PreTrainedModel, seen: Seen) -> Priced:
    """Prunes each sublayer of the parent alone to each width, and notes what that does."""
    priced = Priced([], [])
    for at, part in enumerate(track(sublayers(model), "Price heads and neurons")):
        priced.refits.append(_refits(model, at, seen))
        priced.divergences.append({})
        for width, option in priced.refits[at].items():
            with _replaced([part], [option]):
                priced.divergences[at][width] = divergence(model, seen.held_out[::_PRICED_EVERY], part.layer)
    return priced


def search_widths(
    model: PreTrainedModel, seen: Seen, priced: Priced, costs: Sequence[dict[int, float]], keep: float
) -> list[int]:
    """The widths within `keep` whose model, put together from the refits, stays nearest to the parent."""
    parts = sublayers(model)
    random = np.random.default_rng(0)
    best_weights, best_widths, least, tried = np.ones(len(parts)), [], math.inf, set()
    for attempt in track(range(_ATTEMPTS), "Search widths"):
        weights = best_weights * np.exp(random.normal(size=len(parts)) * _SPREAD * (attempt > 0))
        reweighted = [
            {width: weight * value for width, value in options.items()}
            for weight, options in zip(weights, priced.divergences, strict=True)
        ]
        widths = choose_widths(reweighted, costs, keep)
        if tuple(widths) in tried:
            continue
        tried.add(tuple(widths))
        with _replaced(parts, [options[width] for options, width in zip(priced.refits, widths, strict=True)]):
            moved = divergence(model, seen.held_out)
        if moved < least:
            best_weights, best_widths, least = weights, widths, moved
    return best_widths


def choose_widths(divergences: Sequence[dict[int, float]], costs: Sequence[dict[int, float]], keep: float) -> list[int]:
    """One width per sublayer: the smallest sum of divergences whose costs stay within `keep` of the full ones.

    At a price for time each sublayer decides for itself; the price is found by bisection.
    """
    allowed = keep * sum(table[max(table)] for table in costs)

    def at_price(price: float) -> list[int]:
        chosen = []
        for moved, cost in zip(divergences, costs, strict=True):
            totals = {width: moved[width] + price * cost[width] for width in moved}
            chosen.append(min(totals, key=totals.__getitem__))
        return chosen

    low, high = 1e-9, 1e6
    for _ in range(100):
        middle = (low * high) ** 0.5
        total = sum(cost[width] for cost, width in zip(costs, at_price(middle), strict=True))
        low, high = (middle, high) if total > allowed else (low, middle)
    return at_price(high)


def prune_to(model: PreTrainedModel, seen: Seen, widths: Sequence[int]) -> None:
    """Prunes the parent's copy in place, upwards, to one width per sublayer."""

    def choose(model: PreTrainedModel, at: int, moments: Moments) -> Sequence[int]:
        return eliminate(moments, sublayers(model)[at].unit, [widths[at]])[widths[at]]

    prune_upwards(model, seen, choose)


def _refits(model: PreTrainedModel, at: int, seen: Seen) -> dict[int, Refit]:
    """By number of units, what one sublayer of the parent becomes when it is pruned to it."""
    part = sublayers(model)[at]
    fit = moments_of(model, at, seen.fit, [one.hidden[part.layer] for one in seen.fit])
    held_out = moments_of(model, at, seen.held_out, [one.hidden[part.layer] for one in seen.held_out])
    return {
        level: refit_to(part, units, fit, held_out) for level, units in eliminate(fit, part.unit, _levels(part)).items()
    }


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
