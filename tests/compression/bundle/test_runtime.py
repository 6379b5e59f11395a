"""Sessions compute the same on every machine."""

from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.bundle import runtime
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


@pytest.mark.parametrize(
    ("cpuinfo", "asked"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni amx_int8\n", False),  # there it would cost the speed of AMX
        ("flags\t\t: fpu avx2 avx_vnni\n", False),
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("", True),
    ],
)
def test_exact_products_are_asked_for_where_the_fast_ones_are_not(
    cpuinfo: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "read", lambda path: cpuinfo)
    options = session_options(1)
    with nullcontext() if asked else pytest.raises(RuntimeError, match="x64quantprecision"):  # of one that is not set
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
