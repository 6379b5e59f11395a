"""Invariants of the methods that pruning is compared with, on a tiny parent and a cost that is arithmetic."""

import copy
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from benchmarks.pruning.kprune import above_threshold
from benchmarks.pruning.kwon import rearrange, search
from benchmarks.pruning.methods import METHODS, Costs
from benchmarks.pruning.run import RESULTS, calibration_texts, divergence, judge
from benchmarks.pruning.table import markdown
from benchmarks.pruning.units import Knowledge, Line, know
from compression.checkpoint import Parent
from compression.classifier import ParentClassifier, predict
from compression.data import Examples, read_examples
from compression.prune.encoder import sublayers
from compression.prune.structure import cost_tables
from compression.prune.upwards import Seen, see
from tests.compression.architectures import classifier

BATCH = {
    "input_ids": torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


def arithmetic_cost(kind: str, hidden: int, unit: int, widths: Sequence[int]) -> dict[int, float]:
    """A sublayer costs what it multiplies, and a fixed part."""
    return {width: 500.0 + width * unit * hidden * (4 if kind == "attention" else 2) for width in widths}


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


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"Lathe"}))  # which drops what does no good all the same
def test_nothing_goes_where_all_may_stay(method: str, parent: Parent, seen: Seen, costs: Costs) -> None:
    model = METHODS[method](parent.model, seen, costs)(1.0)
    texts = ("a great service", "the card is awful and slow")
    assert [part.units for part in sublayers(model)] == [part.units for part in sublayers(parent.model)]
    one, other = (logits_of(model, parent, texts) for model in (model, parent.model))
    np.testing.assert_allclose(one, other, atol=0.05)


def logits_of(model: PreTrainedModel, parent: Parent, texts: Sequence[str]) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(model(**parent.tokenizer(list(texts), padding=True, return_tensors="pt")).logits)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_fisher_information_is_the_curvature_of_the_divergence(kind: str) -> None:
    model = classifier(kind).eval()
    step = 1e-2
    for at, known in enumerate(know(model, [BATCH])):
        for unit in (0, 3):
            part = sublayers(model)[at]
            weight = part.output.weight.data.clone()
            expected = torch.stack([logits.log_softmax(-1) for logits in forward(model)])
            part.output.weight.data[:, part.columns([unit])] *= 1 - step
            moved = torch.stack([logits.log_softmax(-1) for logits in forward(model)])
            part.output.weight.data = weight
            moves = (expected.exp() * (expected - moved)).sum(-1).mean()
            assert float(known.fisher[unit]) * step**2 / 2 == pytest.approx(float(moves), rel=0.2)


def forward(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.double()(**BATCH).logits  # type: ignore[no-any-return]


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


def known_of(*fisher: float) -> Knowledge:
    return Knowledge(torch.tensor([fisher]).sqrt(), torch.zeros(len(fisher)))


def test_the_search_gives_up_as_little_information_as_the_time_allows() -> None:
    known = [known_of(9, 4, 3), known_of(5, 1, 1, 1), known_of(8, 2, 1), known_of(6, 2, 1.5, 0)]
    kinds = ["attention", "ffn"] * 2
    lines = [Line(1, 4), Line(1, 1)] * 2
    # 19 of 36 may stay, of which the fixed parts and the best units take 14: a head and a neuron, or five neurons.
    assert search(known, lines, kinds, 19 / 36) == [[0], [0, 1, 2, 3], [0], [0, 1, 2]]
    known[0] = known_of(9, 8, 3)
    assert search(known, lines, kinds, 19 / 36) == [[0, 1], [0], [0], [0, 1]]


def test_rearrangement_sees_that_two_units_make_up_for_each_other() -> None:
    signal = torch.randn(200, generator=torch.Generator().manual_seed(0))
    other = torch.randn(200, generator=torch.Generator().manual_seed(1))
    # Without the first two nothing changes; the third is the least of all when it goes alone.
    gradients = torch.stack([signal, -signal, 0.5 * other, 2 * other], dim=1)
    assert rearrange(gradients, [0, 3]) == [2, 3]
    losses = {
        pair: float(gradients[:, [unit for unit in range(4) if unit not in pair]].sum(1).square().sum())
        for pair in combinations(range(4), 2)
    }
    assert min(losses, key=losses.__getitem__) == (2, 3)
    assert rearrange(gradients, range(4)) == [0, 1, 2, 3]


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
