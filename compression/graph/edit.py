"""What every rewrite of an exported graph needs: edits, and a look at what flows through it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


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


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops weights that nothing reads any more, and declares the operators' domain."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if all(opset.domain != MICROSOFT for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def readers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """By tensor, the nodes that read it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def drop_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops nodes that lead to no output, and then as `tidy` does."""
    graph = model.graph
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    return tidy(model)


def observing_session(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    """Runs the model with these float tensors as its outputs."""
    observed = copy(model)
    del observed.graph.output[:]
    observed.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors)
    return onnxruntime.InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])
