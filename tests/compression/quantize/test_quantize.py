from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compression.bundle import SingleLabel
from compression.bundle.runtime import session_options
from compression.errors import VerificationError
from compression.quantize import (
    Range,
    RowEntropy,
    calibrate,
    linears,
    quantize_embeddings,
    quantize_linears,
    quantize_within,
)
from compression.quantize.linear import Floats, quantize_weight

random = np.random.default_rng(0)
TABLE = random.normal(size=(300, 16)).astype(np.float32)
FIRST = random.normal(size=(16, 32)).astype(np.float32)
SECOND = random.normal(size=(32, 8)).astype(np.float32)


def model(outlier: float = 1.0) -> onnx.ModelProto:
    """Embedding, a linear with bias, Relu, a linear without, and a last Gemm; one channel is `outlier` times larger."""
    first, second = FIRST.copy(), SECOND.copy()
    first[:, 3] *= outlier
    second[3] /= outlier
    weights = {
        "table": TABLE, "w1": first, "b1": np.full(32, 0.1, np.float32), "w2": second,
        "w3": np.eye(8, 2, dtype=np.float32), "b3": np.zeros(2, np.float32), "axis": np.array([1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], name="embed"),
        helper.make_node("MatMul", ["x", "w1"], ["m1"], name="first"),
        helper.make_node("Add", ["b1", "m1"], ["a1"], name="first_bias"),
        helper.make_node("Relu", ["a1"], ["h"], name="relu"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="second"),
        helper.make_node("ReduceMean", ["y", "axis"], ["p"], name="pool", keepdims=0),
        helper.make_node("Gemm", ["p", "w3", "b3"], ["logits"], name="head"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "t"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


TASK = SingleLabel(("a", "b"))
FEEDS = [{"input_ids": random.integers(0, 300, (1, 12))} for _ in range(40)]


def outputs(graph: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), session_options(0), ["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], feed)[0] for feed in FEEDS])


def quantized(graph: onnx.ModelProto) -> onnx.ModelProto:
    return quantize_linears(graph, calibrate(graph, linears(graph), FEEDS))


def relative_error(graph: onnx.ModelProto) -> float:
    exact = outputs(graph)
    return float(np.abs(outputs(quantized(graph)) - exact).mean() / np.abs(exact).mean())


def test_linears_are_found_with_their_biases_and_without_the_head() -> None:
    found = linears(model())
    assert [(layer.name, layer.input, layer.output) for layer in found] == [("first", "x", "a1"), ("second", "h", "y")]
    assert found[0].bias is not None
    assert found[1].bias is None


def test_quantized_linears_answer_nearly_the_same() -> None:
    assert 0 < relative_error(model()) < 0.02


def test_an_outlier_channel_is_smoothed_away() -> None:
    graph = model(outlier=100)
    chosen = calibrate(graph, linears(graph), FEEDS)
    assert chosen["h"].smoothing is not None
    assert chosen["h"].smoothing[3] > 5 * np.median(chosen["h"].smoothing)
    assert relative_error(graph) < 0.03


def test_what_meets_one_weight_is_smoothed_alike() -> None:
    """Else the weight would have to be stored once for each; ranges are each tensor's own."""
    graph = model(outlier=100)
    del graph.graph.node[4:]
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(0.1) * np.ones(32, np.float32), "tenth"))
    graph.graph.node.extend(
        [
            helper.make_node("MatMul", ["h", "w2"], ["y1"], name="second"),
            helper.make_node("Mul", ["h", "tenth"], ["small"], name="less"),
            helper.make_node("MatMul", ["small", "w2"], ["y2"], name="third"),
            helper.make_node("Add", ["y1", "y2"], ["y"], name="sum"),
            helper.make_node("ReduceMean", ["y", "axis"], ["p"], name="pool", keepdims=0),
            helper.make_node("Gemm", ["p", "w3", "b3"], ["logits"], name="head"),
        ]
    )
    chosen = calibrate(graph, linears(graph), FEEDS)
    assert chosen["h"].smoothing is not None
    np.testing.assert_array_equal(chosen["h"].smoothing, chosen["small"].smoothing)
    assert chosen["h"].range.scale > 5 * chosen["small"].range.scale
    assert relative_error(graph) < 0.03
    result = quantized(graph)
    int8 = [tensor for tensor in result.graph.initializer if tensor.data_type == TensorProto.INT8]
    stored = [numpy_helper.to_array(tensor) for tensor in int8]
    second, third = (values for values in stored if values.shape == (32, 8))
    np.testing.assert_array_equal(second, third)


def test_nothing_of_the_float_weights_is_left() -> None:
    result = quantized(model())
    names = {tensor.name for tensor in result.graph.initializer}
    assert not names & {"w1", "w2", "b1"}
    assert [node.op_type for node in result.graph.node].count("MatMulIntegerToFloat") == 2
    onnx.checker.check_model(result)


def test_the_float_model_is_left_as_it_is() -> None:
    graph = model()
    before = graph.SerializeToString()
    quantize_embeddings(quantized(graph))
    assert graph.SerializeToString() == before


def test_embedding_rows_take_a_quarter_and_lose_next_to_nothing() -> None:
    graph = model()
    small = quantize_embeddings(graph)
    table = next(tensor for tensor in small.graph.initializer if tensor.name == "table_i8")
    assert table.data_type == TensorProto.INT8
    assert np.abs(outputs(small) - outputs(graph)).mean() < 0.005 * np.abs(outputs(graph)).mean()


def lookup(table: npt.NDArray[np.float32]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"], name="embed")],
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "t"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("width", [32, 48, 128, 384])  # blocks of 32, 16 and 128
def test_an_embedding_of_4_bits_takes_an_eighth_and_stays_near(width: int) -> None:
    table = random.normal(size=(2048, width)).astype(np.float32)
    table[7] = 0
    small = quantize_embeddings(lookup(table), 4)
    onnx.checker.check_model(small)
    assert small.ByteSize() < table.nbytes * (1 / 8 + 1 / 14)  # scales of 4 bytes for 16 weights or more
    got = outputs(small).reshape(-1, width)
    expected = table[np.concatenate([feed["input_ids"][0] for feed in FEEDS])]
    assert np.abs(got - expected).mean() < 0.12 * np.abs(expected).mean()


def test_a_row_of_zeros_stays_zero_in_4_bits() -> None:
    table = random.normal(size=(2048, 32)).astype(np.float32)
    table[:300:2] = 0
    got = outputs(quantize_embeddings(lookup(table), 4)).reshape(-1, 32)
    rows = np.concatenate([feed["input_ids"][0] for feed in FEEDS])
    assert not got[rows % 2 == 0].any()
    assert got[rows % 2 == 1].any(axis=1).all()


@pytest.mark.parametrize(("rows", "width"), [(2047, 32), (2048, 30)], ids=["few rows", "no block divides"])
def test_where_4_bits_do_not_fit_the_table_takes_8(rows: int, width: int) -> None:
    table = random.normal(size=(rows, width)).astype(np.float32)
    operators = [node.op_type for node in quantize_embeddings(lookup(table), 4).graph.node]
    assert operators == ["Gather", "Gather", "Cast", "Mul"]


def entropy(levels: npt.NDArray[np.int8]) -> float:
    """Bits of a value, by how often each occurs."""
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("bits", [3, 4.5, 6])
def test_weights_take_as_many_bits_as_asked_for(bits: float) -> None:
    weight: Floats = (random.normal(size=(400, 64)) * np.arange(1, 65)).astype(np.float32)
    quantized = quantize_weight(weight, bits)
    assert entropy(quantized.values) == pytest.approx(bits, abs=0.15)
    assert entropy(quantize_weight(weight).values) > 6.2
    coarser = quantize_weight(weight, bits - 1).round_trip
    assert np.square(quantized.round_trip - weight).mean() < 0.5 * np.square(coarser - weight).mean()


def test_what_asks_for_more_bits_than_there_are_gets_all_levels() -> None:
    weight: Floats = random.normal(size=(400, 8)).astype(np.float32)
    assert np.array_equal(quantize_weight(weight, 12).values, quantize_weight(weight).values)


def test_rare_rows_take_fewer_bits_and_the_table_as_many_as_asked_for() -> None:
    counts = np.array([1000] * 10 + [10] * 90 + [1] * 300 + [0] * 600)
    bits = RowEntropy(2.5, counts).bits()
    assert bits.mean() == pytest.approx(2.5, abs=0.01)
    assert bits[0] - bits[10] == pytest.approx(0.5 * np.log2(100), abs=0.01)  # half a bit for each doubling
    assert bits[100] - bits[400] == pytest.approx(0.5, abs=0.01)  # 600 are unseen, 300 were seen once: half as likely
    table = random.normal(size=(1000, 128)).astype(np.float32)
    small = quantize_embeddings(lookup(table), entropy=RowEntropy(2.5, counts))
    rows = next(numpy_helper.to_array(tensor) for tensor in small.graph.initializer if tensor.name == "table_i8")
    assert entropy(rows[:10]) > entropy(rows[10:100]) > entropy(rows[100:400]) > entropy(rows[400:])


def test_other_tables_than_the_words_keep_all_levels() -> None:
    graph = lookup(random.normal(size=(300, 32)).astype(np.float32))
    assert quantize_embeddings(graph, entropy=RowEntropy(2, np.ones(301, int))) == quantize_embeddings(graph)


def test_small_tables_stay() -> None:
    graph = lookup(random.normal(size=(255, 32)).astype(np.float32))
    assert quantize_embeddings(graph).graph.node == graph.graph.node


@given(st.floats(-1e4, 0), st.floats(0, 1e4))
@settings(deadline=None)
def test_a_range_holds_zero_exactly_and_rounds_to_half_a_step(low: float, high: float) -> None:
    chosen = Range(low, high)
    values = np.linspace(low, high, 50, dtype=np.float32)
    assert chosen.round_trip(np.zeros(1, np.float32))[0] == 0
    assert np.abs(chosen.round_trip(values) - values).max() <= 1.01 * chosen.scale


def test_weights_of_a_dead_channel_stay_zero() -> None:
    weight = np.zeros((4, 2), np.float32)
    weight[:, 1] = [1, -2, 3, -4]
    assert quantize_weight(weight).round_trip == pytest.approx(weight, abs=0.02)


def labels(graph: onnx.ModelProto) -> npt.NDArray[np.int64]:
    return np.asarray(outputs(graph).argmax(axis=1))


def test_the_worst_layer_stays_in_float_where_the_answers_need_it() -> None:
    graph = model()
    chosen = calibrate(graph, linears(graph), FEEDS)
    chosen["x"] = replace(chosen["x"], range=Range(-1000, 1000))  # the first layer's input becomes nothing
    assert (labels(quantize_linears(graph, chosen)) == labels(graph)).mean() < 0.9
    repaired = quantize_within(graph, chosen, FEEDS, 0.9, TASK)
    assert (labels(repaired) == labels(graph)).mean() >= 0.9
    kinds = {node.name: node.op_type for node in repaired.graph.node}
    assert (kinds["first"], kinds["second"]) == ("MatMul", "MatMulIntegerToFloat")
    assert quantize_within(graph, chosen, FEEDS, 0.0, TASK) == quantize_linears(graph, chosen)


def test_an_agreement_that_no_choice_reaches_is_an_error() -> None:
    graph = model()
    chosen = {
        tensor: replace(activation, range=Range(-1e6, 1e6))
        for tensor, activation in calibrate(graph, linears(graph), FEEDS).items()
    }
    with pytest.raises(VerificationError, match=r"below min_agreement 1\.0; loosen it"):
        quantize_within(graph, chosen, FEEDS, 1.0, TASK)
