"""`lathe compare`: bundles side by side, from what their manifests say or measured anew on the same texts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from compression.bundle import Bundle, Logits, Number, NumberFigures, open_bundle
from compression.data import Examples
from compression.labels import require_known_labels
from compression.measure.evaluate import quality, require_comparable, selective
from compression.measure.intervals import Interval, wilson
from compression.measure.latency import Quartiles, time_against_first
from compression.measure.numbers import number_quality
from compression.parent.classifier import BundleClassifier, Classifier, predict
from compression.progress import plain_console
from compression.report.words import percent, plain

_COLUMNS = 80
_COLUMNS_OF_MORE = 120  # where some give labels and some numbers, or some abstain
_OF_NUMBERS = ("Spearman", "MAE", "RMSE")
_OF_ABSTAINING = ("answered, %", "right of these, %")
Shape = tuple[int, int]  # texts, tokens of each


@dataclass(frozen=True)
class Entry:
    """One bundle's row. Fractions, not percent; None where there are no labels.

    Attributes:
        size_mb: of model.onnx, 10^6 bytes.
        texts: that judged it; `labelled` of them have labels.
        accuracy: share of the texts that get exactly their labels.
        micro_f1: where a text may have several labels.
        number: of models that give one, in place of those.
        agreement: fraction of texts with the same answers as the reference.
        speeds: by shape (texts, tokens), the reference's time over this one's.
        coverage: fraction of the texts that one with a threshold does not abstain from.
        selective_accuracy: of these, the share that gets exactly its labels.
    """

    name: str
    size_mb: float
    texts: int
    labelled: int
    accuracy: float | None
    macro_f1: float | None
    agreement: float
    speeds: dict[Shape, Quartiles]
    micro_f1: float | None = None
    number: NumberFigures | None = None
    coverage: float | None = None
    selective_accuracy: float | None = None

    @property
    def accuracy_interval(self) -> Interval | None:
        """At 95 %."""
        return None if self.accuracy is None else wilson(round(self.accuracy * self.labelled), self.labelled)

    @property
    def agreement_interval(self) -> Interval:
        """At 95 %."""
        return wilson(round(self.agreement * self.texts), self.texts)


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    reference: what agreement and speed are against.
    warning: why the rows do not compare; empty where they do.
    """

    title: str
    reference: str
    entries: tuple[Entry, ...]
    warning: str = ""

    def shapes(self) -> list[Shape]:
        """Those that every bundle was timed at."""
        return [shape for shape in self.entries[0].speeds if all(shape in one.speeds for one in self.entries)]


def compare_manifests(paths: Sequence[Path]) -> Comparison:
    """Takes the figures that each bundle was written with.

    Raises:
        BundleError: one of them is no bundle.
    """
    bundles = [open_bundle(path) for path in paths]
    data = {bundle.manifest.data.sha256: bundle.manifest.data.name for bundle in bundles}
    return Comparison(
        title=f"as measured on {', '.join(sorted(set(data.values())))} when each was made",
        reference="its own parent",
        entries=tuple(_from_manifest(bundle) for bundle in bundles),
        warning=f"These bundles were judged on {len(data)} different data files, so their figures do not compare; "
        "give --data FILE to measure them on the same texts"
        if len(data) > 1
        else "",
    )


def compare_on(paths: Sequence[Path], examples: Examples, source: Path) -> Comparison:
    """Measures the bundles anew, on the same texts; the first one is the reference of agreement and speed.

    Raises:
        BundleError: one of them is no bundle.
        DataError: their labels differ from each other's, or from those of the texts.
    """
    bundles = [open_bundle(path) for path in paths]
    models = [BundleClassifier.of(one) for one in bundles]
    for model in models:
        model.require_reads(examples.inputs)
        require_known_labels(examples, model.task, source)
        require_comparable(model, models[0])
    logits = [predict(model, examples.texts, "Compare") for model in models]
    speeds = time_against_first(models, examples.texts)
    entries = []
    for bundle, model, got, speed in zip(bundles, models, logits, speeds, strict=True):
        entries.append(
            Entry(
                name=model.name,
                size_mb=bundle.manifest.figures.bundle.size_mb,
                texts=len(examples),
                labelled=len(examples.labelled),
                **_held_against_labels(got, model, examples),
                agreement=float(models[0].task.same(logits[0], got, model.task).mean()),
                speeds=speed,
            )
        )
    return Comparison(
        title=f"measured on {len(examples)} texts of {source.name}",
        reference=models[0].name,
        entries=tuple(entries),
    )


def rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The comparison as text: headings, and the cells of each bundle; the number stands for its name below it."""
    shapes = comparison.shapes()
    several = [one for one in comparison.entries if one.micro_f1 is not None]
    numbers = [one for one in comparison.entries if one.number is not None]
    accuracy = "exact match, %" if len(several) == len(comparison.entries) else "accuracy, %"
    labels = [] if len(numbers) == len(comparison.entries) else [accuracy, "macro-F1, %"]
    micro = ["micro-F1, %"] if several else []
    abstaining = any(one.coverage is not None for one in comparison.entries)
    answered = _OF_ABSTAINING if abstaining else ()
    headings = ["", "bundle", "MB", *labels, *micro, *(_OF_NUMBERS if numbers else ()), *answered, "agreement, %"]
    cells = [
        [
            str(number),
            entry.name,
            f"{entry.size_mb:.1f}",
            *([_share(entry, entry.accuracy), _share(entry, entry.macro_f1)] if labels else []),
            *(["" if entry.micro_f1 is None else percent(entry.micro_f1)] if several else []),
            *(_numbers(entry.number) if numbers else ()),
            *([_known(entry.coverage), _known(entry.selective_accuracy)] if abstaining else []),
            percent(entry.agreement),
            *(f"{entry.speeds[shape].median:.1f} x" for shape in shapes),
        ]
        for number, entry in enumerate(comparison.entries, start=1)
    ]
    return [*headings, *(f"{batch} x {tokens}" for batch, tokens in shapes)], cells


def _share(entry: Entry, fraction: float | None) -> str:
    return "" if entry.number is not None else percent(fraction)


def _known(fraction: float | None) -> str:
    return "" if fraction is None else percent(fraction)


def _numbers(figures: NumberFigures | None) -> list[str]:
    if figures is None:
        return [""] * len(_OF_NUMBERS)
    return [plain(figures.spearman), plain(figures.mae), plain(figures.rmse)]


def print_comparison(comparison: Comparison) -> None:
    """Prints the rows on standard output: names above, since they are long, and figures below in 80 columns."""
    headings, cells = rows(comparison)
    kinds = {one.number is None for one in comparison.entries}
    abstaining = any(one.coverage is not None for one in comparison.entries)
    least = _COLUMNS_OF_MORE if len(kinds) > 1 or abstaining else _COLUMNS
    output = plain_console(width=max(least, plain_console().width))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (headings[0], *headings[2:]):
        table.add_column(heading, justify="right", no_wrap=True)
    lines = [f"{comparison.title}; agreement and speed against {comparison.reference}"]
    for number, name, *figures in cells:
        lines.append(f"{number}  {name}")
        table.add_row(number, *figures)
    output.print("\n".join(lines), highlight=False, soft_wrap=True)
    output.print(table)


def comparison_json(comparison: Comparison) -> str:
    """The comparison as one JSON object, nothing rounded."""
    content = asdict(comparison)
    for entry, one in zip(content["entries"], comparison.entries, strict=True):
        entry["number"] = None if one.number is None else one.number.model_dump()
        entry["speeds"] = [
            {"batch": batch, "tokens": tokens, "speed": speed.median, "low": speed.low, "high": speed.high}
            for (batch, tokens), speed in one.speeds.items()
        ]
    return json.dumps(content, indent=2)


def _held_against_labels(logits: Logits, model: Classifier, examples: Examples) -> dict[str, Any]:
    """The fields of an entry that say how near answers are to the labels."""
    if isinstance(model.task, Number):
        return {"accuracy": None, "macro_f1": None, "number": number_quality(logits, model.task, examples).number}
    result = quality(logits, model.task, examples)
    shares = {"accuracy": result.accuracy, "macro_f1": result.macro_f1, "micro_f1": result.micro_f1}
    return {**shares, **selective(model, logits, examples)}


def _from_manifest(bundle: Bundle) -> Entry:
    figures, found = bundle.manifest.figures, bundle.manifest.figures.selective
    coverage = of_answered = None
    if found is not None and bundle.manifest.runtime.abstain is not None:
        coverage = found.answered / found.texts
        of_answered = found.right / found.answered if found.answered else None
    return Entry(
        name=str(bundle.path),
        size_mb=figures.bundle.size_mb,
        texts=bundle.manifest.data.test_texts,
        labelled=bundle.manifest.data.labelled_test_texts,
        accuracy=figures.bundle.accuracy,
        macro_f1=figures.bundle.macro_f1,
        micro_f1=figures.bundle.micro_f1,
        number=figures.bundle.number,
        agreement=figures.agreement,
        speeds={
            (latency.batch, latency.tokens): Quartiles(latency.ratio_low, latency.ratio, latency.ratio_high)
            for latency in figures.latency
        },
        coverage=coverage,
        selective_accuracy=of_answered,
    )
