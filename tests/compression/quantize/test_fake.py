import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compression.bundle import Logits, softmax
from compression.data import read_examples
from compression.graph.export import export
from compression.parent.checkpoint import Parent
from compression.parent.classifier import ParentClassifier, predict
from compression.quantize import Activation, Range, calibrate, linears, quantize_linears
from compression.quantize.fake import fake_quantized, fake_quantized_weight
from compression.quantize.linear import quantize_weight
from compression.quantize.sensitivity import logits
from compression.recipe import RecoverStep
from compression.steps import feeds_of
from compression.train.distill import recover


@pytest.fixture(scope="module")
def texts(sentiment_data: Path) -> tuple[str, ...]:
    return read_examples(sentiment_data).single_texts


@pytest.fixture(scope="module")
def parent(parent: Parent) -> Parent:
    """Of random weights: each of its linears matters to the answers."""
    result = copy.deepcopy(parent)
    generator = torch.Generator().manual_seed(0)
    for weight in result.model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.2, generator=generator)
    return result


@pytest.fixture(scope="module")
def harsh(parent: Parent, texts: tuple[str, ...]) -> dict[str, Activation]:
    """What calibration chose, made so bad that int8 changes the answers: clipped, smoothed for no reason."""
    graph = export(parent, 18)
    found = calibrate(graph, linears(graph), feeds_of(graph, parent, texts[:64]))
    return {
        tensor: replace(
            activation,
            range=Range(activation.range.low / 3, activation.range.high / 3),
            smoothing=np.geomspace(0.2, 5, 64, dtype=np.float32) if "LayerNorm" in tensor else None,
            shifts={
                name: shift + np.linspace(-0.3, 0.3, len(shift), dtype=np.float32)
                for name, shift in activation.shifts.items()
            },
        )
        for tensor, activation in found.items()
    }


def answers(model: Parent, texts: tuple[str, ...]) -> Logits:
    return predict(ParentClassifier(model), texts, "Judge")


def test_the_model_computes_as_its_int8_graph_and_afterwards_as_before(
    parent: Parent, texts: tuple[str, ...], harsh: dict[str, Activation]
) -> None:
    graph = export(parent, 18)
    int8 = logits(quantize_linears(graph, harsh), feeds_of(graph, parent, texts[:64]))
    before = answers(parent, texts[:64])
    with fake_quantized(parent.model, harsh):
        fake = answers(parent, texts[:64])
    assert np.abs(before - int8).mean() > 0.2
    assert np.abs(fake - int8).mean() < 0.01
    np.testing.assert_array_equal(answers(parent, texts[:64]), before)


def test_weights_are_rounded_as_the_step_rounds_them_and_gradients_pass() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    with torch.no_grad():
        weight[3] = 0
        weight[5] *= 100
    rounded = fake_quantized_weight(weight)
    expected = quantize_weight(weight.detach().numpy().T).round_trip.T
    np.testing.assert_allclose(rounded.detach().numpy(), expected, rtol=1e-6)
    (gradient,) = torch.autograd.grad(rounded.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight))


def test_recovery_makes_up_for_int8_and_gives_a_float_model(
    parent: Parent, texts: tuple[str, ...], harsh: dict[str, Activation], tmp_path: Path
) -> None:
    step = RecoverStep(step="recover", epochs=4, learning_rate=1e-3, patience=4)
    expected = np.log(softmax(answers(parent, texts)))
    damage = {}
    for name, activations in (("plain", None), ("aware", harsh)):
        recovered = recover(parent, parent, texts, texts, step, tmp_path / name, activations)
        assert recovered.model.state_dict().keys() == parent.model.state_dict().keys()
        linears_inside = [module for module in recovered.model.modules() if isinstance(module, nn.Linear)]
        assert not any("forward" in vars(linear) for linear in linears_inside)
        with fake_quantized(recovered.model, harsh):
            got = np.log(softmax(answers(recovered, texts)))
        damage[name] = (np.exp(expected) * (expected - got)).sum(axis=1).mean()
    assert damage["aware"] < 0.8 * damage["plain"]
