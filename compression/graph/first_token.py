"""Computes only position 0 from where on nothing reads another position."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from compression.graph.edit import add_weight, copy, drop_unused, readers_of

_BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
_UNARY = ("Erf", "Gelu", "Relu", "Sigmoid", "Sqrt", "Tanh")

Constants = Mapping[str, npt.NDArray[np.generic]]


def keep_first_token(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cuts the sequence to its first token, kept as an axis of length 1, as early as that is exact.

    Seen from the end of the graph: a node needs position 0 only when it treats tokens one by one and each of its
    readers needs position 0 only. Of an attention that holds for the queries. Where a node that needs position 0
    reads from one that needs all, a Gather is put between.
    """
    result = copy(model)
    graph = result.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ranks = _ranks(model)
    readers = readers_of(graph)
    outputs = {value.name for value in graph.output}
    narrow: dict[str, list[int]] = {}  # by a node's output: which of its inputs it reads at position 0 only

    def wants_first_only(reader: onnx.NodeProto, tensor: str) -> bool:
        if _takes_first(reader, constants):
            return True
        read = [index for index, name in enumerate(reader.input) if name == tensor]
        return set(read) <= set(narrow.get(reader.output[0], []))

    for node in reversed(graph.node):
        (output, *others) = node.output
        if others or output in outputs or ranks.get(output) != 3 or output not in readers:
            continue
        inputs = _token_wise_inputs(node, constants, ranks)
        if inputs and all(wants_first_only(reader, output) for reader in readers[output]):
            narrow[output] = inputs
    if not narrow:
        return model

    cuts: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        for index in narrow.get(node.output[0], []):
            tensor = node.input[index]
            if tensor not in narrow:
                node.input[index] = f"{tensor}_first"
                cuts[tensor] = helper.make_node(
                    "Gather", [tensor, "first_token"], [f"{tensor}_first"], name=f"{tensor}_first", axis=1
                )
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        graph.node.extend(cuts[name] for name in node.output if name in cuts)
    add_weight(graph, "first_token", np.array([0]))
    shapes = [value for value in graph.value_info if value.name not in narrow]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
    return drop_unused(result)


def _takes_first(node: onnx.NodeProto, constants: Constants) -> bool:
    return node.op_type == "Gather" and _axis(node, 0) == 1 and not np.any(constants.get(node.input[1], 1))


def _token_wise_inputs(node: onnx.NodeProto, constants: Constants, ranks: Mapping[str, int]) -> list[int]:
    """The inputs, (batch, tokens, width), that this node treats position by position; none where it does not."""
    match node.op_type:
        case "LayerNormalization" if _axis(node, -1) in (-1, 2):
            inputs = [0]
        case "MatMul" if node.input[1] in constants and constants[node.input[1]].ndim == 2:
            inputs = [0]
        case "MultiHeadAttention":
            inputs = [0]  # the queries
        case operator if operator in _UNARY:
            inputs = [0]
        case operator if operator in _BINARY:
            inputs = [index for index, name in enumerate(node.input) if not _same_for_all(constants.get(name))]
        case _:
            return []
    return inputs if all(ranks.get(node.input[index]) == 3 for index in inputs) else []


def _same_for_all(constant: npt.NDArray[np.generic] | None) -> bool:
    """Whether this is one value or vector that each token meets alike."""
    return constant is not None and constant.size == (constant.shape[-1] if constant.ndim else 1)


def _axis(node: onnx.NodeProto, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), default)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Ranks of the tensors, as far as they can be inferred."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
