"""Which heads and neurons stay: mask search by Fisher information, and rearrangement.

Kwon et al., A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022, without labels: the Fisher
information is that of the parent's own predictions. A mask of 1 stands on each unit; how the predictions depend on it
says what is lost when it becomes 0. No sublayer loses its last group of units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from compression.parent.batches import Batch
from compression.prune.encoder import Kind, sublayers
from compression.prune.observe import fisher_directions, tapped

_SLACK = 1e-9  # of rounding, when costs are summed in another order


@dataclass(frozen=True)
class Line:
    """Cost of a sublayer in time: a part that stays, and one for each unit."""

    fixed: float
    per_unit: float

    @classmethod
    def through(cls, table: dict[int, float]) -> "Line":
        """The line through the ends of a cost table, which is straight."""
        least, most = min(table), max(table)
        slope = (table[most] - table[least]) / (most - least)
        return cls(table[most] - slope * most, slope)

    def at(self, units: int) -> float:
        """Cost at this width."""
        return self.fixed + self.per_unit * units


@dataclass(frozen=True)
class _Group:
    """Units of one sublayer that stay or go together."""

    at: int
    units: tuple[int, ...]
    information: float
    cost: float


def mask_gradients(model: PreTrainedModel, batches: Sequence[Batch], first: int = 0) -> list[torch.Tensor]:
    """How the predictions depend on the mask of each unit, for the sublayers from `first` on.

    Returns:
        (texts x directions, units) each; the sum of squares is the diagonal of the Fisher information, G'G its block.
    """
    generator = torch.Generator().manual_seed(0)
    parts = sublayers(model)[first:]
    gradients: list[list[torch.Tensor]] = [[] for _ in parts]
    # No weight of a merged adapter needs a gradient: begin at the embedding.
    hook = model.get_input_embeddings().register_forward_hook(lambda _, __, out: out.detach().requires_grad_(True))
    try:
        for batch in batches:
            with tapped(parts) as taps, torch.enable_grad():
                logits = model(**batch).logits
                for direction in fisher_directions(model, logits, generator):
                    found = torch.autograd.grad(
                        (direction * logits).sum(), [tap.units for tap in taps], retain_graph=True
                    )
                    for rows, part, tap, gradient in zip(gradients, parts, taps, found, strict=True):
                        by_column = (gradient * tap.units.detach()).sum(1)  # (texts, columns)
                        rows.append(by_column.view(-1, part.units, part.unit).sum(-1))
    finally:
        hook.remove()
    return [torch.cat(rows) for rows in gradients]


def search_masks(
    gradients: Sequence[torch.Tensor], lines: Sequence[Line], kinds: Sequence[Kind], keep: float, multiple: int = 1
) -> list[list[int]]:
    """The units that stay, per sublayer, by the paper's algorithm 1: a number of heads, and neurons for the rest.

    Args:
        gradients: of the parent, per sublayer.
        lines: what each sublayer costs.
        keep: share of the cost of all sublayers that may stay.
        multiple: neurons stay and go in groups of so many that matter alike.
    """
    full = sum(line.at(one.shape[1]) for line, one in zip(lines, gradients, strict=True))
    left = keep * full - sum(line.fixed for line in lines)
    kept: list[list[int]] = []
    ranked: dict[Kind, list[_Group]] = {"attention": [], "ffn": []}
    for at, (kind, line, one) in enumerate(zip(kinds, lines, gradients, strict=True)):
        information = one.square().mean(0)
        best, *others = torch.split(information.argsort(descending=True), multiple if kind == "ffn" else 1)
        kept.append(best.tolist())  # stays in any case
        left -= line.per_unit * len(best)
        ranked[kind] += [
            _Group(at, tuple(units.tolist()), float(information[units].sum()), line.per_unit * len(units))
            for units in others
        ]
    for groups in ranked.values():
        groups.sort(key=lambda group: group.information, reverse=True)
    most, chosen = -1.0, list[_Group]()
    for heads in range(len(ranked["attention"]) + 1):
        candidate = ranked["attention"][:heads]
        rest = left + _SLACK - sum(group.cost for group in candidate)
        if rest < 0:
            break
        for group in ranked["ffn"]:
            rest -= group.cost
            if rest < 0:
                break
            candidate.append(group)
        total = sum(group.information for group in candidate)
        if total > most:
            most, chosen = total, candidate
    for group in chosen:
        kept[group.at] += group.units
    return [sorted(units) for units in kept]


def rearrange(gradients: torch.Tensor, kept: Sequence[int]) -> list[int]:
    """As many units as were kept, exchanged greedily.

    Each unit that stays is put among the removed ones, least important first, and the removed unit without which these
    cost least comes back.

    Args:
        gradients: (texts, units).
    """
    block = gradients.T @ gradients
    removed = torch.ones(len(block), dtype=torch.bool)
    removed[list(kept)] = False
    if removed.sum() == 0:
        return list(kept)
    for unit in sorted(kept, key=lambda unit: float(block[unit, unit])):
        removed[unit] = True
        # Of the loss 1'F1 over the removed ones, what goes when one of them comes back.
        relief = 2 * block @ removed.float() - block.diagonal()
        removed[relief.masked_fill(~removed, -torch.inf).argmax()] = False
    return torch.nonzero(~removed).flatten().tolist()
