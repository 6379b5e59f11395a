"""Linear algebra of pruning: what the output weights have to become when units are gone.

A layer reads units X (tokens, columns) and has to give Y (tokens, outputs). All that is needed of both are their second
moments, with a weight for each token, so that thousands of texts cost no memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_REFIT_RIDGES = (1e-3, 1e-2, 1e-1)


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
