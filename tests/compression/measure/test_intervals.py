import pytest
from scipy.stats import binomtest

from compression.measure.intervals import newcombe, wilson


@pytest.mark.parametrize(("agreed", "texts"), [(10, 10), (898, 910), (0, 7)])
def test_the_interval_holds_the_rates_that_a_score_test_keeps(agreed: int, texts: int) -> None:
    low, high = wilson(agreed, texts)
    assert 0 <= low <= agreed / texts <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:  # there the observed rate lies 1.96 standard errors off
        assert abs(agreed / texts - bound) / (bound * (1 - bound) / texts) ** 0.5 == pytest.approx(1.96, abs=1e-3)


def test_a_fraction_of_few_texts_is_uncertain_even_where_all_agree() -> None:
    assert wilson(10, 10)[0] < 0.75
    assert wilson(1000, 1000)[0] > 0.996


@pytest.mark.parametrize(("agreed", "texts"), [(0, 7), (3, 7), (898, 910), (10, 10)])
def test_the_interval_is_that_of_scipy(agreed: int, texts: int) -> None:
    expected = binomtest(agreed, texts).proportion_ci(method="wilson")
    assert wilson(agreed, texts) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_a_difference_holds_it_and_is_as_wide_as_the_texts_are_few() -> None:
    low, high = newcombe(48, 56, 70)
    assert low < 8 / 70 < high
    assert newcombe(56, 48, 70) == pytest.approx((-high, -low))
    assert newcombe(480, 560, 700)[0] > low
    assert newcombe(10, 10, 10) == pytest.approx((-0.2775, 0.2775), abs=1e-4)  # Wilson's for all of ten
