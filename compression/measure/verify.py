"""Measures a candidate against its parent, and holds it to the budget."""

import random
from dataclasses import dataclass

import numpy as np

from compression.bundle import (
    AbstainOptions,
    Calibration,
    Figures,
    Labelling,
    Logits,
    ModelFigures,
    Number,
    NumberDifferences,
    NumberFigures,
    Significance,
    StepFigures,
    Task,
    shown,
)
from compression.bundle.task import Answers
from compression.data import Examples, names_of
from compression.errors import RecipeError, VerificationError
from compression.measure.abstaining import ANSWER_ERROR, choose_abstention, confidence_and_right, judge_abstention
from compression.measure.evaluate import (
    agreement,
    batch_invariance,
    calibration_error,
    class_figures,
    fit_temperature,
    labelled_rows,
    numbered,
    quality,
    reliability,
)
from compression.measure.evidence import Answer, Bin, Evidence, Flip, RiskPoint
from compression.measure.fairness import measure_fairness
from compression.measure.intervals import wilson
from compression.measure.latency import compare_latency
from compression.measure.lengths import measure_lengths
from compression.measure.numbers import (
    compare_numbers,
    deviation,
    number_quality,
    number_rows,
    pearson,
    plain,
)
from compression.measure.robustness import measure_robustness
from compression.measure.significance import compare_answers
from compression.parent.checkpoint import Parent, weight_bytes
from compression.parent.classifier import BundleClassifier, Classifier, ParentClassifier, predict
from compression.recipe import Budget

BATCH_EXACT_WITHIN = 1e-4  # of a score; float32 sums in another order stay far below it
_BATCH_PROBE_TEXTS = 64
_MAX_FLIPS_SHOWN = 50
_MAX_POINTS = 1000  # of the chart of numbers
_NO_LABEL = "no label"
_COLLAPSED_TEXTS = 5  # this many answers of the parent's other labels, all lost, are no accident
_CHANCE_KAPPA = 0.2  # Cohen's; up to here agreement is slight (Landis & Koch 1977)
_SURELY_AGREED = 0.9  # kappa is unjust where almost all texts have one label


@dataclass(frozen=True)
class Measured:
    """What the candidate's logits say: figures for the manifest, evidence for the report.

    Attributes:
        abstain: None where no threshold keeps the error that is allowed, or nothing says what is wrong.
    """

    figures: Figures
    temperature: float
    evidence: Evidence
    abstain: AbstainOptions | None = None


def measure(
    parent: Parent,
    candidate: BundleClassifier,
    calibration: Examples,
    test: Examples,
    size_bytes: int,
    steps: tuple[StepFigures, ...] = (),
    exported: Classifier | None = None,
    selection: Examples | None = None,
    answer_error: float = ANSWER_ERROR,
) -> Measured:
    """Runs both on the test texts; of others that have labels, those to calibrate with fit the temperature, and those
    to select with choose the threshold to abstain below.

    Args:
        steps: what the recipe's steps cost and gained, for the figures.
        exported: the parent in ONNX Runtime, float32, for the speeds; None: they have no such yardstick.
        answer_error: fraction of wrong ones among the answers that are not abstained from, at most.

    Raises:
        VerificationError: the candidate has collapsed.
    """
    reference, task = ParentClassifier(parent), parent.task
    expected = predict(reference, test.texts, "Judge the parent")
    got = predict(candidate, test.texts, "Judge the bundle")
    require_sane(expected, got, task)
    labelled = calibration.labelled
    temperature, before, after = 1.0, tuple[Bin, ...](), tuple[Bin, ...]()
    abstain, selective = None, None
    parent_risk, bundle_risk = tuple[RiskPoint, ...](), tuple[RiskPoint, ...]()
    if isinstance(task, Labelling):
        if len(labelled):
            temperature = fit_temperature(predict(candidate, labelled.texts, "Fit the temperature"), task, labelled)
        before, after = reliability(got, task, test), reliability(got, task, test, temperature)
        chooses = labelled.head(0) if selection is None else selection.where(selection.known)
        if len(chooses):
            logits = predict(candidate, chooses.texts, "Choose when to abstain")
            abstain = choose_abstention(*confidence_and_right(logits, task, chooses, temperature), answer_error)
        if any(test.known):
            selective, parent_risk, bundle_risk = judge_abstention(expected, got, task, test, temperature, abstain)
    # Not the first of them: files are often sorted by label, and like texts make like batches.
    probe = random.Random(0).sample(test.texts, min(_BATCH_PROBE_TEXTS, len(test)))  # noqa: S311
    batch_label_changes, batch_deviation = batch_invariance(candidate, probe)
    flipped = int((~task.same(expected, got)).sum())
    agreement_low, agreement_high = wilson(len(test) - flipped, len(test))
    figures = Figures(
        parent=_model_figures(expected, task, test, weight_bytes(parent)),
        bundle=_model_figures(got, task, test, size_bytes),
        agreement=agreement(expected, got, task),
        agreement_low=agreement_low,
        agreement_high=agreement_high,
        flipped=flipped,
        significance=_significance(expected, got, task, test),
        differences=_differences(expected, got, task, test),
        deviation=deviation(expected, got, task) if isinstance(task, Number) else None,
        classes=class_figures(expected, got, task, test) if isinstance(task, Labelling) else (),
        calibration=Calibration(
            parent_ece=calibration_error(reliability(expected, task, test)),
            ece_before=calibration_error(before),
            ece_after=calibration_error(after),
        )
        if before and isinstance(task, Labelling)
        else None,
        selective=selective,
        robustness=measure_robustness(reference, candidate, test, expected, got),
        fairness=measure_fairness(reference, candidate, test.texts, expected, got),
        max_logit_difference=float(np.abs(expected - got).max()),
        batch_texts=len(probe),
        batch_label_changes=batch_label_changes,
        batch_deviation=batch_deviation,
        latency=compare_latency(reference, candidate, test.texts, exported),
        steps=steps,
        long_texts=measure_lengths(candidate, test.texts),
    )
    flips = _flips(expected, got, temperature, task, test)
    evidence = Evidence(flips, before, after, parent_risk, bundle_risk, _pairs(expected, got, task))
    return Measured(figures, temperature, evidence, abstain)


def require_sane(parent: Logits, bundle: Logits, task: Task) -> None:
    """Refuses a candidate whose answers no longer say anything, whatever the budget allows.

    Args:
        parent: (texts, labels) on real text; `bundle` of the same texts.

    Raises:
        VerificationError: logits that are not finite (float16 overflow), one answer for every text where the parent
            gives several (optimum#151), agreement no better than chance (onnxruntime#9599), or numbers that hardly
            follow the parent's.
    """
    for who, logits in (("the parent", parent), ("the compressed model", bundle)):
        broken = int((~np.isfinite(logits).all(axis=-1)).sum())
        if broken:
            raise VerificationError(
                f"{who} gives logits that are not finite on {broken} of {len(logits)} real texts; "
                "its weights are damaged, or 16 bits overflow: keep those layers in float32"
            )
    if isinstance(task, Number):
        _require_correlated(parent, bundle, task)
        return
    answers, (expected, got) = numbered(task.decide(parent), task.decide(bundle))
    lost = int((expected != got).sum())
    if len(np.unique(got)) == 1 < len(np.unique(expected)) and lost >= min(_COLLAPSED_TEXTS, len(got) / 3):
        answer = ", ".join(map(repr, task.named(answers[got[0]]))) or _NO_LABEL
        raise VerificationError(
            f"the compressed model answers {answer} to all of {len(got)} texts, where the "
            f"parent gives {len(np.unique(expected))} answers: it has collapsed; keep more layers in float or prune "
            "less"
        )
    shares = [np.bincount(given, minlength=len(answers)) / len(given) for given in (expected, got)]
    agreed, chance = 1 - lost / len(got), float(shares[0] @ shares[1])
    if lost >= _COLLAPSED_TEXTS and agreed - chance <= _CHANCE_KAPPA * (1 - chance) and agreed < _SURELY_AGREED:
        raise VerificationError(
            f"the compressed model agrees with the parent on {100 * agreed:.1f} % of {len(got)} texts, where chance "
            f"gives {100 * chance:.1f} %: it has collapsed; keep more layers in float or prune less"
        )


def _require_correlated(parent: Logits, bundle: Logits, task: Number) -> None:
    expected, got = (task.scores(logits)[:, 0] for logits in (parent, bundle))
    lost = int((~task.same(parent, bundle)).sum())
    correlation = plain(pearson, expected, got) or 0.0
    if (
        lost >= min(_COLLAPSED_TEXTS, len(got) / 3)
        and correlation <= _CHANCE_KAPPA
        and lost > (1 - _SURELY_AGREED) * len(got)
    ):
        raise VerificationError(
            f"the compressed model's numbers hardly follow the parent's (correlation {correlation:.2f} on {len(got)} "
            "texts): it has collapsed; keep more layers in float or prune less"
        )


def require_bounds_of(task: Task, budget: Budget, parent: str) -> None:
    """Refuses bounds of what this model does not give.

    Raises:
        RecipeError: names the bound, and those to take in its place.
    """
    of_numbers = ("max_spearman_drop", "max_mae_rise")
    wrong, right = (
        (("max_accuracy_drop",), of_numbers) if isinstance(task, Number) else (of_numbers, ("max_accuracy_drop",))
    )
    for bound in wrong:
        if getattr(budget, bound) is not None:
            raise RecipeError(f"{bound}: {parent} gives {task.gives} to a text; bound it by {' or '.join(right)}")


def require_budget(figures: Figures, budget: Budget) -> None:
    """Compares what was measured with what was allowed.

    Raises:
        VerificationError: names each bound that was not kept, with both numbers.
    """
    parent, bundle = figures.parent.points, figures.bundle.points
    what = "accuracy" if figures.parent.micro_f1 is None else "micro F1"
    drop = None if parent is None or bundle is None else 100 * (parent - bundle)
    less, more = number_losses(figures.parent.number, figures.bundle.number)
    unknown = "no test text has a label, which is needed for"
    sentences = {
        "min_agreement": f"agreement {figures.agreement:.4f} is below",
        "max_accuracy_drop": unknown if drop is None else f"{what} dropped by {drop:.2f} points, above",
        "max_spearman_drop": unknown if less is None else f"Spearman's correlation dropped by {less:.4f}, above",
        "max_mae_rise": unknown if more is None else f"the mean absolute error rose by {more:.4g}, above",
        "max_size_mb": f"the model has {figures.bundle.size_mb} MB, above",
        "min_speedup": f"the bundle is {figures.speedup:.2f} times as fast as the parent, below",
    }
    measured = {
        "min_agreement": figures.agreement,
        "max_accuracy_drop": drop,
        "max_spearman_drop": less,
        "max_mae_rise": more,
        "max_size_mb": figures.bundle.size_mb,
        "min_speedup": figures.speedup,
    }
    broken = budget.broken(measured)
    if broken:
        reasons = "; ".join(f"{sentences[bound]} {bound} {getattr(budget, bound)}" for bound in broken)
        reached = {bound: measured[bound] for bound in broken}
        raise VerificationError(f"outside the budget, nothing was written: {reasons}", reached)


def number_losses(parent: NumberFigures | None, bundle: NumberFigures | None) -> tuple[float | None, float | None]:
    """By how much Spearman's correlation has dropped and the mean absolute error risen; None what is not known."""
    if parent is None or bundle is None:
        return None, None
    before, after = parent.spearman, bundle.spearman
    return None if before is None or after is None else before.value - after.value, bundle.mae.value - parent.mae.value


def _model_figures(logits: Logits, task: Task, test: Examples, size_bytes: int) -> ModelFigures:
    size_mb = round(size_bytes / 1e6, 2)
    if isinstance(task, Number):
        return ModelFigures(size_mb=size_mb, number=number_quality(logits, task, test).number)
    assert isinstance(task, Labelling)  # there is no third
    result = quality(logits, task, test)
    return ModelFigures(
        size_mb=size_mb,
        accuracy=result.accuracy,
        macro_f1=result.macro_f1,
        micro_f1=result.micro_f1,
    )


def _significance(expected: Logits, got: Logits, task: Task, test: Examples) -> Significance | None:
    if not isinstance(task, Labelling):
        return None
    rows, truth = labelled_rows(task, test)
    if not rows:
        return None
    return compare_answers(truth, task.decide(expected[rows]), task.decide(got[rows]), several=task.several)


def _differences(expected: Logits, got: Logits, task: Task, test: Examples) -> NumberDifferences | None:
    if not isinstance(task, Number):
        return None
    rows, truth = number_rows(test)
    parent, bundle = (task.scores(logits)[rows, 0] for logits in (expected, got))
    return compare_numbers(truth, parent, bundle) if rows else None


def _pairs(expected: Logits, got: Logits, task: Task) -> tuple[tuple[float, float], ...]:
    """Both models' numbers, where they are some."""
    if not isinstance(task, Number):
        return ()
    parent, bundle = (task.scores(logits)[:_MAX_POINTS, 0].tolist() for logits in (expected, got))
    return tuple(zip(parent, bundle, strict=True))


def _flips(expected: Logits, got: Logits, temperature: float, task: Task, test: Examples) -> tuple[Flip, ...]:
    """The texts whose answers changed, surest answers of the bundle first; of numbers, the furthest."""
    was, now = task.decide(expected), task.decide(got)
    before, after = task.scores(expected), task.scores(got, temperature)
    first = np.abs(after - before)[:, 0] if isinstance(task, Number) else after.max(axis=1)
    rows = sorted(np.flatnonzero(~task.same(expected, got)), key=lambda row: -first[row])[:_MAX_FLIPS_SHOWN]
    return tuple(
        Flip(
            text=shown(test.texts[row]),
            parent=Answer(_spoken(task, was[row]), float(before[row].max())),
            bundle=Answer(_spoken(task, now[row]), float(after[row].max())),
            truth=None if test.labels[row] is None else ", ".join(names_of(test.labels[row])) or _NO_LABEL,
        )
        for row in rows
    )


def _spoken(task: Task, answer: Answers) -> str:
    """One text's labels, for people."""
    return ", ".join(task.named(answer)) or _NO_LABEL
