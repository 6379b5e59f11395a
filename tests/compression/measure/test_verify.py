from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from compression.bundle import Bundle, Encoded, Latency, Logits, Runtime, SingleLabel, StepFigures
from compression.data import Examples, read_examples, split_examples
from compression.errors import VerificationError
from compression.measure.evaluate import calibration_error, class_figures, reliability
from compression.measure.verify import Measured, measure, require_budget, require_sane
from compression.parent.checkpoint import Parent
from compression.parent.classifier import BundleClassifier
from compression.recipe import Budget

TASK = SingleLabel(("no", "yes", "maybe"))
STEPS = (StepFigures(step="export", seconds=1.5, size_mb=0.3, agreement=1.0, accuracy=0.9, cached=True),)


def logits(*answers: int) -> Logits:
    return np.eye(3, dtype=np.float32)[list(answers)]


def labelled(*labels: str | None) -> Examples:
    return Examples(tuple(map(str, labels)), labels, (None,) * len(labels))


@pytest.fixture(scope="module")
def judged(sentiment_data: Path) -> Examples:
    return split_examples(read_examples(sentiment_data), sentiment_data).test


@pytest.fixture(scope="module")
def measured(parent: Parent, sentiment_bundle: Bundle, sentiment_data: Path, judged: Examples) -> Measured:
    candidate = BundleClassifier("bundle", Runtime.of(sentiment_bundle), parent.task)
    calibration = split_examples(read_examples(sentiment_data), sentiment_data).calibration
    return measure(parent, candidate, calibration, judged, 1000, STEPS)


def test_the_proof_is_complete(measured: Measured, judged: Examples) -> None:
    figures = measured.figures
    assert figures.significance is not None
    assert figures.parent.accuracy is not None
    assert figures.bundle.accuracy is not None
    assert figures.significance.accuracy.value == pytest.approx(figures.bundle.accuracy - figures.parent.accuracy)
    assert figures.calibration is not None
    assert figures.calibration.ece_after == pytest.approx(calibration_error(measured.evidence.after))
    assert {noise.kind for noise in figures.robustness} == {"typos", "case", "punctuation", "whitespace"}
    assert [one.label for one in figures.classes] == ["negative", "positive"]
    assert sum(one.texts for one in figures.classes) == len(judged)
    assert figures.fairness is None  # no such word in these texts
    assert (figures.batch_texts, figures.batch_label_changes) == (64, 0)
    assert figures.flipped == len(measured.evidence.flips) == round((1 - figures.agreement) * len(judged))
    assert figures.steps == STEPS


def test_agreement_has_its_interval(measured: Measured) -> None:
    figures = measured.figures
    assert 0.9 < figures.agreement_low <= figures.agreement <= figures.agreement_high <= 1
    assert figures.agreement_low < figures.agreement_high


def test_the_batch_probe_reaches_the_end_of_a_sorted_file(
    parent: Parent, sentiment_bundle: Bundle, judged: Examples
) -> None:
    candidate = BundleClassifier("bundle", Runtime.of(sentiment_bundle), parent.task)
    rows = sorted(range(len(judged)), key=lambda row: str(judged.labels[row]))
    ordered = Examples(
        tuple(judged.texts[row] for row in rows),
        tuple(judged.labels[row] for row in rows),
        tuple(judged.splits[row] for row in rows),
    )
    late = {tuple(candidate.encode(text).ids) for text in ordered.texts[64:]}
    late -= {tuple(candidate.encode(text).ids) for text in ordered.texts[:64]}
    forward = candidate.forward

    def swayed(batch: Sequence[Encoded]) -> Logits:
        """Answers texts from behind the first 64 otherwise when they are in company."""
        answers = forward(batch)
        if len(batch) > 1:
            company = [tuple(encoded.ids) in late for encoded in batch]
            answers[company, 0] += 0.01
        return answers

    candidate.forward = swayed
    assert measure(parent, candidate, judged, ordered, 1000).figures.batch_deviation > 1e-4


def test_without_labels_what_needs_them_is_left_out(parent: Parent, sentiment_bundle: Bundle, judged: Examples) -> None:
    bare = Examples(judged.texts[:40], (None,) * 40, (None,) * 40)
    candidate = BundleClassifier("bundle", Runtime.of(sentiment_bundle), parent.task)
    without = measure(parent, candidate, bare, bare, 1000)
    assert (without.figures.significance, without.figures.calibration, without.figures.classes) == (None, None, ())
    assert without.figures.robustness
    assert without.temperature == 1


def test_flips_hold_text_answers_and_truth(parent: Parent, sentiment_bundle: Bundle, judged: Examples) -> None:
    swapped = BundleClassifier("bundle", Runtime.of(sentiment_bundle), parent.task)
    forward = swapped.forward
    swapped.forward = lambda batch: forward(batch)[:, ::-1]
    with pytest.raises(VerificationError, match="where chance gives"):
        measure(parent, swapped, judged, judged, 1000)
    few = 4  # too few to speak of a collapse
    test = Examples(judged.texts[:few], judged.labels[:few], judged.splits[:few])
    flips = measure(parent, swapped, judged, test, 1000).evidence.flips
    assert {flip.text for flip in flips} == set(test.texts)
    assert all(flip.parent.label != flip.bundle.label for flip in flips)
    assert [flip.bundle.score for flip in flips] == sorted((flip.bundle.score for flip in flips), reverse=True)
    assert {(flip.text, flip.truth) for flip in flips} == set(zip(test.texts, test.labels, strict=True))


def test_recall_is_counted_label_by_label() -> None:
    examples = labelled("no", "no", "yes", None)
    figures = class_figures(logits(0, 0, 1, 2), logits(0, 1, 1, 2), TASK, examples)
    assert [(one.label, one.texts, one.parent_recall, one.bundle_recall) for one in figures] == [
        ("no", 2, 1.0, 0.5),
        ("yes", 1, 1.0, 1.0),
    ]


def test_calibration_error_is_zero_where_scores_are_as_often_right_as_they_say() -> None:
    rows = np.log(np.array([[0.75, 0.15, 0.1]] * 4, np.float32))
    honest, boastful = labelled("no", "no", "no", "yes"), labelled("no", "yes", "yes", "yes")
    assert calibration_error(reliability(rows, TASK, honest)) == pytest.approx(0, abs=1e-6)
    assert calibration_error(reliability(rows, TASK, boastful)) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error(reliability(rows, TASK, honest, temperature=100)) > 0.3


@pytest.mark.parametrize(
    ("parent", "bundle", "message"),
    [
        (logits(*[0, 1] * 10), logits(*[1] * 20), "answers 'yes' to all of 20 texts, where the parent gives 2 answers"),
        (logits(*[0] * 95, *[1] * 5), logits(*[0] * 100), "answers 'no' to all of 100"),
        (logits(*[0, 1] * 20), logits(*[0, 0, 1, 1] * 10), "on 50.0 % of 40 texts, where chance gives 50.0 %"),
        (logits(0, 1), np.array([[np.nan, 0, 0], [0, 1, 0]], np.float32), "compressed model .* not finite on 1 of 2"),
        (logits(0, 1), np.array([[np.inf, 0, 0], [0, 1, 0]], np.float32), "not finite on 1 of 2"),
        (np.full((2, 3), np.nan, np.float32), logits(0, 1), "the parent gives logits that are not finite on 2 of 2"),
    ],
)
def test_a_collapse_is_named(parent: Logits, bundle: Logits, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        require_sane(parent, bundle, TASK)


@pytest.mark.parametrize(
    ("parent", "bundle"),
    [
        (logits(0, 1, 2), logits(0, 1, 2)),
        (logits(*[0] * 20), logits(*[0] * 20)),  # one label from both
        (logits(*[0] * 97, 1, 1, 0), logits(*[0] * 100)),  # two rare answers lost
        (logits(*[0] * 95, *[1] * 5), logits(*[0] * 91, *[1] * 9)),
    ],
)
def test_ordinary_losses_are_left_to_the_budget(parent: Logits, bundle: Logits) -> None:
    require_sane(parent, bundle, TASK)


def test_every_broken_bound_is_reported(measured: Measured) -> None:
    slow = tuple(
        Latency(batch=1, tokens=24, ratio=ratio, ratio_low=1, ratio_high=9, bundle_ms=1) for ratio in (0.9, 1.4, 9.0)
    )
    worse = measured.figures.bundle.model_copy(update={"accuracy": 0.1, "size_mb": 9.0})
    figures = measured.figures.model_copy(update={"latency": slow, "agreement": 0.5, "bundle": worse})
    budget = Budget(min_speedup=2, max_size_mb=5, min_agreement=0.9, max_accuracy_drop=1)
    with pytest.raises(VerificationError) as failure:
        require_budget(figures, budget)
    for bound in ("1.40 times as fast", "min_speedup 2", "max_size_mb 5", "min_agreement 0.9", "max_accuracy_drop 1"):
        assert bound in str(failure.value)
    require_budget(figures, Budget(min_speedup=1.4))
