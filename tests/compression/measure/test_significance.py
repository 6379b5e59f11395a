import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import f1_score

from compression.bundle import Significance
from compression.measure.significance import compare_answers

Answers = npt.NDArray[np.intp]  # (texts,) index of a label


def compare(truth: Answers, parent: Answers, bundle: Answers, seed: int = 0) -> Significance:
    labels = 1 + max(truth.max(), parent.max(), bundle.max())
    expected, before, after = (one[:, None] == np.arange(labels) for one in (truth, parent, bundle))
    return compare_answers(expected, before, after, seed)


def answers(truth: Answers, accuracy: float, labels: int, rng: np.random.Generator) -> Answers:
    """Right with this probability, else any label."""
    return np.where(rng.random(len(truth)) < accuracy, truth, rng.integers(0, labels, len(truth)))


def macro_f1(truth: Answers, answered: Answers) -> float:
    return float(f1_score(truth, answered, average="macro", zero_division=0))


@pytest.mark.parametrize("labels", [2, 5, 77])
def test_differences_are_those_of_the_plain_figures(labels: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, labels, 600)
    parent, bundle = answers(truth, 0.9, labels, rng), answers(truth, 0.85, labels, rng)
    result = compare(truth, parent, bundle)
    assert result.accuracy.value == pytest.approx((bundle == truth).mean() - (parent == truth).mean())
    assert result.macro_f1.value == pytest.approx(macro_f1(truth, bundle) - macro_f1(truth, parent))


def test_interval_is_that_of_a_bootstrap_over_single_texts() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 400)
    parent, bundle = answers(truth, 0.9, 3, rng), answers(truth, 0.8, 3, rng)
    result = compare(truth, parent, bundle)
    accuracies, f1s = [], []
    for _ in range(1500):
        rows = rng.integers(0, 400, 400)
        accuracies.append((bundle[rows] == truth[rows]).mean() - (parent[rows] == truth[rows]).mean())
        f1s.append(macro_f1(truth[rows], bundle[rows]) - macro_f1(truth[rows], parent[rows]))
    for difference, plain in ((result.accuracy, accuracies), (result.macro_f1, f1s)):
        low, high = np.quantile(plain, (0.025, 0.975))
        assert difference.low == pytest.approx(low, abs=0.01)
        assert difference.high == pytest.approx(high, abs=0.01)
        assert difference.low < difference.value < difference.high


def test_the_interval_is_paired() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 1000)
    parent = answers(truth, 0.6, 2, rng)
    bundle = parent.copy()
    bundle[:4] = 1 - bundle[:4]
    result = compare(truth, parent, bundle)  # two unpaired samples of 80 % would differ by 3.5 points
    assert result.accuracy.high - result.accuracy.low < 0.01


def test_mcnemar_counts_only_where_one_alone_is_right() -> None:
    truth = np.zeros(100, np.intp)
    parent, bundle = truth.copy(), truth.copy()
    bundle[:9] = 1
    parent[9:10] = 1
    parent[10:40] = bundle[10:40] = 1
    result = compare(truth, parent, bundle)
    assert (result.parent_only, result.bundle_only) == (9, 1)
    assert result.mcnemar_p == pytest.approx(2 * (1 + 10) / 2**10)


def test_equal_answers_differ_by_nothing() -> None:
    truth = np.array([0, 1, 1])
    result = compare(truth, truth, truth)
    assert (result.accuracy.value, result.accuracy.low, result.accuracy.high) == (0, 0, 0)
    assert result.mcnemar_p == 1


def test_the_seed_decides_the_interval() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 77, 3000)
    parent, bundle = answers(truth, 0.9, 77, rng), answers(truth, 0.8, 77, rng)
    assert compare(truth, parent, bundle, seed=1) == compare(truth, parent, bundle, seed=1)
    assert compare(truth, parent, bundle, seed=1) != compare(truth, parent, bundle, seed=2)


def test_a_label_that_never_occurs_counts_for_nothing() -> None:
    truth, parent, bundle = (np.array(row) for row in ([0, 0, 9, 9], [0, 0, 9, 9], [0, 9, 9, 9]))
    result = compare(truth, parent, bundle)
    assert result.macro_f1.value == pytest.approx(macro_f1(truth, bundle) - 1)
