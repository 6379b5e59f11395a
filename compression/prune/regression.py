"""Linear algebra of pruning: which units a linear layer can do without, and what the rest has to become.

A layer reads units X (tokens, columns) and has to give Y (tokens, outputs). All that is needed of both are their second
moments, with a weight for each token, so that thousands of texts cost no memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_ELIMINATION_RIDGE = 1e-3  # of the mean variance: keeps the inverse finite where units repeat each other
_REFIT_RIDGES = (1e-3, 1e-2, 1e-1)
_BLOCK = 32  # neurons removed together; their errors barely interact, and one at a time would take minutes


@dataclass
class Moments:
    """Sums over tokens, each weighted by w.

    Attributes:
        xx: w x x', (columns, columns).
        xy: w x y', (columns, outputs).
        yy: w |y|^2.
        x: w x, (columns,).
        y: w y, (outputs,).
        weight: w.
    """

    xx: torch.Tensor
    xy: torch.Tensor
    yy: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def zeros(cls, columns: int, outputs: int) -> "Moments":
        """Nothing seen yet."""
        shapes: list[tuple[int, ...]] = [(columns, columns), (columns, outputs), (), (columns,), (outputs,), ()]
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, units: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> None:
        """Counts a batch: units (tokens, columns), target (tokens, outputs), weight (tokens,)."""
        weighted = units * weight[:, None]
        self.xx += weighted.T @ units
        self.xy += weighted.T @ target
        self.yy += (weight[:, None] * target.square()).sum()
        self.x += weighted.sum(0)
        self.y += (weight[:, None] * target).sum(0)
        self.weight += weight.sum()

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Covariances of the units, and of units with targets."""
        return (
            self.xx - torch.outer(self.x, self.x) / self.weight,
            self.xy - torch.outer(self.x, self.y) / self.weight,
        )


@dataclass(frozen=True)
class Refit:
    """New weights of a layer that reads only `units`.

    Attributes:
        weight: (outputs, kept columns).
        bias: (outputs,).
        error: squared error on held-out text, as a fraction of the target's squared size.
    """

    units: tuple[int, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    error: float


def columns_of(units: torch.Tensor, unit: int) -> torch.Tensor:
    """The columns that make these units, in order."""
    return (units[:, None] * unit + torch.arange(unit)).flatten()


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


def refit(
    weight: torch.Tensor, bias: torch.Tensor, units: Sequence[int], unit: int, fit: Moments, held_out: Moments
) -> Refit:
    """Least squares for a layer that keeps only some units, drawn towards its old weights.

    The strength of the ridge is chosen on held-out text; the old weights stay when none is better.

    Args:
        weight: the old ones, (outputs, columns).
        bias: (outputs,).
    """
    columns = columns_of(torch.tensor(units), unit)
    old = weight.detach().double().T[columns]
    covariance, cross = fit.centred()
    covariance, cross = covariance[columns][:, columns], cross[columns]
    x, y = fit.x[columns] / fit.weight, fit.y / fit.weight
    best = (_error(old, bias.double(), columns, held_out), old, bias.detach().double())
    size = covariance.diagonal().mean().clamp_min(1e-12)
    for ridge in _REFIT_RIDGES:
        penalised = covariance + ridge * size * torch.eye(len(columns), dtype=torch.float64)
        new = old + torch.linalg.solve(penalised, cross - covariance @ old)
        intercept = y - x @ new
        best = min(best, (_error(new, intercept, columns, held_out), new, intercept), key=lambda found: found[0])
    error, new, intercept = best
    return Refit(tuple(units), new.T.float().contiguous(), intercept.float(), error)


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


def _error(weight: torch.Tensor, bias: torch.Tensor, columns: torch.Tensor, moments: Moments) -> float:
    xx, xy, x = moments.xx[columns][:, columns], moments.xy[columns], moments.x[columns]
    squared = (
        moments.yy
        + (weight * (xx @ weight)).sum()
        + moments.weight * bias.square().sum()
        - 2 * (weight * xy).sum()
        - 2 * (bias * moments.y).sum()
        + 2 * (bias * (x @ weight)).sum()
    )
    return float(squared / moments.yy.clamp_min(1e-12))
