"""What was measured of a bundle against its parent: the part of the manifest that makes up its proof.

Fractions are fractions, never percent; a difference is the bundle's figure minus the parent's, so a loss is negative.
All of it is taken on the test texts, except for the steps, which are judged on the selection texts.
"""

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


def absent(value: object) -> bool:
    """Whether a field is left out where a record is written: one that older bundles, and their digests, have not."""
    return value is None


class Record(BaseModel):
    """A frozen part of the manifest; an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Estimate(Record):
    """A figure with its 95 % interval: percentiles of a bootstrap over the texts, where nothing else is said."""

    value: float
    low: float
    high: float


class NumberFigures(Record):
    """How near numbers are to those of the data. Correlations are None where either side is the same for all texts.

    Attributes:
        spearman: correlation of the ranks (Spearman 1904).
        pearson: correlation of the numbers themselves.
        mae: mean of the absolute errors, in the units of the number.
        rmse: root of the mean of the squared errors, likewise.
    """

    spearman: Estimate | None
    pearson: Estimate | None
    mae: Estimate
    rmse: Estimate


class ModelFigures(Record):
    """Of one model on the test texts. Fractions, not percent; None where there were no labels.

    Attributes:
        accuracy: share of the texts that get exactly their labels.
        micro_f1: of all labels of all texts together; only where a text may have several.
        number: where the model gives one, and nothing of the above.
    """

    size_mb: float  # 10^6 bytes: weights of a parent, model.onnx of a bundle
    accuracy: float | None = None
    macro_f1: float | None = None
    micro_f1: float | None = Field(default=None, exclude_if=absent)
    number: NumberFigures | None = Field(default=None, exclude_if=absent)

    @property
    def points(self) -> float | None:
        """What a budget bounds the loss of: micro F1 where a text may have several labels, or accuracy."""
        return self.accuracy if self.micro_f1 is None else self.micro_f1


class Difference(Record):
    """Bundle minus parent, with its 95 % interval (percentiles of a paired bootstrap over the texts)."""

    value: float
    low: float
    high: float


class NumberDifferences(Record):
    """How much nearer to the data's numbers the bundle is than its parent, or further; see `NumberFigures`."""

    spearman: Difference | None
    pearson: Difference | None
    mae: Difference
    rmse: Difference
    resamples: int


class Deviation(Record):
    """How far the bundle's numbers are from the parent's, on all test texts.

    Attributes:
        spearman: correlation of their ranks; None where either model gives all texts the same number.
        mean: of the absolute differences.
        largest: of them.
        tolerance: up to it, two numbers count as the same.
    """

    spearman: float | None
    mean: float
    largest: float
    tolerance: float


class Significance(Record):
    """Whether the texts with labels can tell the bundle from its parent.

    Attributes:
        resamples: of the bootstrap.
        parent_only: texts that the parent labels right and the bundle wrong.
        bundle_only: texts that the bundle labels right and the parent wrong.
        mcnemar_p: exact two-sided p of those two counts, were both equally likely (McNemar 1947).
    """

    accuracy: Difference
    macro_f1: Difference
    micro_f1: Difference | None = Field(default=None, exclude_if=absent)
    resamples: int
    parent_only: int
    bundle_only: int
    mcnemar_p: float


class ClassFigures(Record):
    """Recall of one label: of the `texts` that have it, the fraction that gets it."""

    label: str
    texts: int
    parent_recall: float
    bundle_recall: float


class Calibration(Record):
    """Expected calibration error: how far confidence is from accuracy, mean over 15 bins weighted by their texts.

    Attributes:
        parent_ece: of the parent, as it is.
        ece_before: of the bundle at temperature 1.
        ece_after: of the bundle at its temperature, which was fitted on other texts: of calibrated scores.
    """

    parent_ece: float
    ece_before: float
    ece_after: float


class OutsideFigures(Record):
    """Whether texts that the model was not made for are told from the others by the confidence in its answers.

    Attributes:
        texts: how many of the test texts are outside.
        parent_auroc: how often the parent is surer of a text inside than of one outside (area under the ROC curve);
            `bundle_auroc` of the bundle. Both at its temperature; intervals by DeLong, DeLong & Clarke-Pearson 1988.
        abstained: how many of them the bundle abstains from.
    """

    texts: int
    parent_auroc: Estimate
    bundle_auroc: Estimate
    abstained: int


class SelectiveFigures(Record):
    """What is gained by abstaining from the least sure answers, on the test texts with labels and those outside.

    Attributes:
        texts: how many they are.
        parent_aurc: area under the risk-coverage curve: the mean error among the surest 1, 2, ... of all texts
            (Geifman, Uziel, El-Yaniv 2019); 0 is best. Of the parent, at the bundle's temperature.
        bundle_aurc: of the bundle, at the same.
        answered: how many texts the bundle does not abstain from; so many as there are where it has no threshold.
        right: how many of those get exactly their labels.
        outside: None where no text is known to be.
    """

    texts: int
    parent_aurc: float
    bundle_aurc: float
    answered: int
    right: int
    outside: OutsideFigures | None = Field(default=None, exclude_if=absent)


class Reaction(Record):
    """What a change of the texts did to one model; accuracies are None where no changed text has a label.

    Attributes:
        changed: fraction of the changed texts that get another answer than before.
        accuracy_before: on the same texts, unchanged.
        accuracy_after: on the changed texts.
    """

    changed: float
    accuracy_before: float | None = None
    accuracy_after: float | None = None


class Perturbation(Record):
    """One kind of noise that leaves the meaning alone; `texts` were changed by it."""

    kind: str  # typos, case, punctuation or whitespace
    texts: int
    parent: Reaction
    bundle: Reaction


class SwapReaction(Record):
    """Fraction of texts whose answer changed, and the largest change of any score, at temperature 1."""

    changed: float
    largest_score_change: float


class Counterfactual(Record):
    """The same text with its first names and pronouns swapped for those of the other gender.

    Attributes:
        found: test texts that hold such a word.
        texts: how many of them were tried.
    """

    found: int
    texts: int
    parent: SwapReaction
    bundle: SwapReaction


class Latency(Record):
    """Time of one forward pass of the parent (PyTorch float32) over that of the bundle, one thread each.

    Attributes:
        tokens: length of each of the batch's texts.
        ratio: median of the ratios of alternating runs; above 1 the bundle is faster. Of throughput as of latency.
        ratio_low: lower quartile of those ratios.
        ratio_high: upper quartile.
        bundle_ms: median time of the bundle's runs, on the machine that made it.
        onnx_ratio: the same median of the parent in ONNX Runtime, float32 too: what leaving PyTorch gives, and no
            compression does; None where it was not measured.
    """

    batch: int
    tokens: int
    ratio: float
    ratio_low: float
    ratio_high: float
    bundle_ms: float
    onnx_ratio: float | None = Field(default=None, exclude_if=absent)

    @property
    def texts_per_second(self) -> float:
        """Throughput of the bundle at this shape, one thread, on the machine that made it."""
        return self.batch / self.bundle_ms * 1e3


class LongTextFigures(Record):
    """The test texts that are longer than the window, and what reading them takes.

    Attributes:
        longer: how many they are.
        longest: tokens of the longest text, special tokens included.
        windows: that are computed of a text, mean over all of them; 1 where long texts are cut.
    """

    longer: int
    longest: int
    windows: float


def median_speedup(latency: Sequence[Latency]) -> float:
    """The median of the shapes' ratios."""
    return statistics.median(shape.ratio for shape in latency)


class StepFigures(Record):
    """The model after one step of the recipe, on the selection texts: what the step cost and gained.

    Attributes:
        seconds: that the step took; where it came from the cache, that reading it took.
        size_mb: 10^6 bytes of the model after the step.
        agreement: fraction of texts with the parent's answers.
        accuracy: share that gets exactly its labels; None where no selection text has a label.
        spearman: of a number, its rank correlation with the labels; None likewise.
        cached: whether the result came from the cache.
    """

    step: str
    seconds: float
    size_mb: float
    agreement: float
    accuracy: float | None
    spearman: float | None = Field(default=None, exclude_if=absent)
    cached: bool


class Figures(Record):
    """The bundle against its parent, on the test texts.

    Attributes:
        agreement: fraction of texts that both give the same label, or a number that counts as the same.
        agreement_low: lower end of its 95 % interval (Wilson 1927), which is not empty where all agree.
        agreement_high: upper end.
        flipped: how many texts get another answer; report.html shows them.
        significance: None where no text has a label; so with `calibration`, `selective`, and `differences` of a number.
        deviation: of a number.
        classes: the labels that occur in the test texts, in the model's order.
        robustness: the kinds of noise that changed any text.
        fairness: None where no text holds a name or pronoun to swap.
        max_logit_difference: largest difference of any logit of any text.
        batch_texts: how many texts were run alone and in a batch of others.
        batch_label_changes: how many of them got another label in the batch.
        batch_deviation: largest difference of any score between a text alone and the same text in the batch.
        steps: in the order in which they ran.
        long_texts: None where no text is longer than the window.
    """

    parent: ModelFigures
    bundle: ModelFigures
    agreement: float
    agreement_low: float
    agreement_high: float
    flipped: int
    significance: Significance | None = None
    differences: NumberDifferences | None = Field(default=None, exclude_if=absent)
    deviation: Deviation | None = Field(default=None, exclude_if=absent)
    classes: tuple[ClassFigures, ...] = ()
    calibration: Calibration | None = None
    selective: SelectiveFigures | None = Field(default=None, exclude_if=absent)
    robustness: tuple[Perturbation, ...] = ()
    fairness: Counterfactual | None = None
    max_logit_difference: float
    batch_texts: int
    batch_label_changes: int
    batch_deviation: float
    latency: tuple[Latency, ...]
    steps: tuple[StepFigures, ...] = ()
    long_texts: LongTextFigures | None = Field(default=None, exclude_if=absent)

    @property
    def speedup(self) -> float:
        """How many times faster the bundle is than its parent, over all shapes."""
        return median_speedup(self.latency)
