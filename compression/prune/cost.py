"""What a sublayer costs at each width, measured on this machine in the form it will be served in: int8, one thread."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import nnls

from compression.prune.encoder import Kind
from compression.quantize import Activation, Range, linears, quantize_linears

_TEXTS, _TOKENS = 8, 24
_ROUNDS = 30


def machine_cost(folder: Path, kind: Kind, hidden: int, unit: int, widths: Sequence[int]) -> dict[int, float]:
    """`sublayer_cost`, measured once and kept in a file below `folder`: the same costs give the same model again."""
    path = folder / f"cost-{kind}-{hidden}-{unit}-{'-'.join(map(str, widths))}-{onnxruntime.__version__}.json"
    if path.is_file():
        return {int(width): cost for width, cost in json.loads(path.read_text("utf-8")).items()}
    table = sublayer_cost(kind, hidden, unit, widths)
    folder.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(f".{os.getpid()}")
    staging.write_text(json.dumps(table), "utf-8")
    staging.replace(path)
    return table


def sublayer_cost(kind: Kind, hidden: int, unit: int, widths: Sequence[int]) -> dict[int, float]:
    """Milliseconds of one sublayer for 8 texts of 24 tokens, by number of units.

    The widths are timed in turn, the fastest round counts, and a line is laid through them: the kernels' time is a
    fixed part and one per unit, and a busy moment of the machine bends no line.
    """
    sessions = {width: _session(_graph(kind, hidden, unit, width)) for width in widths}
    feed = {"hidden": np.random.default_rng(0).normal(size=(_TEXTS, _TOKENS, hidden)).astype(np.float32)}
    fastest = dict.fromkeys(sessions, math.inf)
    for _ in range(_ROUNDS):
        for width, session in sessions.items():
            start = time.perf_counter()
            session.run(None, feed)
            fastest[width] = min(fastest[width], 1e3 * (time.perf_counter() - start))
    design = np.stack([np.ones(len(fastest)), np.array(list(fastest))], axis=1)
    (fixed, per_unit), _ = nnls(design, np.array(list(fastest.values())))
    return {width: float(fixed + per_unit * width) for width in fastest}


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


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
