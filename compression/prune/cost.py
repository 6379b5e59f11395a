"""What a sublayer costs at each width, in the form it will be served in: int8, one thread.

Arithmetic says most of it. A linear layer's time follows its multiplications, so the time of an FFN neuron is the unit;
a column of attention has twice as many (four matrices against two), and products in float that grow with the text.
What this machine makes of it is measured. But no time is the same twice, and the same input has to give the same model:
so the measured price overrules the arithmetic only where the two are far apart, by a coarse step that the load of the
machine does not cross.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compression.bundle.atomic_files import CACHE_REMEDY, replacing
from compression.bundle.runtime import session_options
from compression.prune.encoder import Kind, Shape
from compression.quantize import Activation, Range, linears, quantize_linears

# Fitted to encoders of 128 to 1024 wide on a CPU with VNNI, which lie within 30 % of it.
_FIXED = 75.0  # what no width changes (residual, normalisation, ranges), in neurons
_FLOAT = 110.0  # the float products of a column, in int8 multiplications of each of its four matrices
_STEP = 3.0
_TEXTS, _TOKENS = 8, 24
_ROUNDS = 30


def machine_cost(folder: Path, shape: Shape, widths: Sequence[int]) -> dict[int, float]:
    """Time of one sublayer on this machine by number of units, in that of one FFN neuron without a gate.

    Args:
        folder: where what was measured is kept.
    """
    column = shape.matrices / 2 * (_kept_price(folder, shape.hidden, shape.unit) if shape.kind == "attention" else 1.0)
    return {width: _FIXED + column * shape.unit * width for width in widths}


def column_price(hidden: int, measured: float) -> float:
    """The price of attention that is reckoned with: the arithmetic one, or as many powers of 3 away as was measured."""
    arithmetic = 1 + _FLOAT / hidden
    return float(arithmetic * _STEP ** round(math.log(measured / arithmetic, _STEP)))


def attention_price(hidden: int, head: int) -> float:
    """How many times longer attention takes than an FFN with as many multiplications in its linear layers.

    Both are timed in turn, and the fastest round of each counts.
    """
    heads = max(1, hidden // head)
    attention = _session(_graph("attention", hidden, head, heads))
    ffn = _session(_graph("ffn", hidden, 1, 2 * heads * head))
    feed = {"hidden": np.random.default_rng(0).normal(size=(_TEXTS, _TOKENS, hidden)).astype(np.float32)}
    fastest = [math.inf, math.inf]
    for _ in range(_ROUNDS):
        for at, session in enumerate((attention, ffn)):
            start = time.perf_counter()
            session.run(None, feed)
            fastest[at] = min(fastest[at], time.perf_counter() - start)
    return fastest[0] / fastest[1]


def _kept_price(folder: Path, hidden: int, head: int) -> float:
    path = folder / f"attention-price-{hidden}-{head}-{onnxruntime.__version__}.txt"
    if path.is_file():
        return float(path.read_text("utf-8"))
    price = column_price(hidden, attention_price(hidden, head))
    with replacing(path, CACHE_REMEDY) as staging:
        staging.write_text(str(price), "utf-8")
    return price


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), ["CPUExecutionProvider"])


def _graph(kind: Kind, hidden: int, unit: int, width: int) -> onnx.ModelProto:
    """A sublayer of random weights; its linears are quantized as the recipe's are."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray[Any, Any]] = {}
    nodes: list[onnx.NodeProto] = []

    def linear(source: str, name: str, inputs: int, outputs: int) -> None:
        weights[f"{name}_w"] = random.normal(size=(inputs, outputs)).astype(np.float32)
        weights[f"{name}_b"] = np.zeros(outputs, np.float32)
        nodes.append(helper.make_node("MatMul", [source, f"{name}_w"], [f"{name}_m"], name=name))
        nodes.append(helper.make_node("Add", [f"{name}_m", f"{name}_b"], [name]))

    if kind == "ffn":
        linear("hidden", "up", hidden, width)
        nodes.append(helper.make_node("Gelu", ["up"], ["units"]))
        linear("units", "out", width, hidden)
    else:
        weights["split"] = np.array([0, 0, width, unit])
        weights["join"] = np.array([0, 0, width * unit])
        for name, axes in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            linear("hidden", name, hidden, width * unit)
            nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}_s"]))
            nodes.append(helper.make_node("Transpose", [f"{name}_s"], [f"{name}_t"], perm=axes))
        nodes.append(helper.make_node("MatMul", ["query_t", "key_t"], ["scores"]))
        nodes.append(helper.make_node("Softmax", ["scores"], ["attention"], axis=-1))
        nodes.append(helper.make_node("MatMul", ["attention", "value_t"], ["context"]))
        nodes.append(helper.make_node("Transpose", ["context"], ["context_t"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", ["context_t", "join"], ["units"]))
        linear("units", "out", width * unit, hidden)
    nodes.append(helper.make_node("Identity", ["out"], ["result"]))
    shape: list[str | int | None] = ["texts", "tokens", hidden]
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    activations: dict[str, Activation] = {}
    for layer in linears(model):
        shifts = activations[layer.input].shifts if layer.input in activations else {}
        zeros = np.zeros(layer.weight.shape[1], np.float32)
        activations[layer.input] = Activation(Range(-4.0, 4.0), None, {**shifts, layer.name: zeros})
    return quantize_linears(model, activations)
