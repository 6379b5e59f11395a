import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from compression.data import read_examples
from compression.errors import CheckpointError, RecipeError
from compression.measure.evaluate import agreement
from compression.parent.checkpoint import Parent
from compression.parent.classifier import ParentClassifier, predict
from compression.prune.encoder import Shape, encoder_layers, remove_layer, sublayers
from compression.prune.layers import drop_layers
from compression.prune.observe import tapped
from compression.prune.regression import Moments, refit
from compression.prune.structure import FFN_MULTIPLE, prune_structure
from compression.step_cache import fit_to
from tests.compression.architectures import classifier

BATCH = {
    "input_ids": torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def arithmetic_cost(shape: Shape, widths: Sequence[int]) -> dict[int, float]:
    """A sublayer costs what it multiplies."""
    return {width: float(width * shape.unit * shape.hidden * shape.matrices) for width in widths}


@pytest.fixture(scope="module")
def texts(sentiment_data: Path) -> tuple[str, ...]:
    return read_examples(sentiment_data).single_texts


def small(kind: str) -> PreTrainedModel:
    return classifier(kind).eval()


@pytest.mark.parametrize("kind", ["bert", "electra", "roberta", "deberta-v2", "distilbert", "modernbert"])
def test_a_removed_unit_is_as_good_as_one_that_says_nothing(kind: str) -> None:
    model, silent = small(kind), small(kind)
    for at, kept in ((0, [0, 2, 3]), (1, [*range(8, 40)]), (2, [1])):
        part, other = sublayers(model)[at], sublayers(silent)[at]
        gone = [unit for unit in range(part.units) if unit not in kept]
        other.output.weight.data[:, other.columns(gone)] = 0
        part.keep(kept)
        assert part.output.in_features == len(kept) * part.unit
        assert sum(linear.out_features for linear in part.inputs) == len(kept) * part.unit * (part.shape.matrices - 1)
    with torch.inference_mode():
        torch.testing.assert_close(model(**BATCH).logits, silent(**BATCH).logits)


@pytest.mark.parametrize("kind", ["bert", "electra", "roberta", "deberta-v2", "distilbert"])
def test_a_removed_layer_is_gone_and_counted(kind: str) -> None:
    model = small(kind)
    remove_layer(model, 0)
    assert len(encoder_layers(model)) == model.config.num_hidden_layers == 1
    assert model(**BATCH).logits.shape == (2, 2)


def test_layers_of_several_kinds_are_not_removed(parent: Parent) -> None:
    with pytest.raises(CheckpointError, match=r"modernbert .* layers of several kinds, .*leave out drop_layers"):
        drop_layers(dataclasses.replace(parent, model=small("modernbert")), ["good"], 1)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_pruned_model_is_that_which_was_kept(kind: str) -> None:
    """As the step cache reads it back: its weights into a copy of the parent."""
    pruned, again = small(kind), small(kind)
    for part, units in zip(sublayers(pruned), ([0, 2], range(8, 40), [1], range(16)), strict=True):
        refitted = torch.randn(32, len(part.columns(units))), torch.randn(32)
        part.keep(units, refitted)
    fit_to(again, pruned.state_dict())
    again.load_state_dict(pruned.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(**BATCH).logits, pruned(**BATCH).logits)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_the_sum_is_what_the_next_sublayer_begins_with(kind: str) -> None:
    model = small(kind)
    with tapped(sublayers(model)) as taps, torch.inference_mode():
        model(**BATCH)
    for one, following in itertools.pairwise(taps):
        begins = following.summed - following.output
        normalised = torch.nn.functional.layer_norm(one.summed, one.summed.shape[-1:])
        torch.testing.assert_close(begins, one.summed if kind == "modernbert" else normalised)


def test_an_architecture_that_is_not_known_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"mpnet models cannot be pruned, only bert, .*recipe safe"):
        sublayers(small("mpnet"))


def moments_of(units: np.ndarray, target: np.ndarray) -> Moments:
    moments = Moments.zeros(units.shape[1], target.shape[1])
    moments.add(torch.tensor(units), torch.tensor(target), torch.ones(len(units), dtype=torch.float64))
    return moments


def test_refit_makes_up_for_what_is_gone() -> None:
    random = np.random.default_rng(2)
    units = random.normal(size=(600, 4)) + 1.0
    units[:, 3] = 0.5 * units[:, 0] - units[:, 1]
    weight = torch.tensor(random.normal(size=(4, 3)))
    target = units @ weight.numpy() + 0.7
    parts = moments_of(units[:500], target[:500]), moments_of(units[500:], target[500:])
    new = refit(weight.T, torch.full((3,), 0.7), [0, 1, 2], 1, *parts)
    assert new.error < 1e-5
    assert new.weight.shape == (3, 3)


def test_the_old_weights_stay_where_no_fit_is_better() -> None:
    random = np.random.default_rng(3)
    weight = random.normal(size=(4, 3))
    held_out = random.normal(size=(50, 4))
    noise = moments_of(random.normal(size=(8, 4)), 9 * random.normal(size=(8, 3)))  # says nothing of the layer
    new = refit(torch.tensor(weight.T), torch.zeros(3), range(4), 1, noise, moments_of(held_out, held_out @ weight))
    np.testing.assert_allclose(new.weight.numpy(), weight.T, rtol=1e-5)
    assert new.error < 1e-9


def test_pruning_keeps_the_share_and_most_answers(parent: Parent, texts: tuple[str, ...]) -> None:
    before = {name: tensor.clone() for name, tensor in parent.model.state_dict().items()}
    pruned = prune_structure(parent, texts, 0.5, arithmetic_cost)
    cost = sum(part.units * part.unit * (4 if part.kind == "attention" else 2) for part in sublayers(pruned.model))
    full = sum(part.units * part.unit * (4 if part.kind == "attention" else 2) for part in sublayers(parent.model))
    assert cost <= 0.5 * full
    assert all(part.units % FFN_MULTIPLE == 0 for part in sublayers(pruned.model) if part.kind == "ffn")
    expected, got = (predict(ParentClassifier(model), texts, "Judge") for model in (parent, pruned))
    assert agreement(expected, got, parent.task) > 0.95
    for name, tensor in parent.model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"the parent's {name} has changed"


def test_dropping_layers_keeps_the_one_that_matters(parent: Parent, texts: tuple[str, ...]) -> None:
    pruned = drop_layers(parent, texts, 1)
    assert len(encoder_layers(pruned.model)) == 1
    assert len(encoder_layers(parent.model)) == 2
    expected, got = (predict(ParentClassifier(model), texts, "Judge") for model in (parent, pruned))
    assert agreement(expected, got, parent.task) > 0.9


def test_dropping_every_layer_is_refused(parent: Parent, texts: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"count is 2, but .* has 2 layers"):
        drop_layers(parent, texts, 2)
