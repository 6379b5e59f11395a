"""Export of the checkpoints of tests/checkpoints: exact at any size, or refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from transformers import AutoModelForSequenceClassification, XLMRobertaConfig

from compression.bundle import Encoded, Runtime
from compression.errors import CheckpointError
from compression.graph.edit import copy
from compression.graph.exact import require_exact
from compression.graph.export import export
from compression.parent.batches import collate
from compression.parent.checkpoint import Parent, load_parent, weight_bytes
from compression.pipeline import compress
from compression.quantize import linears
from compression.recipe import Budget, Recipe, load_recipe
from compression.step_cache import Work, WorkCache
from tests.compression.parent.test_architectures import saved
from tests.compression.parent.test_saved_by import changed

CHECKPOINTS = Path(__file__).resolve().parent.parent.parent / "checkpoints"
KINDS = ("bert", "roberta", "modernbert", "deberta-v2", "qwen3")


@pytest.fixture(scope="module")
def parents() -> dict[str, Parent]:
    return {kind: load_parent(str(CHECKPOINTS / "transformers-5" / kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def exported(parents: dict[str, Parent]) -> dict[str, onnx.ModelProto]:
    return {kind: export(parent, 18) for kind, parent in parents.items()}


def rows(*lengths: int) -> list[Encoded]:
    random = np.random.default_rng(0)
    return [Encoded(random.integers(4, 80, length).tolist(), [0] * length, truncated=False) for length in lengths]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(1,), (128,), (25, 3, 17, 9), (2,) * 33])
def test_a_graph_answers_as_the_parent_at_every_size(
    parents: dict[str, Parent], exported: dict[str, onnx.ModelProto], kind: str, lengths: tuple[int, ...]
) -> None:
    batch = collate(parents[kind], rows(*lengths))
    session = onnxruntime.InferenceSession(exported[kind].SerializeToString(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(batch)
    (got,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
    with torch.inference_mode():
        assert got == pytest.approx(parents[kind].model(**batch).logits.numpy(), abs=1e-5)


def test_the_model_computes_attention_as_before(parents: dict[str, Parent]) -> None:
    before = parents["bert"].model.config._attn_implementation
    export(parents["bert"], 18)
    assert parents["bert"].model.config._attn_implementation == before != "eager"


def test_a_model_out_of_the_cache_of_steps_is_exported_as_before(
    parents: dict[str, Parent], exported: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    kept = WorkCache(tmp_path)
    kept.put("step", Work(parents["bert"]))
    work = kept.get("step", parents["bert"])
    assert work is not None
    assert export(work.model, 18) == exported["bert"]


def test_nodes_are_named_by_their_modules_and_nothing_else_is_kept_of_torch(
    parents: dict[str, Parent], exported: dict[str, onnx.ModelProto]
) -> None:
    for kind in KINDS:
        for layer in linears(exported[kind]):
            module = parents[kind].model.get_submodule(layer.name.strip("/").rpartition("/")[0].replace("/", "."))
            assert isinstance(module, torch.nn.Linear), layer.name
        assert not exported[kind].metadata_props
        assert not any(node.metadata_props or node.doc_string for node in exported[kind].graph.node)
    assert "/bert/encoder/layer.1/attention/self/query/MatMul" in {node.name for node in exported["bert"].graph.node}


def test_gelu_becomes_one_operator(exported: dict[str, onnx.ModelProto], tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(exported["bert"].SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("BiasGelu") + operators.count("Gelu") == 2
    assert "Erf" not in operators


@pytest.mark.parametrize("opset", [18, 21])
def test_any_opset_that_a_recipe_can_name_is_written(parents: dict[str, Parent], opset: int) -> None:
    assert [entry.version for entry in export(parents["bert"], opset).opset_import if not entry.domain] == [opset]


def test_a_graph_that_answers_otherwise_is_refused_by_its_architecture(
    parents: dict[str, Parent], exported: dict[str, onnx.ModelProto]
) -> None:
    wrong = copy(exported["roberta"])
    last = next(node for node in wrong.graph.node if "logits" in node.output)
    weight = next(tensor for tensor in wrong.graph.initializer if tensor.name == last.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.001), weight.name))
    with pytest.raises(CheckpointError, match=r"the exported graph of roberta answers .* otherwise .* by 0\.00"):
        require_exact(parents["roberta"], wrong)


def test_a_graph_of_one_size_is_refused(parents: dict[str, Parent], exported: dict[str, onnx.ModelProto]) -> None:
    fixed = copy(exported["bert"])
    shape = next(node for node in fixed.graph.node if node.op_type == "Reshape")
    fixed.graph.initializer.append(numpy_helper.from_array(np.array([1, 9, 4, -1]), "size"))
    shape.input[1] = "size"
    with pytest.raises(CheckpointError, match="the exported graph of bert fails on 1 texts of 1 tokens"):
        require_exact(parents["bert"], fixed)


def test_what_cannot_be_exported_is_refused_by_its_architecture(parents: dict[str, Parent]) -> None:
    def decide(module: torch.nn.Module, given: Any, output: Any) -> Any:
        return output * 2 if output.sum() > 0 else output

    hook = parents["bert"].model.bert.embeddings.register_forward_hook(decide)
    try:
        with pytest.raises(CheckpointError, match="torch cannot export bert models to ONNX"):
            export(parents["bert"], 18)
    finally:
        hook.remove()


def test_rotary_positions_that_change_behind_the_window_alone_are_exported(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 4.0}
    folder = changed("transformers-5/qwen3", tmp_path, "config.json", rope_parameters=rope)
    parent = load_parent(str(folder))
    assert export(parent, 18).graph.output[0].name == "logits"
    assert {getattr(module, "rope_type", "dynamic") for module in parent.model.modules()} == {"dynamic"}


def test_more_weights_than_an_onnx_file_holds_are_refused(parents: dict[str, Parent]) -> None:
    config = XLMRobertaConfig(
        vocab_size=250_002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    with torch.device("meta"):
        large = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(CheckpointError, match=r"take 2\.2\d GB in float32, and an ONNX file 2\.13 GB at most; put"):
        export(replace(parents["bert"], model=large), 18)


def test_a_parent_that_fits_no_file_is_compressed_where_its_bundle_does(
    parents: dict[str, Parent], sentiment_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the yardstick of its speed in ONNX Runtime."""
    step = {"step": "prune_vocabulary", "keep_most_frequent": 0}
    recipe = Recipe.model_validate(
        {"schema_version": 1, "name": "small", "steps": [step, {"step": "export"}], "budget": {}}
    )
    monkeypatch.setattr("compression.graph.export._MAX_BYTES", weight_bytes(parents["roberta"]) - 1)
    bundle = compress(parents["roberta"].name, sentiment_data, recipe, tmp_path / "bundle")
    assert {one.onnx_ratio for one in bundle.manifest.figures.latency} == {None}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_compressed_to_int8(
    parents: dict[str, Parent], exported: dict[str, onnx.ModelProto], kind: str, sentiment_data: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("safe").model_copy(update={"budget": Budget(min_agreement=0.7)})
    bundle = compress(parents[kind].name, sentiment_data, recipe, tmp_path / "bundle")
    graph = onnx.load_from_string(bundle.model()).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulIntegerToFloat") == len(linears(exported[kind])) > 8
    runtime = Runtime.of(bundle)
    texts = ["a good day", "it was the worst of the banks, today", "not the card"]
    encoded = [runtime.encode(text) for text in texts]
    together = runtime.logits(encoded)
    for row, one in zip(together, encoded, strict=True):
        assert row == pytest.approx(runtime.logits([one])[0], abs=1e-5)
    batch = collate(parents[kind], encoded)
    with torch.inference_mode():
        expected = parents[kind].model(**batch).logits.numpy()
    assert np.abs(together - expected).mean() < 0.15 * np.abs(expected).mean()


@pytest.mark.parametrize("step", ["quantize", "quantize_dynamic", "quantize_weights", "float16", None])
def test_layers_that_share_their_weights_share_them_in_any_precision(
    step: str | None, sentiment_data: Path, tmp_path: Path
) -> None:
    saved("Albert", tmp_path / "parent")
    steps = [{"step": "export"}, *([{"step": step}] if step else [])]
    recipe = Recipe.model_validate({"schema_version": 1, "name": "any", "steps": steps, "budget": {}})
    bundle = compress(str(tmp_path / "parent"), sentiment_data, recipe, tmp_path / "bundle")
    weights = [tensor for tensor in onnx.load_from_string(bundle.model()).graph.initializer if len(tensor.dims) > 1]
    large = [
        (tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in weights if len(tensor.raw_data) >= 1024
    ]
    assert len(set(large)) == len(large) >= 6
    assert bundle.manifest.figures.agreement > 0.9
