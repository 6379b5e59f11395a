"""Rewrites linear layers of an exported graph into 8-bit operators.

    x ─ MatMul(W) ─ Add(b) ─▶    becomes    x [─ Mul(1/s)] ─ QuantizeLinear ─ MatMulIntegerToFloat(Wq, b) ─▶

MatMulIntegerToFloat (com.microsoft) multiplies uint8 by int8 into int32, scales per output channel and adds the bias in
one pass over memory. Linears that read the same tensor (query, key, value) share one QuantizeLinear.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from compression.graph.edit import MICROSOFT, add_weight, drop_unused, replace
from compression.quantize.linear import Linear, linears, quantize_weight
from compression.quantize.search import Activation
from compression.quantize.smoothing import fold_into_values


def quantize_linears(
    model: onnx.ModelProto, activations: Mapping[str, Activation], entropy: float | None = None
) -> onnx.ModelProto:
    """Puts every linear that has a shift in `activations` into int8.

    Args:
        model: the float model; left as it is.
        activations: by tensor, what `calibrate` chose.
        entropy: of the weights, as for `quantize_weight`, and as given to `calibrate`.
    """
    result, activations = fold_into_values(model, activations)
    graph = result.graph
    quantized: set[str] = set()
    for linear in linears(result):
        activation = activations.get(linear.input)
        if activation is None or linear.name not in activation.shifts:
            continue
        nodes = []
        if linear.input not in quantized:
            quantized.add(linear.input)
            nodes += _quantize_input(graph, linear.input, activation)
        nodes.append(_integer_linear(graph, linear, activation, entropy))
        replace(graph, linear.nodes, nodes)
    return drop_unused(result)


def _quantize_input(graph: onnx.GraphProto, tensor: str, activation: Activation) -> list[onnx.NodeProto]:
    nodes = []
    source = tensor
    if activation.smoothing is not None:
        source = f"{tensor}_smooth"
        add_weight(graph, f"{tensor}_smoothing", (1 / activation.smoothing).astype(np.float32))
        nodes.append(helper.make_node("Mul", [tensor, f"{tensor}_smoothing"], [source], name=f"{tensor}_smooth"))
    add_weight(graph, f"{tensor}_scale", np.float32(activation.range.scale))
    add_weight(graph, f"{tensor}_zero_point", np.uint8(activation.range.zero_point))
    quantize = [source, f"{tensor}_scale", f"{tensor}_zero_point"]
    nodes.append(helper.make_node("QuantizeLinear", quantize, [f"{tensor}_u8"], name=f"{tensor}_quantize"))
    return nodes


def _integer_linear(
    graph: onnx.GraphProto, linear: Linear, activation: Activation, entropy: float | None
) -> onnx.NodeProto:
    scaled = linear.weight if activation.smoothing is None else linear.weight * activation.smoothing[:, np.newaxis]
    weight = quantize_weight(scaled, entropy)
    bias = activation.shifts[linear.name] + (0 if linear.bias is None else linear.bias)
    add_weight(graph, f"{linear.name}_weight_i8", weight.values)
    add_weight(graph, f"{linear.name}_weight_scale", weight.scales)
    add_weight(graph, f"{linear.name}_bias", bias.astype(np.float32))
    inputs = [
        f"{linear.input}_u8",
        f"{linear.name}_weight_i8",
        f"{linear.input}_scale",
        f"{linear.name}_weight_scale",
        f"{linear.input}_zero_point",
        "",  # the weights' zero point: they are symmetric
        f"{linear.name}_bias",
    ]
    return helper.make_node("MatMulIntegerToFloat", inputs, [linear.output], name=linear.name, domain=MICROSOFT)
