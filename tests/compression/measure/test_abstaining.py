import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.bundle import AbstainOptions, SingleLabel
from compression.data import Examples
from compression.measure.abstaining import auroc, choose_abstention, judge_abstention, risks, why_no_abstention

TASK = SingleLabel(("no", "yes"))
Answered = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]  # how sure, and whether right


def as_arrays(answers: list[tuple[float, bool]]) -> Answered:
    return np.array([sure for sure, _ in answers]), np.array([right for _, right in answers], np.bool_)


def drawn(texts: int, seed: int) -> Answered:
    """Answers that are as often right as they say."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1, texts)
    return confidence, generator.uniform(size=texts) < confidence


@given(
    st.lists(st.tuples(st.sampled_from(np.linspace(0, 1, 9).tolist()), st.booleans()), max_size=60).map(
        lambda some: [*some, *[(1.0, True)] * 100]
    ),
    st.floats(0.05, 0.5),
)
def test_among_the_answered_of_these_texts_the_error_is_no_higher_than_stated(
    answers: list[tuple[float, bool]], error: float
) -> None:
    confidence, right = as_arrays(answers)
    chosen = choose_abstention(confidence, right, error)
    assert chosen is not None or (~right[confidence == 1]).any()
    if chosen is not None:
        answered = confidence >= chosen.below
        assert answered.any()
        assert (~right[answered]).mean() <= error


def test_the_error_on_other_texts_is_no_higher_than_stated_19_times_of_20() -> None:
    kept, coverages = 0, []
    for seed in range(300):
        chosen = choose_abstention(*drawn(1000, seed), 0.1)
        below = 1.0 if chosen is None else chosen.below
        kept += (1 - below) / 2 <= 0.1  # the mean of 1 - confidence above the threshold
        coverages.append((1 - below) / 0.5)
    assert kept >= 0.95 * 300
    assert np.mean(coverages) > 0.2  # of 0.4, which is allowed


def test_the_lowest_threshold_that_will_do_is_taken() -> None:
    chosen = choose_abstention(*as_arrays([(0.9, True)] * 1000 + [(0.6, True)] * 100 + [(0.4, False)] * 100), 0.05)
    assert chosen is not None
    assert chosen.below == 0.6
    everything = choose_abstention(*as_arrays([(0.9, True)] * 1000 + [(0.3, True)]), 0.05)
    assert everything is not None
    assert everything.below == 0.3


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([(0.9, True)] * 58, "on 58 selection texts with labels, that at most 5 % .* that takes 59 without an error"),
        ([(0.9, True), (0.9, False)] * 500, "on 1000 selection texts .* the surest are wrong too often"),
        ([], "on 0 selection texts"),
    ],
)
def test_where_no_threshold_reaches_it_there_is_none_and_a_reason(answers: list[tuple[float, bool]], says: str) -> None:
    assert choose_abstention(*as_arrays(answers), 0.05) is None
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(why_no_abstention(0.05, len(answers)))


def test_the_fewest_texts_that_are_named_are_enough() -> None:
    assert choose_abstention(*as_arrays([(0.9, True)] * 59), 0.05) is not None


def test_texts_of_equal_confidence_share_their_errors() -> None:
    right = np.array([True, False, True, False])
    assert risks(np.array([0.9, 0.5, 0.5, 0.1]), right) == pytest.approx([0, 0.25, 1 / 3, 0.5])
    assert risks(np.array([0.5, 0.5, 0.9, 0.1]), right[[1, 0, 2, 3]]) == pytest.approx([0, 0.25, 1 / 3, 0.5])


def test_parent_and_bundle_are_judged_on_the_texts_with_labels() -> None:
    examples = Examples(("a", "b", "c", "d"), ("yes", "no", None, "yes"), (None,) * 4)
    bundle = np.array([[0, 3], [2, 0], [9, 0], [1, 0]], np.float32)  # surely right, right, unknown, wrong
    parent = bundle * np.array([[1], [0.1], [1], [1]], np.float32)  # its error comes before its second right answer
    chosen = choose_abstention(*as_arrays([(0.8, True)] * 100), 0.05)
    figures, parent_curve, curve = judge_abstention(parent, bundle, TASK, examples, 1.0, chosen)
    assert (figures.texts, figures.answered, figures.right) == (3, 2, 2)
    assert figures.bundle_aurc == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert figures.parent_aurc == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert np.array(curve) == pytest.approx(np.array([(1 / 3, 0), (2 / 3, 0), (1, 1 / 3)]))
    assert parent_curve[1] == pytest.approx((2 / 3, 1 / 2))
    tempered, *_ = judge_abstention(parent, bundle, TASK, examples, 5.0, chosen)
    assert tempered.answered == 0
    saturated, *_ = judge_abstention(100 * parent, bundle, TASK, examples, 100.0, chosen)
    assert saturated.parent_aurc == pytest.approx(figures.parent_aurc)  # at 1 its confidences would all be the same


def test_any_answer_to_a_text_outside_is_wrong() -> None:
    examples = Examples(("a", "b", "c"), ("yes", "no", None), (None,) * 3, outside=(False, False, True))
    logits = np.array([[0, 3], [2, 0], [0, 2.5]], np.float32)
    chosen = choose_abstention(*as_arrays([(0.9, True)] * 100), 0.05)
    figures, *_ = judge_abstention(logits * np.float32(-1), logits, TASK, examples, 1.0, chosen)
    assert (figures.texts, figures.answered, figures.right) == (3, 2, 1)
    assert figures.outside is not None
    assert (figures.outside.texts, figures.outside.abstained) == (1, 0)
    assert figures.outside.bundle_auroc.value == figures.outside.parent_auroc.value == 0.5
    assert figures.bundle_aurc == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    strict = AbstainOptions(below=0.93, error=0.05)
    figures, *_ = judge_abstention(logits, logits, TASK, examples, 1.0, strict)
    assert figures.outside is not None
    assert (figures.answered, figures.right, figures.outside.abstained) == (1, 1, 1)


def test_the_area_under_the_roc_curve_is_that_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    inside, outside = generator.integers(3, 9, 80).astype(float), generator.integers(0, 7, 50).astype(float)
    surer = inside[:, None] > outside
    figure = auroc(inside, outside)
    assert figure.value == pytest.approx((surer + (inside[:, None] == outside) / 2).mean())
    resampled = [auroc(generator.choice(inside, 80), generator.choice(outside, 50)).value for _ in range(2000)]
    assert (figure.low, figure.high) == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.01)
    assert auroc(outside + 10, outside).low == 1
