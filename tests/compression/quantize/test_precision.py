"""Precisions other than static int8, on the tiny trained classifier."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from compression.bundle.runtime import session_options
from compression.errors import RecipeError
from compression.graph.export import export
from compression.parent.checkpoint import Parent
from compression.quantize import (
    Feed,
    Range,
    calibrate,
    linears,
    quantize_dynamic,
    quantize_linears,
    quantize_weights,
    to_float16,
)
from compression.quantize.sensitivity import sensitive_layers

random = np.random.default_rng(0)
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def feed(lengths: Sequence[int], longest: int) -> Feed:
    """Random tokens, padded on the right."""
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(sum(lengths)).integers(5, 60, mask.shape) * mask
    return dict(zip(NAMES, (ids, mask, np.zeros_like(mask)), strict=True))


def alone(batch: Feed, row: int) -> Feed:
    """One text of a batch without its padding."""
    return {name: values[row : row + 1, : batch["attention_mask"][row].sum()] for name, values in batch.items()}


TEXTS = [feed([length], length) for length in (5, 9, 12, 20) * 4]
BATCH = feed([3, 17, 8, 30], 30)


@pytest.fixture(scope="module")
def model(parent: Parent) -> onnx.ModelProto:
    return export(parent, 18)


def logits(model: onnx.ModelProto, *feeds: Feed) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(0), ["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])


def error(changed: onnx.ModelProto, model: onnx.ModelProto) -> float:
    exact = logits(model, *TEXTS)
    return float(np.abs(logits(changed, *TEXTS) - exact).mean() / np.abs(exact).mean())


def test_dynamic_int8_answers_nearly_the_same_and_keeps_the_head(model: onnx.ModelProto) -> None:
    result = quantize_dynamic(model)
    assert 0 < error(result, model) < 0.05
    operators = [node.op_type for node in result.graph.node]
    assert operators.count("MatMulInteger") == len(linears(model))
    assert len(result.SerializeToString()) < 0.6 * len(model.SerializeToString())


@pytest.mark.parametrize(("bits", "largest"), [(8, 0.01), (4, 0.2)])
def test_weights_alone_are_batch_exact(model: onnx.ModelProto, bits: int, largest: float) -> None:
    result = quantize_weights(model, bits, block_size=32)  # type: ignore[arg-type]
    assert [node.op_type for node in result.graph.node].count("MatMulNBits") == len(linears(model))
    assert 0 < error(result, model) < largest
    together = logits(result, BATCH)
    assert together == pytest.approx(logits(result, *(alone(BATCH, row) for row in range(4))), abs=1e-5)


def test_inputs_that_fill_no_whole_block_are_padded(model: onnx.ModelProto) -> None:
    assert 0 < error(quantize_weights(model, 8, block_size=256), model) < 0.02


@pytest.mark.parametrize("size", [0, 8, 48])
def test_a_block_size_that_the_kernel_cannot_take_is_refused(model: onnx.ModelProto, size: int) -> None:
    with pytest.raises(RecipeError, match=f"block_size: {size} "):
        quantize_weights(model, 8, size)


def test_float16_answers_nearly_the_same_with_padding(model: onnx.ModelProto) -> None:
    result = to_float16(model)
    assert len(result.SerializeToString()) < 0.6 * len(model.SerializeToString())
    assert 0 < error(result, model) < 0.01
    assert logits(result, BATCH) == pytest.approx(logits(model, BATCH), abs=0.02)


def test_the_mask_of_float16_leaves_room_for_the_scores(model: onnx.ModelProto) -> None:
    """-65504 and a score of -20 is -inf in float16, and a softmax over nothing else is NaN."""
    constants = [onnx.numpy_helper.to_array(tensor) for tensor in to_float16(model).graph.initializer]
    halves = [values for values in constants if values.dtype == np.float16]
    assert min(float(values.min()) for values in halves) == -1e4
    masked = {**TEXTS[0], "attention_mask": np.zeros_like(TEXTS[0]["attention_mask"])}
    assert np.isfinite(logits(to_float16(model), masked)).all()


def test_what_is_kept_in_float32_keeps_its_weights(model: onnx.ModelProto) -> None:
    def halves(result: onnx.ModelProto) -> set[str]:
        return {
            node.name for node in result.graph.node for name in node.input if name in types and types[name] == "float16"
        }

    result = to_float16(model, keep_float32=["layer.0/output"])
    types = {tensor.name: onnx.numpy_helper.to_array(tensor).dtype.name for tensor in result.graph.initializer}
    assert not any("layer.0/output/dense" in name for name in halves(result))
    assert any("layer.1/output/dense" in name for name in halves(result))
    assert 0 < error(result, model) < 0.01


def test_a_pattern_that_keeps_nothing_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(RecipeError, match=r"'layer\.7' is part of no node"):
        to_float16(model, keep_float32=["layer.0", "layer.7"])


def test_the_layer_whose_range_fits_worst_is_the_most_sensitive(model: onnx.ModelProto) -> None:
    chosen = calibrate(model, linears(model), TEXTS)
    layer = next(layer for layer in linears(model) if "layer.0/output/dense" in layer.name)
    chosen[layer.input] = replace(chosen[layer.input], range=Range(-1000, 1000))
    ranked = sensitive_layers(model, chosen, TEXTS)
    assert ranked[0][0] == layer.name
    assert [error for _, error in ranked] == sorted((error for _, error in ranked), reverse=True)
    assert len(ranked) == len(linears(model))


def test_sensitivity_is_the_error_of_that_layer_alone(model: onnx.ModelProto) -> None:
    layers = linears(model)[:1]
    chosen = calibrate(model, layers, TEXTS)
    changed = logits(quantize_linears(model, chosen), *TEXTS) - logits(model, *TEXTS)
    ((name, error),) = sensitive_layers(model, chosen, TEXTS)
    assert name == layers[0].name
    assert error == pytest.approx(np.sqrt((changed**2).mean()), rel=0.1)
