"""Measures a candidate against its parent, and holds it to the budget."""

from dataclasses import dataclass

import numpy as np

from compression.bundle import Figures, ModelFigures
from compression.bundle.runtime import Logits
from compression.checkpoint import Parent
from compression.classifier import BundleClassifier, ParentClassifier, predict
from compression.data import Examples
from compression.errors import VerificationError
from compression.evaluate import agreement, batch_deviation, fit_temperature, quality
from compression.latency import compare_latency
from compression.recipe import Budget

BATCH_EXACT_WITHIN = 1e-4  # of a score; float32 sums in another order stay far below it
_BATCH_PROBE_TEXTS = 64


@dataclass(frozen=True)
class Measured:
    """What the candidate's logits on both splits say."""

    figures: Figures
    temperature: float


def measure(
    parent: Parent, candidate: BundleClassifier, calibration: Examples, test: Examples, size_bytes: int
) -> Measured:
    """Runs both on the test texts; the calibration texts, where they have labels, fit the temperature."""
    reference = ParentClassifier(parent)
    expected = predict(reference, test.texts, "Judge the parent")
    got = predict(candidate, test.texts, "Judge the bundle")
    labelled = calibration.labelled
    temperature = (
        fit_temperature(predict(candidate, labelled.texts, "Fit the temperature"), parent.labels, labelled)
        if len(labelled)
        else 1.0
    )
    figures = Figures(
        parent=_model_figures(expected, parent.labels, test, _weight_bytes(parent)),
        bundle=_model_figures(got, parent.labels, test, size_bytes),
        agreement=agreement(expected, got),
        max_logit_difference=float(np.abs(expected - got).max()),
        batch_deviation=batch_deviation(candidate, test.texts[:_BATCH_PROBE_TEXTS]),
        latency=compare_latency(reference, candidate, test.texts),
    )
    return Measured(figures, temperature)


def require_budget(figures: Figures, budget: Budget) -> None:
    """Compares what was measured with what was allowed.

    Raises:
        VerificationError: names each bound that was not kept, with both numbers.
    """
    broken = []
    if budget.min_agreement is not None and figures.agreement < budget.min_agreement:
        broken.append(f"agreement {figures.agreement:.4f} is below min_agreement {budget.min_agreement}")
    if budget.max_size_mb is not None and figures.bundle.size_mb > budget.max_size_mb:
        broken.append(f"model.onnx has {figures.bundle.size_mb} MB, above max_size_mb {budget.max_size_mb}")
    if budget.max_accuracy_drop is not None:
        if figures.parent.accuracy is None or figures.bundle.accuracy is None:
            broken.append("max_accuracy_drop needs test texts with labels, and there are none")
        else:
            drop = 100 * (figures.parent.accuracy - figures.bundle.accuracy)
            if drop > budget.max_accuracy_drop:
                broken.append(
                    f"accuracy dropped by {drop:.2f} points, above max_accuracy_drop {budget.max_accuracy_drop}"
                )
    if broken:
        raise VerificationError(f"outside the budget, nothing was written: {'; '.join(broken)}")


def _model_figures(logits: Logits, labels: tuple[str, ...], test: Examples, size_bytes: int) -> ModelFigures:
    result = quality(logits, labels, test)
    return ModelFigures(size_mb=round(size_bytes / 1e6, 2), accuracy=result.accuracy, macro_f1=result.macro_f1)


def _weight_bytes(parent: Parent) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parent.model.parameters())
