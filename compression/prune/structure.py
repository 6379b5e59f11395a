"""Prunes attention heads and FFN neurons to a share of the encoder's time, without labels and without training.

1. See: the parent runs over calibration text. Per sublayer: what it gives, each token weighted by how much it matters
   to the parent's predictions (Fisher information).
2. Choose: units are kept by the Fisher information of a mask on them, within the share of the time that widths cost on
   this machine, and then exchanged where others make up for each other (Kwon et al., NeurIPS 2022).
3. Prune, from the bottom: each sublayer is refitted on the inputs that the pruned model gives it, against the parent's
   own output (Park et al., K-prune, ICLR 2024). So each refit also repairs what those below it broke.

What this was compared with stands in docs/compression.md and benchmarks/pruning.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence

from compression.bundle import Input
from compression.parent.checkpoint import Parent
from compression.progress import console
from compression.prune.encoder import Shape, sublayers
from compression.prune.masks import Line, mask_gradients, rearrange, search_masks
from compression.prune.upwards import prune_upwards, see

CostTable = Callable[[Shape, Sequence[int]], dict[int, float]]

FFN_MULTIPLE = 16  # widths that the integer kernels fill without leftovers


def prune_structure(parent: Parent, texts: Sequence[Input], keep: float, cost: CostTable) -> Parent:
    """Prunes a copy of the parent.

    Args:
        texts: unlabelled, like those to be served.
        keep: share of the time of all sublayers that may stay.
        cost: time by number of units, a straight line; the unit of time does not matter.

    Raises:
        CheckpointError: an architecture that cannot be pruned.
    """
    parts = sublayers(parent.model)
    seen = see(parent, texts)
    console.print("Choose heads and neurons")
    gradients = mask_gradients(parent.model, [one.batch for one in seen.fit])
    lines = [Line.through(cost(part.shape, (1, max(2, part.units)))) for part in parts]
    masks = search_masks(gradients, lines, [part.kind for part in parts], keep, FFN_MULTIPLE)
    kept = [rearrange(one, mask) for one, mask in zip(gradients, masks, strict=True)]
    model = copy.deepcopy(parent.model)
    prune_upwards(model, seen, lambda _, at, __: kept[at])
    return dataclasses.replace(parent, model=model)
