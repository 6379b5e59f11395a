"""What K-prune knows of a unit: how the predictions depend on it, and what it adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import PreTrainedModel

from compression.parent.batches import Batch
from compression.prune.encoder import Sublayer, sublayers
from compression.prune.masks import mask_gradients
from compression.prune.observe import tapped

SLACK = 1e-9  # of rounding, when costs are summed in another order


@dataclass(frozen=True)
class Knowledge:
    """Of one sublayer.

    Attributes:
        gradients: as `mask_gradients` gives them.
        representation: squared size of what each unit adds to the output, mean over tokens, (units,).
    """

    gradients: torch.Tensor
    representation: torch.Tensor

    @property
    def fisher(self) -> torch.Tensor:
        """Fisher information of each unit's mask, mean over texts."""
        return self.gradients.square().mean(0)


def know(model: PreTrainedModel, batches: Sequence[Batch], first: int = 0) -> list[Knowledge]:
    """Measures the units of the sublayers from `first` on, forwards and backwards, without labels."""
    parts = sublayers(model)[first:]
    sizes = [torch.zeros(part.units) for part in parts]
    tokens = 0
    for batch in batches:
        real = batch["attention_mask"] > 0
        tokens += int(real.sum())
        with tapped(parts) as taps, torch.inference_mode():
            model(**batch)
            for at, (part, tap) in enumerate(zip(parts, taps, strict=True)):
                sizes[at] += _squared_output(part, tap.units[real])
    gradients = mask_gradients(model, batches, first)
    return [Knowledge(rows, size / tokens) for rows, size in zip(gradients, sizes, strict=True)]


def _squared_output(part: Sublayer, units: torch.Tensor) -> torch.Tensor:
    """|W u|^2 of each unit's columns, summed over tokens."""
    weight = part.output.weight.detach()
    if part.unit == 1:
        return units.square().sum(0) * weight.square().sum(0)
    bounds = pairwise(range(0, part.output.in_features + 1, part.unit))
    return torch.stack([(units[:, low:high] @ weight[:, low:high].T).square().sum() for low, high in bounds])
