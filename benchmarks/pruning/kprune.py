"""K-prune: Park et al., Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models, ICLR 2024.

From the bottom, one sublayer after another: the units of this and all later sublayers are scored on the model as it is
by then, those above one threshold for all fill what is left of the time, and this sublayer loses its own below it.

    score = (Fisher information of the model's predictions + lambda x squared representation) / measured cost

Two things are not as in the paper's code. The predictive part is the Fisher information; the gradient of the divergence
between the parent and itself, which the code takes at the first sublayer, is zero. And output weights are fitted with a
ridge chosen on held-out text, by the refits of `compression.prune.upwards`, which all methods here share. No sublayer
loses its last unit.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from benchmarks.pruning.units import SLACK, Knowledge, know
from compression.parent.batches import Batch
from compression.prune.masks import Line
from compression.prune.regression import Moments


class Threshold:
    """Chooses the units of one sublayer after another; `prune_upwards` calls it.

    Args:
        lines: cost of each sublayer.
        first: knowledge of the parent's units, the same for any `keep`.
        batches: what later sublayers are scored on.
        keep: share of the time of all sublayers that may stay.
        balance: weight of the representational knowledge, both kinds having the same sum over the parent.
    """

    def __init__(
        self, lines: Sequence[Line], first: Sequence[Knowledge], batches: Sequence[Batch], keep: float, balance: float
    ) -> None:
        self._lines, self._first, self._batches = lines, first, batches
        self._left = keep * sum(line.at(len(one.representation)) for line, one in zip(lines, first, strict=True))
        fisher = sum(float(one.fisher.sum()) for one in first)
        self._lambda = balance * fisher / sum(float(one.representation.sum()) for one in first)

    def __call__(self, model: PreTrainedModel, at: int, _: Moments) -> list[int]:
        """The units of sublayer `at` that stay."""
        known = know(model, self._batches, at) if at else self._first
        lines = self._lines[at:]
        scores = [
            (one.fisher + self._lambda * one.representation) / line.per_unit
            for one, line in zip(known, lines, strict=True)
        ]
        kept = above_threshold(scores, lines, self._left)[0]
        self._left -= lines[0].at(len(kept))
        return kept


def above_threshold(scores: Sequence[torch.Tensor], lines: Sequence[Line], time: float) -> list[list[int]]:
    """Per sublayer, the units above the lowest threshold whose cost is within `time`; one at least."""
    best = [int(score.argmax()) for score in scores]
    time -= sum(line.at(1) for line in lines)
    others = torch.cat([score.index_fill(0, torch.tensor(top), -1.0) for score, top in zip(scores, best, strict=True)])
    prices = torch.cat(
        [torch.full(score.shape, line.per_unit).double() for score, line in zip(scores, lines, strict=True)]
    )
    ranked = others.argsort(descending=True)
    affordable = int((prices[ranked].cumsum(0) <= time + SLACK).sum())
    chosen = torch.zeros(len(others), dtype=torch.bool)
    chosen[ranked[: min(affordable, len(others) - len(best))]] = True
    kept, start = [], 0
    for score, top in zip(scores, best, strict=True):
        kept.append(sorted({top, *torch.nonzero(chosen[start : start + len(score)]).flatten().tolist()}))
        start += len(score)
    return kept
