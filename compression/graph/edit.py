"""What every rewrite of an exported graph needs: edits, and a look at what flows through it."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import onnxruntime
from onnx import helper, numpy_helper
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators

_WEIGHT_BYTES = 1024  # below, storing twice costs less than it is worth
_DROP_UNUSED = Sequential(RemoveUnusedNodesPass(), RemoveUnusedOpsetsPass())


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def add_weight(graph: onnx.GraphProto, name: str, value: npt.NDArray[np.generic] | np.generic) -> None:
    """Stores a constant under this name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def replace(graph: onnx.GraphProto, old: tuple[onnx.NodeProto, ...], new: list[onnx.NodeProto]) -> None:
    """Puts `new` where the first of `old` stood, so that the graph stays in topological order."""
    position = next(index for index, node in enumerate(graph.node) if node == old[0])
    for node in old:
        graph.node.remove(node)
    for offset, node in enumerate(new):
        graph.node.insert(position + offset, node)


def drop_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what leads to no output, and with the domain of ONNX Runtime's operators where it has some.

    Weights of a kind and size stand side by side: a compressed model takes half a per cent less so.
    """
    graph = onnx_ir.from_proto(model)
    graph.opset_imports.setdefault(MICROSOFT, 1)
    result = onnx_ir.to_proto(_DROP_UNUSED(graph).model)
    result.graph.initializer.sort(key=lambda tensor: (tensor.data_type, len(tensor.raw_data)))
    weights = {tensor.name for tensor in result.graph.initializer}
    shapes = [value for value in result.graph.value_info if value.name not in weights]  # each says its own
    del result.graph.value_info[:]
    result.graph.value_info.extend(shapes)
    return result


def each_weight_once(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with equal weights stored once: of layers that share theirs, as ALBERT's do, each is rewritten by
    itself. Left as it is where none are equal.

    Vectors stay as they are: ONNX Runtime names what it makes of a scale after it, and fails where two nodes have the
    same one.
    """
    whole = onnx_ir.from_proto(model)
    weights = whole.graph.initializers
    first: dict[tuple[object, ...], onnx_ir.Value] = {}
    for name, value in list(weights.items()):
        tensor = value.const_value
        if tensor is None or len(tensor.shape) < 2 or tensor.nbytes < _WEIGHT_BYTES:
            continue
        content = tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest()
        same = first.setdefault(content, value)
        if same is not value:
            value.replace_all_uses_with(same)
            del weights[name]
    return model if len(weights) == len(model.graph.initializer) else onnx_ir.to_proto(whole)


def readers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """By tensor, the nodes that read it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def observing_session(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    """Runs the model with these float tensors as its outputs."""
    observed = copy(model)
    del observed.graph.output[:]
    observed.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors)
    return onnxruntime.InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])
