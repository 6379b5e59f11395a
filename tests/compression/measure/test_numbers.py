"""Figures of numbers, beside those of scipy."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from scipy import stats

from compression.bundle import Number
from compression.errors import VerificationError
from compression.measure.numbers import compare_numbers, mae, number_figures, pearson, rmse, spearman
from compression.measure.verify import require_sane


def test_figures_are_those_of_scipy_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 6, 40).astype(float)  # with ties
    given = truth + rng.normal(0, 1, 40).round(1)
    drawn = rng.multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    for number, draw in enumerate(drawn.astype(int)):
        one, other = np.repeat(truth, draw), np.repeat(given, draw)
        assert spearman(drawn, truth, given)[number] == pytest.approx(stats.spearmanr(one, other)[0])
        assert pearson(drawn, truth, given)[number] == pytest.approx(stats.pearsonr(one, other)[0])
        assert mae(drawn, truth, given)[number] == pytest.approx(np.abs(one - other).mean())
        assert rmse(drawn, truth, given)[number] == pytest.approx(np.sqrt(np.square(one - other).mean()))


def test_differences_are_those_of_the_plain_figures() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 300)
    parent, bundle = (truth + rng.normal(0, spread, 300) for spread in (0.3, 0.6))
    differences = compare_numbers(truth, parent, bundle)
    one, other = (number_figures(truth, given) for given in (parent, bundle))
    assert differences.mae.value == pytest.approx(other.mae.value - one.mae.value)
    assert 0 < differences.mae.low < differences.mae.value < differences.mae.high
    assert differences.spearman is not None
    assert differences.spearman.high < 0


def test_no_correlation_of_what_is_always_the_same() -> None:
    same = np.full(5, 2.0)
    figures = number_figures(np.arange(5.0), same)
    assert figures.spearman is None
    assert figures.mae.value == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("given", "collapsed"),
    [(lambda x: x, False), (lambda x: 0 * x, True), (lambda x: x[::-1] * 0.5, True), (lambda x: x + 5, False)],
)
def test_numbers_that_hardly_follow_the_parents_are_refused(given: Any, collapsed: bool) -> None:
    expected = np.arange(20, dtype=np.float32)[:, None]
    task = Number(("number",), "none", float(expected.std()))
    refused = pytest.raises(VerificationError, match="hardly follow the parent's") if collapsed else nullcontext()
    with refused:
        require_sane(expected, given(expected), task)
