"""Invariants of the methods that pruning is compared with, on a tiny parent and a cost that is arithmetic."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from benchmarks.pruning.elimination import choose_widths, cost_tables, eliminate
from benchmarks.pruning.kprune import above_threshold
from benchmarks.pruning.methods import METHODS, Costs
from benchmarks.pruning.run import RESULTS, calibration_texts, divergence, judge
from benchmarks.pruning.table import markdown
from benchmarks.pruning.units import know
from compression.data import Examples, read_examples
from compression.parent.checkpoint import Parent
from compression.parent.classifier import ParentClassifier, predict
from compression.prune.encoder import Shape, sublayers
from compression.prune.masks import Line
from compression.prune.regression import Moments
from compression.prune.upwards import Seen, see
from tests.compression.architectures import classifier

BATCH = {
    "input_ids": torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def arithmetic_cost(shape: Shape, widths: Sequence[int]) -> dict[int, float]:
    """A sublayer costs what it multiplies, and a fixed part."""
    return {width: 500.0 + width * shape.unit * shape.hidden * shape.matrices for width in widths}


@pytest.fixture(scope="module")
def examples(sentiment_data: Path) -> Examples:
    return read_examples(sentiment_data)


@pytest.fixture(scope="module")
def seen(parent: Parent, examples: Examples) -> Seen:
    return see(parent, examples.texts)


@pytest.fixture(scope="module")
def costs(parent: Parent) -> Costs:
    return cost_tables(parent.model, arithmetic_cost)


@pytest.mark.parametrize("method", METHODS)
def test_a_pruned_model_stays_within_its_share_and_near_the_parent(
    method: str, parent: Parent, seen: Seen, costs: Costs, examples: Examples
) -> None:
    before = copy.deepcopy(parent.model.state_dict())
    expected = predict(ParentClassifier(parent), examples.texts, "Judge")
    row = judge(parent, METHODS[method](parent.model, seen, costs)(0.5), costs, expected, examples)
    assert row["cost"] <= 0.5
    assert row["agreement"] > 0.95
    assert all(torch.equal(tensor, before[name]) for name, tensor in parent.model.state_dict().items())


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"elimination"}))  # drops what does no good
def test_nothing_goes_where_all_may_stay(method: str, parent: Parent, seen: Seen, costs: Costs) -> None:
    model = METHODS[method](parent.model, seen, costs)(1.0)
    texts = ("a great service", "the card is awful and slow")
    assert [part.units for part in sublayers(model)] == [part.units for part in sublayers(parent.model)]
    one, other = (logits_of(model, parent, texts) for model in (model, parent.model))
    np.testing.assert_allclose(one, other, atol=0.05)


def logits_of(model: PreTrainedModel, parent: Parent, texts: Sequence[str]) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(model(**parent.tokenizer(list(texts), padding=True, return_tensors="pt")).logits)


def test_later_sublayers_are_measured_alone_as_they_are_together() -> None:
    model = classifier("bert").eval()
    for one, other in zip(know(model, [BATCH], 2), know(model, [BATCH])[2:], strict=True):
        torch.testing.assert_close(one.gradients, other.gradients)
        torch.testing.assert_close(one.representation, other.representation)


def test_a_unit_is_as_large_as_what_it_adds() -> None:
    model = classifier("bert").eval()
    for at, part in enumerate(sublayers(model)[:2]):
        before = know(model, [BATCH])[at].representation
        part.output.weight.data[:, part.columns([1])] *= 3
        expected = torch.ones(part.units).index_fill(0, torch.tensor(1), 9.0)
        torch.testing.assert_close(know(model, [BATCH])[at].representation / before, expected)


def test_one_threshold_holds_for_all_sublayers() -> None:
    scores = [torch.tensor([9.0, 5.0, 1.0]), torch.tensor([8.0, 7.0, 6.0]), torch.tensor([0.3, 0.2, 0.1])]
    lines = [Line(1.0, 2.0), Line(1.0, 2.0), Line(1.0, 2.0)]
    assert above_threshold(scores, lines, 3 + 2 * 6) == [[0, 1], [0, 1, 2], [0]]
    assert above_threshold(scores, lines, 3 + 2 * 5 + 1.9) == [[0], [0, 1, 2], [0]]
    assert above_threshold(scores, lines, 3 + 2 * 9) == [[0, 1, 2]] * 3


def moments_of(units: np.ndarray, target: np.ndarray) -> Moments:
    moments = Moments.zeros(units.shape[1], target.shape[1])
    moments.add(torch.tensor(units), torch.tensor(target), torch.ones(len(units), dtype=torch.float64))
    return moments


def test_units_that_others_can_stand_in_for_go_first() -> None:
    random = np.random.default_rng(0)
    units = random.normal(size=(500, 6))
    units[:, 4] = units[:, 0] + units[:, 1]  # can be made of two others
    units[:, 5] *= 0.01  # hardly there
    target = units @ random.normal(size=(6, 3)) + 2.0
    kept = eliminate(moments_of(units, target), 1, [4, 6])
    assert kept[6] == tuple(range(6))
    assert 5 not in kept[4]
    assert len({0, 1, 4} & set(kept[4])) == 2


def test_elimination_finds_the_best_pair_of_heads() -> None:
    random = np.random.default_rng(1)
    units = random.normal(size=(400, 8))
    weight = random.normal(size=(8, 3))
    weight[2:4] *= 0.1
    weight[6:] *= 0.01
    assert eliminate(moments_of(units, units @ weight), 2, [2])[2] == (0, 2)


def test_the_cheapest_divergence_within_the_time_is_chosen() -> None:
    divergences = [{1: 0.9, 2: 0.1, 4: 0.0}, {1: 0.01, 2: 0.005, 4: 0.0}]
    costs = [{1: 1.0, 2: 2.0, 4: 4.0}] * 2
    assert choose_widths(divergences, costs, 0.4) == [2, 1]
    assert choose_widths(divergences, costs, 0.99) == [4, 2]
    assert choose_widths(divergences, costs, 0.01) == [1, 1]  # the least there is


def test_texts_that_judge_do_not_calibrate() -> None:
    train = [f"this is text number {n}" for n in range(50)] + ["too short"]
    drawn = calibration_texts(train, train[:10], 0)
    assert set(drawn) == set(train[10:50])
    assert drawn != calibration_texts(train, train[:10], 1)


def test_divergence_is_from_the_parent() -> None:
    expected, logits = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    assert divergence(expected, logits) == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))
    assert divergence(logits, logits) == 0


def test_the_committed_table_is_as_the_results_are() -> None:
    assert (RESULTS.parent / "README.md").read_text("utf-8") == markdown(RESULTS)
