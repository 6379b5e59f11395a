"""Elimination: units go one after another, the rest refitted exactly; widths by divergence per time.

1. Order: units are eliminated, the rest refitted by least squares each time (optimal brain surgeon, in groups as in
   Kurtic et al., ZipLM, NeurIPS 2023); noted at a few widths.
2. Price: at each width, how far the parent's predictions move when only this sublayer is pruned (KL divergence, on
   held-out text). Of the combinations within the share, the one with the smallest sum is only a guess, since damage
   adds up across layers: many others, from randomly reweighted sums (Frantar and Alistarh, SPDY, ICML 2022), are put
   together and measured, and the best is taken.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from compression.progress import track
from compression.prune.encoder import Sublayer, sublayers
from compression.prune.regression import Moments, Refit, columns_of
from compression.prune.structure import CostTable
from compression.prune.upwards import Seen, divergence, moments_of, prune_upwards, refit_to

_ELIMINATION_RIDGE = 1e-3  # of the mean variance: keeps the inverse finite where units repeat each other
_BLOCK = 32  # neurons removed together; their errors barely interact, and one at a time would take minutes
_PRICED_EVERY = 2  # of the held-out batches: enough for a first price
_ATTEMPTS = 40
_SPREAD = 0.5  # of the random weights, in their logarithms
_FFN_SHARES = (1.0, 0.75, 0.5, 0.33, 0.21, 0.125, 0.0625, 0.02)
_FFN_MULTIPLE = 32
_HEAD_SHARES = (1.0, 0.84, 0.67, 0.5, 0.34, 0.25, 0.17, 0.08)


@dataclasses.dataclass(frozen=True)
class Priced:
    """Per sublayer, by number of units: what it becomes, and how far that alone moves the predictions (KL)."""

    refits: list[dict[int, Refit]]
    divergences: list[dict[int, float]]


def cost_tables(model: PreTrainedModel, cost: CostTable) -> list[dict[int, float]]:
    """Per sublayer, milliseconds by number of units; each shape is measured once."""
    parts = sublayers(model)
    tables = {
        (shape, units): cost(shape, levels)
        for (shape, units), levels in {(part.shape, part.units): _levels(part) for part in parts}.items()
    }
    return [tables[part.shape, part.units] for part in parts]


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


def eliminate(moments: Moments, unit: int, levels: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Removes units one after another, each time those whose loss the others can make up for best.

    The rest is refitted exactly after each removal (optimal brain surgeon, Hassibi and Stork 1993; for groups of
    columns, Kurtic et al., ZipLM, 2023).

    Args:
        unit: columns that make one unit.
        levels: numbers of units at which to note what is left.

    Returns:
        by level, the units that are left, in order.
    """
    covariance, cross = moments.centred()
    columns = len(covariance)
    ridge = _ELIMINATION_RIDGE * covariance.diagonal().mean().clamp_min(1e-12)
    inverse64 = torch.linalg.inv(covariance + ridge * torch.eye(columns, dtype=torch.float64))
    weight, inverse = (inverse64 @ cross).float(), inverse64.float()
    alive = torch.arange(columns // unit)
    kept = {len(alive): tuple(alive.tolist())} if len(alive) in levels else {}
    for level in sorted((level for level in levels if level < len(alive)), reverse=True):
        while len(alive) > level:
            count = min(_BLOCK, len(alive) - level) if unit == 1 else 1
            losses = _losses(weight, inverse, alive, unit)
            removed = alive[losses.argsort()[:count]]
            alive = alive[~torch.isin(alive, removed)]
            _remove(weight, inverse, columns_of(removed, unit))
        kept[level] = tuple(alive.tolist())
    return kept


def _losses(weight: torch.Tensor, inverse: torch.Tensor, alive: torch.Tensor, unit: int) -> torch.Tensor:
    """By how much the squared error grows without each of the units."""
    if unit == 1:
        return weight[alive].square().sum(1) / inverse.diagonal()[alive]
    losses = []
    for one in alive:
        columns = columns_of(one[None], unit)
        losses.append((weight[columns] * torch.linalg.solve(inverse[columns][:, columns], weight[columns])).sum())
    return torch.stack(losses)


def _remove(weight: torch.Tensor, inverse: torch.Tensor, columns: torch.Tensor) -> None:
    """Takes columns out of the solution, in place; what is left is again the exact solution without them."""
    factor = inverse[:, columns].clone()
    solved = torch.linalg.solve(factor[columns], torch.cat([weight[columns], inverse[columns]], dim=1))
    weight -= factor @ solved[:, : weight.shape[1]]
    inverse -= factor @ solved[:, weight.shape[1] :]
    weight[columns] = 0
    inverse[columns] = 0
    inverse[:, columns] = 0
