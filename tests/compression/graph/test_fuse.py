"""Exact rewrites, on tiny random models of the supported architectures, as the project's own export writes them."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from transformers import PreTrainedModel

from compression.bundle.runtime import session_options
from compression.graph.export import export
from compression.graph.fuse import find_attention, fuse, keep_first_token
from compression.parent.checkpoint import Parent
from compression.prune.encoder import sublayers
from compression.quantize import calibrate, linears, quantize_linears
from compression.quantize.smoothing import fold_into_values
from tests.compression.architectures import classifier

ARCHITECTURES = ("bert", "distilbert", "roberta", "electra", "deberta-v2")


def cut_unequally(model: PreTrainedModel) -> PreTrainedModel:
    """Three heads and 40 neurons in the first layer, one head and 12 neurons in the last."""
    for part, units in zip(sublayers(model), (3, 40, 1, 12), strict=True):
        part.keep(range(part.units)[-units:])
    return model


@pytest.fixture(scope="module")
def exported(parent: Parent) -> dict[str, onnx.ModelProto]:
    models = {name: classifier(name) for name in ARCHITECTURES}
    models["sliced"] = cut_unequally(classifier("bert"))
    # RoBERTa counts its 64 positions from behind the padding.
    return {name: export(replace(parent, model=model.eval(), max_length=60), 18) for name, model in models.items()}


random = np.random.default_rng(0)
LENGTHS = np.array([3, 17, 9, 25])
MASK = (np.arange(25) < LENGTHS[:, None]).astype(np.int64)
IDS = np.where(MASK, random.integers(5, 70, MASK.shape), 1)


def run(model: onnx.ModelProto, ids: np.ndarray = IDS, mask: np.ndarray = MASK, output: str = "logits") -> np.ndarray:
    if output != "logits":
        model = onnx.ModelProto.FromString(model.SerializeToString())
        model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(0), ["CPUExecutionProvider"])
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    result: np.ndarray = session.run([output], {value.name: given[value.name] for value in session.get_inputs()})[0]
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", [*ARCHITECTURES, "sliced"])
def test_a_fused_graph_answers_the_same(exported: dict[str, onnx.ModelProto], name: str) -> None:
    fused = fuse(exported[name])
    onnx.checker.check_model(fused)
    assert fused != exported[name]
    assert np.abs(run(fused) - run(exported[name])).max() < 1e-5
    assert np.abs(run(fused, IDS[1:2, :17], MASK[1:2, :17]) - run(exported[name])[1:2]).max() < 1e-5


@pytest.mark.parametrize("name", [*ARCHITECTURES, "sliced"])
def test_the_last_layer_computes_one_token_and_the_others_all(exported: dict[str, onnx.ModelProto], name: str) -> None:
    fused = fuse(exported[name])
    wide, narrow = [
        layer.output for layer in linears(fused) if layer.bias is not None and layer.bias.size in (48, 40, 12)
    ]
    assert run(fused, output=wide).shape[:2] == (4, 25)
    assert run(fused, output=narrow).shape[:2] == (4, 1)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra", "sliced"])
def test_nothing_is_left_of_the_shapes_and_the_mask(exported: dict[str, onnx.ModelProto], name: str) -> None:
    fused = fuse(exported[name])
    assert operators(find_attention(exported[name])).count("MultiHeadAttention") == 2
    first, last = (node.output[0] for node in fused.graph.node if node.op_type == "Softmax")
    assert run(fused, output=first).shape[2:] == (25, 25)
    assert run(fused, output=last).shape[2:] == (1, 25)
    assert not {"Sqrt", "MultiHeadAttention"} & set(operators(fused))
    readers = {node.op_type for node in fused.graph.node if "attention_mask" in node.input}
    assert readers - {"Shape"} == {"Cast"}


def test_attention_of_another_kind_is_left_alone(exported: dict[str, onnx.ModelProto]) -> None:
    """DeBERTa's scores hold relative positions."""
    assert find_attention(exported["deberta-v2"]) == exported["deberta-v2"]


def test_what_only_looks_like_attention_is_left_alone(exported: dict[str, onnx.ModelProto]) -> None:
    """The same nodes, but a softmax over the queries."""
    graph = onnx.ModelProto.FromString(exported["bert"].SerializeToString())
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.attribute[0].i = -2
    found = find_attention(graph)
    assert operators(found).count("MultiHeadAttention") == 1
    assert np.abs(run(found) - run(graph)).max() < 1e-5


def test_a_graph_that_reads_all_tokens_keeps_them(exported: dict[str, onnx.ModelProto]) -> None:
    graph = onnx.ModelProto.FromString(exported["bert"].SerializeToString())
    gather = next(node for node in graph.graph.node if node.op_type == "Gather" and "pooler" in node.name)
    mean = helper.make_node("ReduceMean", [gather.input[0], "middle"], list(gather.output), keepdims=0, name="mean")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "middle"))
    gather.CopyFrom(mean)
    assert keep_first_token(graph) == graph


def test_the_parents_graph_is_left_as_it_is(exported: dict[str, onnx.ModelProto]) -> None:
    before = exported["bert"].SerializeToString()
    assert fuse(exported["bert"]).SerializeToString() == fuse(exported["bert"]).SerializeToString()
    assert exported["bert"].SerializeToString() == before


FEEDS = [
    {"input_ids": IDS[row : row + 1, :length], "attention_mask": MASK[row : row + 1, :length]}
    | {"token_type_ids": np.zeros((1, length), np.int64)}
    for row, length in enumerate(LENGTHS)
] * 10


@pytest.mark.parametrize("name", ["bert", "sliced"])
def test_a_fused_graph_in_int8_is_batch_exact(exported: dict[str, onnx.ModelProto], name: str) -> None:
    fused = fuse(exported[name])
    small = quantize_linears(fused, calibrate(fused, linears(fused), FEEDS))
    assert operators(small).count("MatMulIntegerToFloat") == len(linears(fused))
    together = run(small)
    for row, length in enumerate(LENGTHS):
        assert together[row] == pytest.approx(run(small, IDS[[row], :length], MASK[[row], :length])[0], abs=1e-5)
    assert np.abs(together - run(fused)).mean() < 0.15 * np.abs(together).mean()


def test_smoothing_behind_attention_goes_into_the_values(exported: dict[str, onnx.ModelProto]) -> None:
    fused = fuse(exported["bert"])
    chosen = calibrate(fused, linears(fused), FEEDS)
    smoothing = random.uniform(0.2, 5, 32).astype(np.float32)
    contexts = [layer.input for layer in linears(fused) if "attention/output" in layer.name]
    for context in contexts:
        chosen[context] = replace(chosen[context], smoothing=smoothing)
    folded, left = fold_into_values(fused, chosen)
    assert all(left[context].smoothing is None for context in contexts)
    assert np.abs(run(folded) - run(fused)).max() < 1e-5
    context = contexts[0]
    assert run(folded, output=context) * smoothing == pytest.approx(run(fused, output=context), abs=1e-4)
    (value,) = (layer for layer in linears(fused) if "layer.0/attention/self/value" in layer.name)
    assert left[value.input].shifts[value.name] * smoothing == pytest.approx(
        chosen[value.input].shifts[value.name], abs=1e-6
    )
