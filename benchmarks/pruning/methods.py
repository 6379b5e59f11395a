"""The methods that are compared: each gets what the parent did and what widths cost, and prunes a copy to any share."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

from transformers import PreTrainedModel

from benchmarks.pruning import kprune
from benchmarks.pruning.elimination import price, prune_to, search_widths
from benchmarks.pruning.units import know
from compression.prune.encoder import sublayers
from compression.prune.masks import Line, mask_gradients, rearrange, search_masks
from compression.prune.structure import FFN_MULTIPLE
from compression.prune.upwards import Seen, prune_upwards

Costs = Sequence[dict[int, float]]  # per sublayer, milliseconds by number of units
Prune = Callable[[float], PreTrainedModel]  # to a share of the time

_SCORED_EVERY = 3  # of the batches, for the scores that K-prune measures anew at each sublayer


def mask_search(multiple: int, parent: PreTrainedModel, seen: Seen, costs: Costs) -> Prune:
    """Mask search and rearrangement; `prune_structure` does the same.

    Args:
        multiple: neurons go in groups of so many; the paper's go alone.
    """
    gradients = mask_gradients(parent, [one.batch for one in seen.fit])
    lines, kinds = [Line.through(table) for table in costs], [part.kind for part in sublayers(parent)]

    def prune(keep: float) -> PreTrainedModel:
        model = copy.deepcopy(parent)
        masks = search_masks(gradients, lines, kinds, keep, multiple)
        kept = [rearrange(one, mask) for one, mask in zip(gradients, masks, strict=True)]
        prune_upwards(model, seen, lambda _, at, __: kept[at])
        return model

    return prune


def elimination(parent: PreTrainedModel, seen: Seen, costs: Costs) -> Prune:
    """Exact elimination, widths by measured divergence."""
    priced = price(copy.deepcopy(parent), seen)

    def prune(keep: float) -> PreTrainedModel:
        model = copy.deepcopy(parent)
        prune_to(model, seen, search_widths(model, seen, priced, costs, keep))
        return model

    return prune


def kprune_2024(balance: float, parent: PreTrainedModel, seen: Seen, costs: Costs) -> Prune:
    """Scores measured anew at each sublayer, one threshold for all that are left.

    Args:
        balance: of representational to predictive knowledge, summed over the parent's units; the paper tunes it.
    """
    scored = [one.batch for one in seen.fit[_SCORED_EVERY // 2 :: _SCORED_EVERY]] or [one.batch for one in seen.fit]
    first, lines = know(parent, scored), [Line.through(table) for table in costs]

    def prune(keep: float) -> PreTrainedModel:
        model = copy.deepcopy(parent)
        prune_upwards(model, seen, kprune.Threshold(lines, first, scored, keep, balance))
        return model

    return prune


METHODS: dict[str, Callable[[PreTrainedModel, Seen, Costs], Prune]] = {
    "Lathe": partial(mask_search, FFN_MULTIPLE),
    "Kwon et al. 2022": partial(mask_search, 1),
    "elimination": elimination,
    "K-prune": partial(kprune_2024, 0.1),
    "K-prune, Fisher alone": partial(kprune_2024, 0.0),
}
