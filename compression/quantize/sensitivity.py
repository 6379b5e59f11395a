"""Which linears suffer most from int8, so that those can stay in float."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime

from compression.bundle.runtime import session_options
from compression.progress import track
from compression.quantize.embeddings import quantize_embeddings
from compression.quantize.linear import Floats, linears
from compression.quantize.rewrite import quantize_linears
from compression.quantize.search import Activation, Feed


def sensitive_layers(
    model: onnx.ModelProto,
    activations: Mapping[str, Activation],
    feeds: Sequence[Feed],
    entropy: float | None = None,
) -> list[tuple[str, float]]:
    """Ranks linears by what each costs when it alone is in int8, the worst first.

    Args:
        model: the float model.
        activations: what `calibrate` chose; each linear that has a shift in it is tried.
        feeds: model inputs; some 32 texts tell the order.
        entropy: of the weights, as given to `calibrate`.

    Returns:
        (name, root mean square change of the logits)
    """
    model = quantize_embeddings(model)  # shifts all answers alike, and half of what each trial has to copy is gone
    exact = logits(model, feeds)
    layers = [
        layer
        for layer in linears(model)
        if layer.input in activations and layer.name in activations[layer.input].shifts
    ]
    errors = []
    for layer in track(layers, "Try each layer in int8"):
        activation = activations[layer.input]
        alone = replace(activation, shifts={layer.name: activation.shifts[layer.name]})
        changed = logits(quantize_linears(model, {layer.input: alone}, entropy), feeds) - exact
        errors.append((layer.name, float(np.sqrt(np.square(changed).mean()))))
    return sorted(errors, key=lambda pair: -pair[1])


def logits(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Floats:
    """Of each feed's texts, in order: (texts, labels)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(0), ["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])
