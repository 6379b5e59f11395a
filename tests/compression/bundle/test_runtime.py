"""Sessions compute the same on every machine."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compression.bundle.runtime import session_options
from compression.graph.edit import MICROSOFT


def test_int8_products_do_not_saturate() -> None:
    """255 x 127, 64 times: pairs of them exceed 16 bits, in which CPUs without VNNI would add them."""
    weights = {"weight": np.full((64, 8), 127, np.int8), "scale": np.float32(1), "zero": np.uint8(0)}
    node = helper.make_node("MatMulIntegerToFloat", ["x", "weight", "scale", "scale", "zero"], ["y"], domain=MICROSOFT)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), ["CPUExecutionProvider"])
    (product,) = session.run(None, {"x": np.full((2, 64), 255, np.uint8)})
    assert np.array_equal(product, np.full((2, 8), 255 * 127 * 64, np.float32))
