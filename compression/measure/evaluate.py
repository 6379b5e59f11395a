"""How good a model's logits are: against labels and against another model, alone and in a batch."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression.bundle import ClassFigures, Input, Labelling, Logits, LongTexts, Number, SeveralLabels, Task
from compression.bundle.task import DEFAULT_THRESHOLD, Answers, Flags
from compression.data import Examples, names_of
from compression.errors import DataError
from compression.labels import require_known_labels
from compression.measure.evidence import Bin
from compression.measure.lengths import require_single_texts, say_longer
from compression.measure.numbers import deviation, fit_spread, number_quality
from compression.parent.classifier import BundleClassifier, Classifier, ParentClassifier, load_classifier, predict

Counts = npt.NDArray[np.float64]
_MIN_ROWS_FOR_TEMPERATURE = 50
_MIN_ROWS_FOR_THRESHOLD = 10
_THRESHOLDS = 0.01, 0.99  # the lowest and the highest that is chosen
_BINS = 15
SELECTION_TEXTS = 400  # that each step is judged on, at most; the numbers guide, they do not prove


@dataclass(frozen=True)
class Quality:
    """Fractions, not percent; None where no row has a label.

    Attributes:
        correct: rows that get exactly their labels; `accuracy` is their share.
        macro_f1: mean over the labels that occur in the data or in the answers.
        micro_f1: of all labels of all rows together; None where a text has one label, and it would be the accuracy.
    """

    texts: int
    labelled: int
    correct: int
    accuracy: float | None
    macro_f1: float | None
    micro_f1: float | None

    @property
    def points(self) -> float | None:
        """See `ModelFigures.points`."""
        return self.accuracy if self.micro_f1 is None else self.micro_f1


def evaluate(
    model: str, examples: Examples, source: Path, against: str | None = None, long_texts: LongTexts | None = None
) -> dict[str, Any]:
    """Loads a model (and another to compare with) and measures it.

    Args:
        long_texts: what a parent reads of texts that are longer than the window; None: what the bundle beside it does,
            or they are cut. A bundle has its own setting.

    Returns:
        the fields of Quality, or of a number those of NumberFigures, each with the ends of its interval; of a bundle
        that abstains, `coverage` and `selective_accuracy`: the fraction that it answers, and of these is right; with
        `against`, `agreement` too: the fraction of texts with the same answer from both; and of a number, how far the
        two are apart. Where no row has a label, `texts` and what is against the other model alone.

    Raises:
        LatheError: a model cannot be loaded, labels or `long_texts` do not fit, or there is neither a label nor another
            model.
    """
    labelled = len(examples.labelled)
    if not labelled and against is None:
        raise DataError(
            f"{source}: no row has a label, so there is nothing to count; name the column with --label-column, or pass "
            "--against with another bundle or the parent, which needs no labels"
        )
    require_single_texts(long_texts, examples, source)
    classifier, *others = _reading_alike([load_classifier(path) for path in filter(None, (model, against))], long_texts)
    classifier.require_reads(examples.inputs)
    require_known_labels(examples, classifier.task, source)
    say_longer(classifier, examples, source)
    logits = predict(classifier, examples.texts, "Evaluate")
    figures: dict[str, Any] = {"texts": len(examples)}
    task = classifier.task
    if labelled:
        figures = {**_figures(logits, task, examples), **selective(classifier, logits, examples)}
    for other in others:
        other.require_reads(examples.inputs)
        require_comparable(other, classifier)
        theirs = predict(other, examples.texts, "Evaluate the other")
        if isinstance(task, Number) and not task.spread:  # that of a parent is known to its bundles alone
            known = other.task.spread if isinstance(other.task, Number) else 0.0
            task = replace(task, spread=known or fit_spread(task, theirs).spread)
        figures["agreement"] = float(task.same(logits, theirs, other.task).mean())
        if isinstance(task, Number):
            apart = deviation(theirs, logits, task)
            figures |= {"spearman_with_other": apart.spearman, "mean_difference": apart.mean,
                        "largest_difference": apart.largest}  # fmt: skip
    return figures


def selective(classifier: Classifier, logits: Logits, examples: Examples) -> dict[str, float | None]:
    """`coverage` and `selective_accuracy` of one that abstains: the fraction that it answers, and of these is right, as
    far as that is known; of any other, nothing."""
    abstained = [one for one in classifier.abstains(logits) if one is not None]
    if not abstained:
        return {}
    answered = ~np.array(abstained)
    right = right_answers(logits, classifier.task, examples)[answered & examples.known]
    return {"coverage": float(answered.mean()), "selective_accuracy": float(right.mean()) if len(right) else None}


def _figures(logits: Logits, task: Task, examples: Examples) -> dict[str, Any]:
    if isinstance(task, Labelling):
        figures = asdict(quality(logits, task, examples))
        if not task.several:
            del figures["micro_f1"]
        return figures
    assert isinstance(task, Number)  # there is no third
    measured = number_quality(logits, task, examples)
    figures = {"texts": measured.texts, "labelled": measured.labelled}
    for name, estimate in measured.number or ():
        figures[name] = None if estimate is None else estimate.value
        if estimate is not None:
            figures |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return figures


def _reading_alike(
    models: Sequence[BundleClassifier | ParentClassifier], long_texts: LongTexts | None
) -> list[Classifier]:
    """The models; a parent reads of long texts what it is told to, or what the bundle beside it does."""
    own = [model.long_texts for model in models if isinstance(model, BundleClassifier)]
    if long_texts is not None and any(setting != long_texts for setting in own):
        raise DataError("--long-texts: a bundle has its own setting; leave it out")
    read = own[0] if own else long_texts
    return [model.reading(read) if isinstance(model, ParentClassifier) else model for model in models]


def require_comparable(other: Classifier, classifier: Classifier) -> None:
    """Refuses two models whose answers do not compare.

    Raises:
        DataError: one has other labels, or gives them in another way.
    """
    mine, theirs = classifier.task, other.task
    if mine.name != theirs.name:
        raise DataError(
            f"{classifier.name} gives {mine.gives} to a text, and {other.name} {theirs.gives}; they cannot be compared"
        )
    if set(mine.labels) != set(theirs.labels):
        raise DataError(f"{classifier.name} and {other.name} have different labels; they cannot be compared")


def quality(logits: Logits, task: Task, examples: Examples) -> Quality:
    """Counts the right answers.

    Args:
        logits: (texts, labels) for all of the examples.
    """
    rows, expected = labelled_rows(task, examples)
    answered = task.decide(logits[rows])
    correct = int((answered == expected).all(axis=-1).sum())
    return Quality(
        texts=len(examples),
        labelled=len(rows),
        correct=correct,
        accuracy=correct / len(rows) if rows else None,
        macro_f1=float(macro_f1(np.ones((1, len(rows))), expected, answered)[0]) if rows else None,
        micro_f1=float(micro_f1(np.ones((1, len(rows))), expected, answered)[0]) if rows and task.several else None,
    )


def macro_f1(drawn: Counts, truth: Answers, answered: Answers) -> Counts:
    """Mean F1 over the labels that occur in a draw's texts or answers, as scikit-learn has it.

    Args:
        drawn: (draws, texts) how often each text occurs.
        truth: (texts, labels); as is `answered`.

    Returns:
        (draws,)
    """
    is_truth, is_answer = truth.astype(float), answered.astype(float)
    hits = drawn @ (is_truth * is_answer)  # (draws, labels); so are the others
    occurrences = drawn @ (is_truth + is_answer)
    f1 = 2 * hits / np.maximum(occurrences, 1)
    return np.asarray(f1.sum(axis=1) / np.maximum((occurrences > 0).sum(axis=1), 1), np.float64)


def micro_f1(drawn: Counts, truth: Answers, answered: Answers) -> Counts:
    """F1 of all labels of all texts together, as scikit-learn has it; see `macro_f1`. It is 1 where there are none."""
    hits = drawn @ (truth & answered).sum(axis=1)
    occurrences = drawn @ (truth.sum(axis=1) + answered.sum(axis=1))
    return np.asarray(np.where(occurrences > 0, 2 * hits / np.maximum(occurrences, 1), 1.0), np.float64)


def agreement(one: Logits, other: Logits, task: Task) -> float:
    """Fraction of texts that get the same answers from both; the columns must be in the same order."""
    return float(task.same(one, other).mean())


def batch_invariance(classifier: Classifier, texts: Sequence[Input], seed: int = 0) -> tuple[int, float]:
    """A text (the first window of a long one) alone against the same in a shuffled batch of sixteen.

    Returns:
        how many texts get other answers, and the largest difference of any score.
    """
    task = classifier.task
    encoded = [classifier.encode(text).windows[0] for text in texts]
    random.Random(seed).shuffle(encoded)  # noqa: S311
    changes, deviation = 0, 0.0
    for start in range(0, len(encoded), 16):
        batch = encoded[start : start + 16]
        together = classifier.forward(batch)
        alone = np.concatenate([classifier.forward([text]) for text in batch])
        changes += int((~task.same(together, alone)).sum())
        moved = np.abs(task.scores(together) - task.scores(alone))
        deviation = max(deviation, float(moved.max()))
    return changes, deviation


def class_figures(parent: Logits, bundle: Logits, task: Task, examples: Examples) -> tuple[ClassFigures, ...]:
    """Recall of each label that occurs in the examples."""
    rows, truth = labelled_rows(task, examples)
    given = [task.decide(logits[rows]) for logits in (parent, bundle)]
    return tuple(
        ClassFigures(
            label=name,
            texts=int(has.sum()),
            parent_recall=float(given[0][has, index].mean()),
            bundle_recall=float(given[1][has, index].mean()),
        )
        for index, name in enumerate(task.labels)
        if (has := truth[:, index]).any()
    )


def reliability(logits: Logits, task: Labelling, examples: Examples, temperature: float = 1.0) -> tuple[Bin, ...]:
    """The labelled texts in bins of equal width by their top score; empty bins are left out (Naeini et al. 2015).

    Where a text may have several labels, each label of each text counts, by its score.
    """
    rows, truth = labelled_rows(task, examples)
    confidence, right = task.confidence(logits[rows], truth, temperature)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return tuple(
        Bin(texts=int(chosen.sum()), confidence=float(confidence[chosen].mean()), accuracy=float(right[chosen].mean()))
        for index in range(_BINS)
        if (chosen := bins == index).any()
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy, weighted by texts (Guo et al. 2017)."""
    return sum(one.texts * abs(one.confidence - one.accuracy) for one in bins) / sum(one.texts for one in bins)


def fit_temperature(logits: Logits, task: Labelling, examples: Examples) -> float:
    """The temperature that minimises the labels' negative log likelihood (Guo et al. 2017).

    It is 1 with too few texts, or where all have the same labels: they would only say how often those are given.
    """
    from scipy.optimize import minimize_scalar  # only needed where bundles are made

    rows, truth = labelled_rows(task, examples)
    if len(rows) < _MIN_ROWS_FOR_TEMPERATURE or (truth == truth[0]).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return task.loss(logits[rows], truth, float(np.exp(log_temperature)))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10.0)), method="bounded").x))


def fit_thresholds(task: SeveralLabels, logits: Logits, examples: Examples) -> SeveralLabels:
    """The same task, with the threshold of each label that gives it the highest F1 on these texts.

    Of equally good ones it is the nearest to 0.5, and 0.5 itself for a label that fewer than 10 of the texts have: what
    so few say is mostly chance.

    Args:
        logits: (texts, labels) for all of the examples.
    """
    rows, truth = labelled_rows(task, examples)
    scores = task.scores(logits[rows])
    fitted = [_best_threshold(scores[:, index], truth[:, index]) for index in range(len(task.labels))]
    return replace(task, thresholds=tuple(fitted))


def _best_threshold(scores: npt.NDArray[np.float64], has: npt.NDArray[np.bool_]) -> float:
    if has.sum() < _MIN_ROWS_FOR_THRESHOLD:
        return DEFAULT_THRESHOLD
    found = np.unique(scores)
    between = np.clip(np.round((found[1:] + found[:-1]) / 2, 4), *_THRESHOLDS)
    candidates = np.array(sorted({DEFAULT_THRESHOLD, *between}, key=lambda one: (abs(one - DEFAULT_THRESHOLD), one)))
    gets = scores >= candidates[:, None]  # (candidates, texts)
    f1 = 2 * (gets & has).sum(axis=1) / (gets.sum(axis=1) + has.sum())
    return float(candidates[f1.argmax()])  # the first of equal ones


def right_answers(logits: Logits, task: Task, examples: Examples) -> Flags:
    """Which texts get exactly their labels, (texts,); of others than those that are `known` it says nothing."""
    rows, truth = labelled_rows(task, examples)
    right = np.zeros(len(examples), np.bool_)
    right[rows] = (task.decide(logits[rows]) == truth).all(axis=-1)
    return right


def labelled_rows(task: Task, examples: Examples) -> tuple[list[int], Answers]:
    """The rows that have labels, and which each of them has: (rows, labels)."""
    columns = {name: index for index, name in enumerate(task.labels)}
    rows = [index for index, label in enumerate(examples.labels) if label is not None]
    truth = np.zeros((len(rows), len(columns)), np.bool_)
    for place, row in enumerate(rows):
        truth[place, [columns[name] for name in names_of(examples.labels[row])]] = True
    return rows, truth


def numbered(*answers: Answers) -> tuple[Answers, list[npt.NDArray[np.intp]]]:
    """The different answers among these, (different, labels), and for each text which one it is, (texts,) each.

    Those of one label stand in the order of the labels.
    """
    sets, numbers = np.unique(~np.concatenate(answers), axis=0, return_inverse=True)
    ends = np.cumsum([len(one) for one in answers])[:-1]
    return ~sets, np.split(numbers.ravel(), ends)
