"""What the compared methods know of a unit: how the predictions depend on it, what it adds, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import PreTrainedModel

from compression.batches import Batch
from compression.prune.encoder import Sublayer, sublayers
from compression.prune.observe import fisher_directions, tapped

SLACK_MS = 1e-9  # of rounding, when costs are summed in another order


@dataclass(frozen=True)
class Knowledge:
    """Of one sublayer.

    Attributes:
        gradients: derivatives of the predictions with respect to a mask on each unit, (texts x directions, units);
            the sum of their squares is the diagonal of the Fisher information, G'G its block.
        representation: squared size of what each unit adds to the output, mean over tokens, (units,).
    """

    gradients: torch.Tensor
    representation: torch.Tensor

    @property
    def fisher(self) -> torch.Tensor:
        """Fisher information of each unit's mask, mean over texts."""
        return self.gradients.square().mean(0)


@dataclass(frozen=True)
class Line:
    """Milliseconds of a sublayer: a part that stays, and one for each unit."""

    fixed: float
    per_unit: float

    @classmethod
    def through(cls, table: dict[int, float]) -> "Line":
        """The line through the ends of a cost table, which is straight."""
        least, most = min(table), max(table)
        slope = (table[most] - table[least]) / (most - least)
        return cls(table[most] - slope * most, slope)

    def at(self, units: int) -> float:
        """Milliseconds at this width."""
        return self.fixed + self.per_unit * units


def know(model: PreTrainedModel, batches: Sequence[Batch], first: int = 0) -> list[Knowledge]:
    """Measures the units of the sublayers from `first` on, forwards and backwards, without labels."""
    generator = torch.Generator().manual_seed(0)
    parts = sublayers(model)[first:]
    gradients: list[list[torch.Tensor]] = [[] for _ in parts]
    sizes = [torch.zeros(part.units) for part in parts]
    tokens = 0
    # No weight of a merged adapter needs a gradient: begin at the embedding.
    hook = model.get_input_embeddings().register_forward_hook(lambda _, __, out: out.detach().requires_grad_(True))
    try:
        for batch in batches:
            real = batch["attention_mask"] > 0
            tokens += int(real.sum())
            with tapped(parts) as taps, torch.enable_grad():
                logits = model(**batch).logits
                for direction in fisher_directions(logits, generator):
                    found = torch.autograd.grad(
                        (direction * logits).sum(), [tap.units for tap in taps], retain_graph=True
                    )
                    for rows, part, tap, gradient in zip(gradients, parts, taps, found, strict=True):
                        by_column = (gradient * tap.units.detach()).sum(1)  # (texts, columns)
                        rows.append(by_column.view(-1, part.units, part.unit).sum(-1))
            for at, (part, tap) in enumerate(zip(parts, taps, strict=True)):
                sizes[at] += _squared_output(part, tap.units.detach()[real])
    finally:
        hook.remove()
    return [Knowledge(torch.cat(rows), size / tokens) for rows, size in zip(gradients, sizes, strict=True)]


def _squared_output(part: Sublayer, units: torch.Tensor) -> torch.Tensor:
    """|W u|^2 of each unit's columns, summed over tokens."""
    weight = part.output.weight.detach()
    if part.unit == 1:
        return units.square().sum(0) * weight.square().sum(0)
    bounds = pairwise(range(0, part.output.in_features + 1, part.unit))
    return torch.stack([(units[:, low:high] @ weight[:, low:high].T).square().sum() for low, high in bounds])
