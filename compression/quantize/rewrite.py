"""Rewrites linear layers and embedding tables of an exported graph into 8-bit operators.

    x ─ MatMul(W) ─ Add(b) ─▶      becomes      x ─ QuantizeLinear ─ MatMulIntegerToFloat(Wq, b) ─▶
    Gather(table, ids) ─▶          becomes      Gather(rows, ids) ─ Cast ─ Mul(Gather(scales, ids)) ─▶

MatMulIntegerToFloat (com.microsoft) multiplies uint8 by int8 into int32, scales per output channel, and adds the bias, in
one pass over memory. Linears that read the same tensor (query, key, value) share one QuantizeLinear.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from compression.quantize.calibrate import Floats, Range

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Linear:
    """`output = input @ weight + bias` as it stands in a graph.

    Attributes:
        nodes: the nodes that compute it, MatMul and Add or one Gemm; the first names the layer.
        weight: (inputs, outputs).
        bias: (outputs,), or None.
    """

    nodes: tuple[onnx.NodeProto, ...]
    input: str
    output: str
    weight: Floats
    bias: Floats | None


def linears(model: onnx.ModelProto) -> list[Linear]:
    """The linear layers in graph order, without the last one: it gives the logits, and costs next to nothing."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        linear = _as_linear(node, weights, users)
        if linear is not None and linear.output not in outputs:
            found.append(linear)
    return found


def quantize_linears(
    model: onnx.ModelProto, ranges: Mapping[str, Range], float_layers: Collection[str] = ()
) -> onnx.ModelProto:
    """Puts every linear whose input has a range into int8: weights per output channel, activations per tensor.

    Args:
        model: the float model; left as it is.
        ranges: the range of each linear's input tensor.
        float_layers: names of linears (their first node) that stay in float.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    quantized: dict[str, str] = {}
    for linear in linears(result):
        if linear.input not in ranges or linear.nodes[0].name in float_layers:
            continue
        name, activation = linear.nodes[0].name, ranges[linear.input]
        weight, scales = _per_channel(linear.weight)
        new = []
        if linear.input not in quantized:
            quantized[linear.input] = f"{linear.input}_u8"
            _add(graph, f"{linear.input}_scale", np.float32(activation.scale))
            _add(graph, f"{linear.input}_zero_point", np.uint8(activation.zero_point))
            new.append(
                helper.make_node(
                    "QuantizeLinear",
                    [linear.input, f"{linear.input}_scale", f"{linear.input}_zero_point"],
                    [quantized[linear.input]],
                    name=f"{linear.input}_quantize",
                )
            )
        _add(graph, f"{name}_weight_i8", weight)
        _add(graph, f"{name}_weight_scale", scales)
        inputs = [
            quantized[linear.input],
            f"{name}_weight_i8",
            f"{linear.input}_scale",
            f"{name}_weight_scale",
            f"{linear.input}_zero_point",
        ]
        if linear.bias is not None:
            _add(graph, f"{name}_bias", linear.bias)
            inputs += ["", f"{name}_bias"]  # the weights' zero point is absent: they are symmetric
        new.append(helper.make_node("MatMulIntegerToFloat", inputs, [linear.output], name=name, domain=_MICROSOFT))
        _replace(graph, linear.nodes, new)
    return _tidy(result)


def quantize_embeddings(model: onnx.ModelProto, min_rows: int = 256) -> onnx.ModelProto:
    """Stores large embedding tables as int8 rows with a scale each: a quarter of the size for one Mul per token."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != onnx.TensorProto.FLOAT or len(table.dims) != 2:
            continue
        if table.dims[0] < min_rows:
            continue
        rows, scales = _per_channel(numpy_helper.to_array(table).T)
        name, (_, ids), (output,) = table.name, node.input, node.output
        if f"{name}_i8" not in {tensor.name for tensor in graph.initializer}:
            _add(graph, f"{name}_i8", np.ascontiguousarray(rows.T))
            _add(graph, f"{name}_scale", scales[:, np.newaxis])
        _replace(
            graph,
            (node,),
            [
                helper.make_node("Gather", [f"{name}_i8", ids], [f"{output}_i8"], name=f"{node.name}_rows"),
                helper.make_node("Gather", [f"{name}_scale", ids], [f"{output}_scale"], name=f"{node.name}_scales"),
                helper.make_node(
                    "Cast", [f"{output}_i8"], [f"{output}_cast"], name=f"{node.name}_cast", to=onnx.TensorProto.FLOAT
                ),
                helper.make_node("Mul", [f"{output}_cast", f"{output}_scale"], [output], name=f"{node.name}_scaled"),
            ],
        )
    return _tidy(result)


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
        return Linear((node,), node.input[0], node.output[0], weight, bias)
    followers = users.get(node.output[0], [])
    if len(followers) == 1 and followers[0].op_type == "Add":
        for name in followers[0].input:
            if name in weights and list(weights[name].dims) == [weight.shape[1]]:
                bias = numpy_helper.to_array(weights[name])
                return Linear((node, followers[0]), node.input[0], followers[0].output[0], weight, bias)
    return Linear((node,), node.input[0], node.output[0], weight, None)


def _per_channel(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric int8 with one scale per column; an all-zero column gets scale 1."""
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scales), -127, 127).astype(np.int8), scales


def _add(graph: onnx.GraphProto, name: str, value: npt.NDArray[np.generic] | np.generic) -> None:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _replace(graph: onnx.GraphProto, old: tuple[onnx.NodeProto, ...], new: list[onnx.NodeProto]) -> None:
    """Puts `new` where the first of `old` stood, so that the graph stays in topological order."""
    position = next(index for index, node in enumerate(graph.node) if node == old[0])
    for node in old:
        graph.node.remove(node)
    for offset, node in enumerate(new):
        graph.node.insert(position + offset, node)


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops weights that nothing reads any more, and declares the operators' domain."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if all(opset.domain != _MICROSOFT for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    return model
