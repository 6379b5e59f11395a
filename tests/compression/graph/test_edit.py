"""Edits of graphs."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compression.graph.edit import each_weight_once

Floats = npt.NDArray[np.float32]


def answer(model: onnx.ModelProto, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


def chain(weights: dict[str, Floats]) -> onnx.ModelProto:
    """x times each of the weights, one after another."""
    nodes = [
        helper.make_node("Mul" if value.ndim < 2 else "MatMul", [f"y{at}" if at else "x", name], [f"y{at + 1}"])
        for at, (name, value) in enumerate(weights.items())
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 32])],
        [helper.make_tensor_value_info(f"y{len(weights)}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_equal_weights_are_stored_once_and_vectors_stay() -> None:
    large = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    scale = np.full(512, 2, np.float32)[:32]
    model = chain({"one": large, "same": large.copy(), "other": large + 1, "scale": scale, "same scale": scale})
    merged = each_weight_once(model)
    assert [weight.name for weight in merged.graph.initializer] == ["one", "other", "scale", "same scale"]
    assert [weight.name for weight in model.graph.initializer][:2] == ["one", "same"]
    x = np.ones((2, 32), np.float32)
    np.testing.assert_array_equal(answer(merged, x), answer(model, x))


def test_a_graph_without_equal_weights_stays_as_it_is() -> None:
    model = chain({"one": np.eye(32, dtype=np.float32)})
    assert each_weight_once(model) is model
