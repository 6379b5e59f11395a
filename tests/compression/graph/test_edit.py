"""Edits of graphs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compression.graph.edit import each_weight_once


def test_equal_weights_are_stored_once_and_small_tensors_stay() -> None:
    large = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    weights: dict[str, npt.NDArray[np.float32]] = {
        "one": large,
        "same": large.copy(),
        "other": large + 1,
        "flat": large.reshape(1, 32, 32),
        "scale": np.array(2, np.float32),
        "same scale": np.array(2, np.float32),
    }
    nodes = [
        helper.make_node("Mul" if value.ndim == 0 else "MatMul", ["x" if not at else f"y{at - 1}", name], [f"y{at}"])
        for at, (name, value) in enumerate(weights.items())
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 32])],
        [helper.make_tensor_value_info("y5", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    merged = each_weight_once(model)
    assert [weight.name for weight in merged.graph.initializer] == ["one", "other", "flat", "scale", "same scale"]
    x = np.ones((2, 32), np.float32)
    (before,), (after,) = (_run(one, x) for one in (model, merged))
    np.testing.assert_array_equal(before, after)


def _run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))
