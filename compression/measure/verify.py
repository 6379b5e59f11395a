"""Measures a candidate against its parent, and holds it to the budget."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compression.bundle import Calibration, Figures, ModelFigures, Significance, StepFigures, softmax
from compression.bundle.runtime import Logits
from compression.data import Examples
from compression.errors import VerificationError
from compression.measure.evaluate import (
    agreement,
    batch_invariance,
    calibration_error,
    class_figures,
    fit_temperature,
    labelled_rows,
    quality,
    reliability,
)
from compression.measure.evidence import Answer, Evidence, Flip
from compression.measure.fairness import measure_fairness
from compression.measure.intervals import wilson
from compression.measure.latency import compare_latency
from compression.measure.robustness import measure_robustness
from compression.measure.significance import compare_answers
from compression.parent.checkpoint import Parent, weight_bytes
from compression.parent.classifier import BundleClassifier, ParentClassifier, predict
from compression.recipe import Budget

Scores = npt.NDArray[np.float64]  # (texts, labels)
BATCH_EXACT_WITHIN = 1e-4  # of a score; float32 sums in another order stay far below it
_BATCH_PROBE_TEXTS = 64
_MAX_FLIPS_SHOWN = 50
_COLLAPSED_TEXTS = 5  # this many answers of the parent's other labels, all lost, are no accident
_CHANCE_KAPPA = 0.2  # Cohen's; up to here agreement is slight (Landis & Koch 1977)
_SURELY_AGREED = 0.9  # kappa is unjust where almost all texts have one label


@dataclass(frozen=True)
class Measured:
    """What the candidate's logits on both splits say: figures for the manifest, evidence for the report."""

    figures: Figures
    temperature: float
    evidence: Evidence


def measure(
    parent: Parent,
    candidate: BundleClassifier,
    calibration: Examples,
    test: Examples,
    size_bytes: int,
    steps: tuple[StepFigures, ...] = (),
) -> Measured:
    """Runs both on the test texts; the calibration texts, where they have labels, fit the temperature.

    Args:
        steps: what the recipe's steps cost and gained, for the figures.

    Raises:
        VerificationError: the candidate has collapsed.
    """
    reference = ParentClassifier(parent)
    expected = predict(reference, test.texts, "Judge the parent")
    got = predict(candidate, test.texts, "Judge the bundle")
    require_sane(expected, got, parent.labels)
    labelled = calibration.labelled
    temperature = (
        fit_temperature(predict(candidate, labelled.texts, "Fit the temperature"), parent.labels, labelled)
        if len(labelled)
        else 1.0
    )
    before = reliability(got, parent.labels, test)
    after = reliability(got, parent.labels, test, temperature)
    # Not the first of them: files are often sorted by label, and like texts make like batches.
    probe = random.Random(0).sample(test.texts, min(_BATCH_PROBE_TEXTS, len(test)))  # noqa: S311
    batch_label_changes, batch_deviation = batch_invariance(candidate, probe)
    flipped = int((expected.argmax(axis=-1) != got.argmax(axis=-1)).sum())
    agreement_low, agreement_high = wilson(len(test) - flipped, len(test))
    figures = Figures(
        parent=_model_figures(expected, parent.labels, test, weight_bytes(parent)),
        bundle=_model_figures(got, parent.labels, test, size_bytes),
        agreement=agreement(expected, got),
        agreement_low=agreement_low,
        agreement_high=agreement_high,
        flipped=flipped,
        significance=_significance(expected, got, parent.labels, test),
        classes=class_figures(expected, got, parent.labels, test),
        calibration=Calibration(
            parent_ece=calibration_error(reliability(expected, parent.labels, test)),
            ece_before=calibration_error(before),
            ece_after=calibration_error(after),
        )
        if before
        else None,
        robustness=measure_robustness(reference, candidate, test, expected, got),
        fairness=measure_fairness(reference, candidate, test.texts, expected, got),
        max_logit_difference=float(np.abs(expected - got).max()),
        batch_texts=len(probe),
        batch_label_changes=batch_label_changes,
        batch_deviation=batch_deviation,
        latency=compare_latency(reference, candidate, test.texts),
        steps=steps,
    )
    flips = _flips(softmax(expected), softmax(got, temperature), parent.labels, test)
    return Measured(figures, temperature, Evidence(flips, before, after))


def require_sane(parent: Logits, bundle: Logits, labels: Sequence[str]) -> None:
    """Refuses a candidate that no longer is a classifier, whatever the budget allows.

    Args:
        parent: (texts, labels) on real text; `bundle` of the same texts.

    Raises:
        VerificationError: logits that are not finite (float16 overflow), one label for every text where the parent
            gives several (optimum#151), or agreement no better than chance (onnxruntime#9599).
    """
    for who, logits in (("the parent", parent), ("the compressed model", bundle)):
        broken = int((~np.isfinite(logits).all(axis=-1)).sum())
        if broken:
            raise VerificationError(
                f"{who} gives logits that are not finite on {broken} of {len(logits)} real texts; "
                "its weights are damaged, or 16 bits overflow: keep those layers in float32"
            )
    expected, got = parent.argmax(axis=-1), bundle.argmax(axis=-1)
    lost = int((expected != got).sum())
    if len(np.unique(got)) == 1 < len(np.unique(expected)) and lost >= min(_COLLAPSED_TEXTS, len(got) / 3):
        raise VerificationError(
            f"the compressed model answers {labels[got[0]]!r} to all of {len(got)} texts, where the parent gives "
            f"{len(np.unique(expected))} labels: it has collapsed; keep more layers in float or prune less"
        )
    shares = [np.bincount(answers, minlength=len(labels)) / len(answers) for answers in (expected, got)]
    agreed, chance = 1 - lost / len(got), float(shares[0] @ shares[1])
    if lost >= _COLLAPSED_TEXTS and agreed - chance <= _CHANCE_KAPPA * (1 - chance) and agreed < _SURELY_AGREED:
        raise VerificationError(
            f"the compressed model agrees with the parent on {100 * agreed:.1f} % of {len(got)} texts, where chance "
            f"gives {100 * chance:.1f} %: it has collapsed; keep more layers in float or prune less"
        )


def require_budget(figures: Figures, budget: Budget) -> None:
    """Compares what was measured with what was allowed.

    Raises:
        VerificationError: names each bound that was not kept, with both numbers.
    """
    parent, bundle = figures.parent.accuracy, figures.bundle.accuracy
    drop = None if parent is None or bundle is None else 100 * (parent - bundle)
    sentences = {
        "min_agreement": f"agreement {figures.agreement:.4f} is below",
        "max_accuracy_drop": "no test text has a label, which is needed for"
        if drop is None
        else f"accuracy dropped by {drop:.2f} points, above",
        "max_size_mb": f"the model has {figures.bundle.size_mb} MB, above",
        "min_speedup": f"the bundle is {figures.speedup:.2f} times as fast as the parent, below",
    }
    measured = {
        "min_agreement": figures.agreement,
        "max_accuracy_drop": drop,
        "max_size_mb": figures.bundle.size_mb,
        "min_speedup": figures.speedup,
    }
    broken = budget.broken(measured)
    if broken:
        reasons = "; ".join(f"{sentences[bound]} {bound} {getattr(budget, bound)}" for bound in broken)
        reached = {bound: measured[bound] for bound in broken}
        raise VerificationError(f"outside the budget, nothing was written: {reasons}", reached)


def _model_figures(logits: Logits, labels: tuple[str, ...], test: Examples, size_bytes: int) -> ModelFigures:
    result = quality(logits, labels, test)
    return ModelFigures(size_mb=round(size_bytes / 1e6, 2), accuracy=result.accuracy, macro_f1=result.macro_f1)


def _significance(expected: Logits, got: Logits, labels: tuple[str, ...], test: Examples) -> Significance | None:
    rows, truth = labelled_rows(labels, test)
    return compare_answers(truth, expected[rows].argmax(axis=-1), got[rows].argmax(axis=-1)) if rows else None


def _flips(expected: Scores, got: Scores, labels: tuple[str, ...], test: Examples) -> tuple[Flip, ...]:
    """The texts whose label changed, surest answers of the bundle first."""
    was, now = expected.argmax(axis=-1), got.argmax(axis=-1)
    rows = sorted(np.flatnonzero(was != now), key=lambda row: -got[row].max())[:_MAX_FLIPS_SHOWN]
    return tuple(
        Flip(
            text=test.texts[row],
            parent=Answer(labels[was[row]], float(expected[row].max())),
            bundle=Answer(labels[now[row]], float(got[row].max())),
            truth=test.labels[row],
        )
        for row in rows
    )
