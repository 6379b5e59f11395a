"""How logits become probabilities and labels, for each kind of classifier."""

import numpy as np
import pytest
import torch

from compression.bundle import SeveralLabels, SingleLabel
from compression.bundle.task import sigmoid

LABELS = ("bill", "card", "fee")
ROWS = np.array([[2.0, -1.0, 0.0], [-3.0, -2.0, -4.0], [9.0, 8.0, 7.0]], np.float32)


def test_one_label_is_the_most_probable_one() -> None:
    task = SingleLabel(LABELS)
    assert [task.named(answer) for answer in task.decide(ROWS)] == [("bill",), ("card",), ("bill",)]
    assert task.scores(ROWS, 2.0) == pytest.approx(torch.tensor(ROWS / 2).softmax(-1).numpy(), abs=1e-6)


def test_several_labels_are_those_at_or_over_their_thresholds() -> None:
    task = SeveralLabels(LABELS, (0.9, 0.1, 0.5))
    assert [task.named(answer) for answer in task.decide(ROWS)] == [("card", "fee"), ("card",), LABELS]
    assert SeveralLabels.of(LABELS).named(SeveralLabels.of(LABELS).decide(ROWS)[1]) == ()
    assert task.scores(ROWS, 2.0) == pytest.approx(torch.tensor(ROWS / 2).sigmoid().numpy(), abs=1e-6)


def test_a_temperature_changes_no_decision() -> None:
    task = SeveralLabels(LABELS, (0.9, 0.1, 0.5))
    rows = np.random.default_rng(0).normal(0, 3, (500, 3)).astype(np.float32)
    assert (task.at(2.5).decide(rows / 2.5) == task.decide(rows)).all()
    assert (SeveralLabels.of(LABELS).decide(rows) != task.decide(rows)).any()


def test_the_confidence_in_an_answer_is_that_exactly_its_labels_are_right() -> None:
    one, several = SingleLabel(LABELS), SeveralLabels(LABELS, (0.9, 0.1, 0.5))
    assert one.answer_confidence(ROWS, 2.0) == pytest.approx(one.scores(ROWS, 2.0).max(axis=1))
    bill, card, fee = several.scores(ROWS[0], 2.0)  # it gets card and fee
    assert several.answer_confidence(ROWS, 2.0)[0] == pytest.approx((1 - bill) * card * fee)


def test_texts_are_alike_where_all_their_labels_are() -> None:
    other = ROWS + np.array([[0, 0, 0], [0, 9, 0], [-1, 0, 0]], np.float32)
    assert SeveralLabels.of(LABELS).same(ROWS, other).tolist() == [True, False, True]
    assert SingleLabel(LABELS).same(ROWS, other).tolist() == [True, True, True]


@pytest.mark.parametrize("task", [SingleLabel(LABELS), SeveralLabels(LABELS, (0.9, 0.1, 0.5))])
def test_logits_and_probabilities_are_two_words_for_one_thing(task: SingleLabel | SeveralLabels) -> None:
    assert task.scores(task.logits_of(task.scores(ROWS))) == pytest.approx(task.scores(ROWS))


def test_the_loss_is_that_of_the_field() -> None:
    truth = np.array([[True, False, False], [False, True, True], [False, False, True]])
    rows, expected = torch.tensor(ROWS / 1.5), torch.tensor(truth).float()
    bernoullis = torch.nn.functional.binary_cross_entropy_with_logits(rows, expected, reduction="sum") / len(rows)
    assert SeveralLabels.of(LABELS).loss(ROWS, truth, 1.5) == pytest.approx(float(bernoullis), rel=1e-5)
    one = np.eye(3, dtype=np.bool_)
    categories = torch.nn.functional.cross_entropy(rows, torch.arange(3))
    assert SingleLabel(LABELS).loss(ROWS, one, 1.5) == pytest.approx(float(categories), rel=1e-5)


def test_no_logit_overflows() -> None:
    assert sigmoid(np.array([-1e4, 0, 1e4], np.float32)).tolist() == [0, 0.5, 1]
