"""Kwon et al., A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022, without labels.

Mask search: the heads and neurons of least Fisher information go, the number of heads being tried out. Rearrangement:
within a sublayer, units are exchanged where that lowers the loss by the block of its Fisher information. In place of
the paper's mask tuning, which scales units, all output weights are fitted by layer-wise least squares, of which scaling
is a special case; with the refits of `compression.prune.upwards`, which all methods here share.

The Fisher information is that of the parent's own predictions, not of labels, and no sublayer loses its last unit.
"""

from collections.abc import Sequence

import torch

from benchmarks.pruning.units import SLACK_MS, Knowledge, Line


def search(known: Sequence[Knowledge], lines: Sequence[Line], kinds: Sequence[str], keep: float) -> list[list[int]]:
    """The units that stay, per sublayer, by the paper's algorithm 1: a number of heads, and neurons for the rest.

    Args:
        known: per sublayer of the parent.
        keep: share of the time of all sublayers that may stay.
    """
    scores = [one.fisher for one in known]
    full = sum(line.at(len(score)) for line, score in zip(lines, scores, strict=True))
    left = keep * full - sum(line.at(1) for line in lines)  # the best unit of each stays in any case
    best = [int(score.argmax()) for score in scores]
    ranked: dict[str, list[tuple[float, int, int]]] = {"attention": [], "ffn": []}
    for at, (kind, score) in enumerate(zip(kinds, scores, strict=True)):
        ranked[kind] += [(float(value), at, unit) for unit, value in enumerate(score) if unit != best[at]]
    for units in ranked.values():
        units.sort(reverse=True)
    prices = {kind: lines[list(kinds).index(kind)].per_unit for kind in ranked}
    choices = []
    for heads in range(len(ranked["attention"]) + 1):
        rest = left + SLACK_MS - heads * prices["attention"]
        if rest < 0:
            break
        neurons = int(rest / prices["ffn"])
        chosen = ranked["attention"][:heads] + ranked["ffn"][:neurons]
        choices.append((sum(value for value, _, _ in chosen), chosen))
    _, chosen = max(choices)
    kept = [{unit} for unit in best]
    for _, at, unit in chosen:
        kept[at].add(unit)
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
