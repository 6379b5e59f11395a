"""Smoothing that costs nothing: the division of an attention's output goes into the weights of its values.

    softmax(...) V / s  =  softmax(...) (V / s)    where V = x Wv + bv, so that Wv and bv are divided once and for all

Elsewhere in a post-norm encoder it has to stay a Mul: a layer norm's output feeds the residual too, and a Gelu is not
linear.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from compression.graph.edit import copy, readers_of
from compression.quantize.linear import Linear, linears, scale_linear
from compression.quantize.search import Activation

# From an attention's output up to the linear of its values, and which input leads there.
_PATH = (("Reshape", 0), ("Transpose", 0), ("MatMul", 1), ("Transpose", 0), ("Reshape", 0))
_HEADS_FIRST = [0, 2, 1, 3]


def fold_into_values(
    model: onnx.ModelProto, activations: Mapping[str, Activation]
) -> tuple[onnx.ModelProto, dict[str, Activation]]:
    """Divides the values' weights by the smoothing of the attention's output, and multiplies those that read it.

    Returns:
        the same function, and the activations that belong to it; neither argument is changed.
    """
    result = copy(model)
    changed = dict(activations)
    layers = {layer.output: layer for layer in linears(result)}
    readers = readers_of(result.graph)
    for tensor, activation in activations.items():
        values = _values(result.graph, tensor, layers)
        following = [layer for layer in layers.values() if layer.input == tensor]
        if activation.smoothing is None or values is None or len(following) != len(readers[tensor]):
            continue
        scale_linear(result.graph, values, columns=np.float32(1) / activation.smoothing)
        for layer in following:
            scale_linear(result.graph, layer, rows=activation.smoothing)
        changed[tensor] = replace(activation, smoothing=None)
        source = changed.get(values.input)
        if source is not None and values.name in source.shifts:
            shifts = {**source.shifts, values.name: source.shifts[values.name] / activation.smoothing}
            changed[values.input] = replace(source, shifts=shifts)
    return result, changed


def _values(graph: onnx.GraphProto, context: str, layers: Mapping[str, Linear]) -> Linear | None:
    """The linear whose output, mixed over the tokens channel by channel, is this tensor."""
    producers = {name: node for node in graph.node for name in node.output}
    readers = readers_of(graph)
    tensor = context
    for operator, index in _PATH:
        node = producers.get(tensor)
        if node is None or node.op_type != operator:
            return None
        orders = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == "perm"]
        if operator == "Transpose" and orders != [_HEADS_FIRST]:
            return None
        tensor = node.input[index]
        if len(readers[tensor]) != 1:
            return None
    return layers.get(tensor)
