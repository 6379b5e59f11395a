"""Finds the linear layers of an exported graph, and quantizes their weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from compression.graph.edit import add_weight, readers_of

Floats = npt.NDArray[np.float32]

_NORMAL_ENTROPY = 0.5 * np.log2(2 * np.pi * np.e)  # differential, of a normal variable, in bits


@dataclass(frozen=True)
class Linear:
    """`output = input @ weight + bias` as it stands in a graph.

    Attributes:
        nodes: the nodes that compute it: MatMul, MatMul and Add, or one Gemm.
        weight: (inputs, outputs).
        bias: (outputs,), or None.
        stored: the name of what its weight is stored as; layers may share one, as ALBERT's do.
    """

    nodes: tuple[onnx.NodeProto, ...]
    input: str
    output: str
    weight: Floats
    bias: Floats | None
    stored: str

    @property
    def name(self) -> str:
        """The name of its first node, which follows the module's path in the parent."""
        return str(self.nodes[0].name)


@dataclass(frozen=True)
class QuantizedWeight:
    """Symmetric int8 with one scale per output channel.

    Attributes:
        values: (inputs, outputs).
        scales: (outputs,).
    """

    values: npt.NDArray[np.int8]
    scales: Floats

    @property
    def round_trip(self) -> Floats:
        """The weight as the quantized layer sees it."""
        return self.values * self.scales


def quantize_weight(weight: Floats, entropy: Floats | float | None = None) -> QuantizedWeight:
    """Scales each column by its largest value; an all-zero column gets scale 1.

    Args:
        entropy: bits that a value shall take when it is stored compressed, for each column or for all; the scale grows
            until few enough of the 255 levels are in use. None uses them all.
    """
    largest = np.abs(weight).max(axis=0)
    scales = largest / 127
    if entropy is not None:
        # The levels of a normal variable of deviation s in steps d take log2(s / d) + log2(2 pi e) / 2 bits.
        scales = np.maximum(scales, np.sqrt(np.square(weight).mean(axis=0)) * 2 ** (_NORMAL_ENTROPY - entropy))
    scales = np.where(largest > 0, scales, 1.0).astype(np.float32)
    return QuantizedWeight(np.clip(np.rint(weight / scales), -127, 127).astype(np.int8), scales)


def linears(model: onnx.ModelProto) -> list[Linear]:
    """The linear layers in graph order, without the last one: it gives the logits, and costs next to nothing."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    users = readers_of(model.graph)
    found = []
    for node in model.graph.node:
        linear = _as_linear(node, weights, users)
        if linear is not None and linear.output not in outputs:
            found.append(linear)
    return found


def _as_linear(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], users: Mapping[str, list[onnx.NodeProto]]
) -> Linear | None:
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights or len(weights[node.input[1]].dims) != 2:
        return None
    weight = numpy_helper.to_array(weights[node.input[1]])
    if node.op_type == "Gemm":
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            return None
        bias = numpy_helper.to_array(weights[node.input[2]]) if len(node.input) > 2 else None
        weight = weight.T if attributes.get("transB", 0) else weight
        return Linear((node,), node.input[0], node.output[0], weight, bias, node.input[1])
    followers = users.get(node.output[0], [])
    if len(followers) == 1 and followers[0].op_type == "Add":
        for name in followers[0].input:
            if name in weights and list(weights[name].dims) == [weight.shape[1]]:
                bias = numpy_helper.to_array(weights[name])
                return Linear((node, followers[0]), node.input[0], followers[0].output[0], weight, bias, node.input[1])
    return Linear((node,), node.input[0], node.output[0], weight, None, node.input[1])


def scale_linear(
    graph: onnx.GraphProto, layer: Linear, rows: Floats | None = None, columns: Floats | float = 1.0
) -> None:
    """Multiplies a linear's weight by `rows` (inputs,), and its weight and bias by `columns` (outputs,), in place."""
    weight = layer.weight * np.float32(columns) * (np.float32(1) if rows is None else rows[:, np.newaxis])
    first, last = layer.nodes[0], layer.nodes[-1]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in first.attribute)
    first.input[1] = _store(graph, f"{layer.name}_weight", weight.T if transposed else weight)
    if layer.bias is not None:
        tensors = {tensor.name for tensor in graph.initializer}
        index = 2 if first is last else next(index for index, name in enumerate(last.input) if name in tensors)
        last.input[index] = _store(graph, f"{layer.name}_bias_float", layer.bias * np.float32(columns))


def _store(graph: onnx.GraphProto, name: str, value: Floats) -> str:
    """Under a name that is free: a weight may be shared with another linear, or have been scaled before."""
    taken = {tensor.name for tensor in graph.initializer}
    while name in taken:
        name += "_scaled"
    add_weight(graph, name, np.ascontiguousarray(value, np.float32))
    return name
