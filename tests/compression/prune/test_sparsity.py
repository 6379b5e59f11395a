import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compression.data import read_examples
from compression.errors import RecipeError
from compression.graph.export import export
from compression.graph.fuse import fuse
from compression.measure.evaluate import agreement
from compression.parent.checkpoint import Parent
from compression.parent.classifier import ParentClassifier, predict
from compression.prune.encoder import sublayers
from compression.prune.movement import movement
from compression.prune.sparsity import sparsify
from compression.quantize import calibrate, linears, quantize_linears
from compression.recipe import RecoverStep, SparsifyStep
from compression.steps import feeds_of
from compression.train.distill import recover

SCORES = ("wanda", "magnitude", "movement")


@pytest.fixture(scope="module")
def texts(sentiment_data: Path) -> tuple[str, ...]:
    return read_examples(sentiment_data).single_texts


def step(**options: Any) -> SparsifyStep:
    return SparsifyStep.model_validate({"step": "sparsify", **options})


def weights(model: Parent) -> list[torch.Tensor]:
    return [linear.weight for part in sublayers(model.model) for linear in (*part.inputs, part.output)]


def agreement_with(parent: Parent, model: Parent, texts: tuple[str, ...]) -> float:
    expected, got = (predict(ParentClassifier(one), texts, "Judge") for one in (parent, model))
    return agreement(expected, got, parent.task)


@pytest.mark.parametrize("score", SCORES)
def test_so_many_weights_of_each_row_are_zero_and_the_others_as_they_were_unless_they_moved(
    parent: Parent, texts: tuple[str, ...], score: str
) -> None:
    sparse = sparsify(parent, parent, texts, step(sparsity=0.75, score=score))
    for before, after in zip(weights(parent), weights(sparse), strict=True):
        assert ((after == 0).sum(1) == round(0.75 * after.shape[1])).all()
        assert torch.equal(after[after != 0], before[after != 0]) is (score != "movement")
    assert agreement_with(parent, sparse, texts) > 0.9


@pytest.mark.parametrize("score", SCORES)
def test_two_of_four_stay(parent: Parent, texts: tuple[str, ...], score: str) -> None:
    sparse = sparsify(parent, parent, texts, step(pattern="2:4", score=score))
    assert all((weight.view(-1, 4) != 0).sum(1).eq(2).all() for weight in weights(sparse))
    assert agreement_with(parent, sparse, texts) > 0.9


def test_a_width_that_is_no_multiple_of_four_is_refused(parent: Parent, texts: tuple[str, ...]) -> None:
    narrow = dataclasses.replace(parent, model=copy.deepcopy(parent.model))
    sublayers(narrow.model)[1].keep(range(6))
    with pytest.raises(RecipeError, match="a layer has 6"):
        sparsify(parent, narrow, texts, step(pattern="2:4", score="magnitude"))


def test_movement_makes_what_ought_to_grow_larger_and_what_ought_to_shrink_smaller(
    parent: Parent, texts: tuple[str, ...]
) -> None:
    parent = copy.deepcopy(parent)  # of random weights: each of its linears matters to the answers
    generator = torch.Generator().manual_seed(0)
    for weight in parent.model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.2, generator=generator)
    values = {}
    for times in (0.25, 4.0):
        model = copy.deepcopy(parent)
        sublayers(model.model)[-1].output.weight.data *= times
        before = sublayers(model.model)[-1].output.weight.detach().clone()
        moved = movement(parent, model, texts[:128], lambda score, _: torch.zeros_like(score, dtype=torch.bool), 0.5)
        assert torch.equal(sublayers(model.model)[-1].output.weight, before)
        values[times] = float((moved[-1].abs() - before.abs()).sum())
    assert values[0.25] > 0 > values[4.0]


def test_what_is_zero_stays_zero_in_recovery_and_in_int8(
    parent: Parent, texts: tuple[str, ...], tmp_path: Path
) -> None:
    sparse = sparsify(parent, parent, texts, step(sparsity=0.9))
    graph = fuse(export(sparse, 18))
    activations = calibrate(graph, linears(graph), feeds_of(graph, sparse, texts[:32]))
    teach = RecoverStep(step="recover", epochs=2, learning_rate=1e-3)
    for aware in (None, activations):
        recovered = recover(parent, sparse, texts, texts, teach, tmp_path / str(aware is None), aware)
        for before, after in zip(weights(sparse), weights(recovered), strict=True):
            assert not after[before == 0].any()
            assert (after[before != 0] != before[before != 0]).float().mean() > 0.9
    graph = fuse(export(recovered, 18))
    int8 = quantize_linears(graph, calibrate(graph, linears(graph), feeds_of(graph, recovered, texts[:32])))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    for linear in linears(graph):
        assert not stored[f"{linear.name}_weight_i8"][linear.weight == 0].any()
        if "encoder" in linear.name:
            assert (linear.weight == 0).mean() > 0.88
