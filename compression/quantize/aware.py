"""Accuracy-aware int8: as many of the layers that suffer most stay in float as the answers need."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from compression.bundle import Task
from compression.errors import VerificationError
from compression.progress import console
from compression.quantize.rewrite import quantize_linears
from compression.quantize.search import Activation, Feed
from compression.quantize.sensitivity import logits, sensitive_layers

_RANKING_TEXTS = 32


def quantize_within(
    model: onnx.ModelProto,
    activations: Mapping[str, Activation],
    feeds: Sequence[Feed],
    min_agreement: float,
    task: Task,
    entropy: float | None = None,
) -> onnx.ModelProto:
    """Quantizes the linears, but for the fewest of the most sensitive ones (1, 2, 4, ...) that keep the agreement.

    Args:
        feeds: model inputs, one per text, that were not used to choose the ranges.
        min_agreement: fraction of them that must get the same labels as from the float model.
        entropy: of the weights, as given to `calibrate`.

    Raises:
        VerificationError: not even half of the layers in float are enough.
    """
    expected = logits(model, feeds)

    def agreement(candidate: onnx.ModelProto) -> float:
        return float(task.same(expected, logits(candidate, feeds)).mean())

    candidate = quantize_linears(model, activations, entropy)
    reached = agreement(candidate)
    if reached >= min_agreement:
        return candidate
    ranking = [name for name, _ in sensitive_layers(model, activations, feeds[:_RANKING_TEXTS], entropy)]
    count = 1
    while count <= len(ranking) // 2:
        kept = ranking[:count]
        console.print(f"Agreement {reached:.3f} is below {min_agreement}: {', '.join(kept)} in float")
        candidate = quantize_linears(model, _without(activations, kept), entropy)
        reached = agreement(candidate)
        if reached >= min_agreement:
            return candidate
        count *= 2
    raise VerificationError(
        f"quantize: agreement with the float model is {reached:.3f} with half of the layers in float, below "
        f"min_agreement {min_agreement}; loosen it, or leave quantize out"
    )


def _without(activations: Mapping[str, Activation], names: Sequence[str]) -> dict[str, Activation]:
    """The activations without what those linears need."""
    return {
        tensor: replace(
            activation, shifts={name: shift for name, shift in activation.shifts.items() if name not in names}
        )
        for tensor, activation in activations.items()
    }
