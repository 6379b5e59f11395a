"""What a manifest says, for people: the report, the model card, and the table that the command line prints."""

from rich.table import Table

from compression.bundle import (
    ClassFigures,
    Difference,
    Estimate,
    Figures,
    Latency,
    Manifest,
    Number,
    SeveralLabels,
    Significance,
    SingleLabel,
)
from compression.measure.evaluate import SELECTION_TEXTS
from compression.measure.evidence import Evidence
from compression.measure.intervals import newcombe, wilson
from compression.progress import plain_console
from compression.report import numbers
from compression.report.plots import Axis, Row, bar_chart, reliability_diagram, risk_coverage, scatter
from compression.report.rendering import Origin, render
from compression.report.words import counted, percent, ranged, reading, signed, small

Line = tuple[str, str, str]  # what, parent, bundle
_CLASSES_SHOWN = 20
_FEW_TEXTS = 20  # of a label: one text is 5 points or more
_LEAST_POINTS = 10.0  # to each side of the axis of changes: a point looks like a point


def is_several(manifest: Manifest) -> bool:
    """Whether a text may have several labels."""
    return manifest.task == SeveralLabels.name


def is_number(manifest: Manifest) -> bool:
    """Whether a text gets a number."""
    return manifest.task == Number.name


def accuracy_name(manifest: Manifest) -> str:
    """What the share of texts that get exactly their labels is called."""
    return SeveralLabels.accuracy if is_several(manifest) else SingleLabel.accuracy


def verdict(manifest: Manifest) -> str:
    """What was gained and what it cost, in one sentence."""
    figures = manifest.figures
    size = figures.bundle.size_mb / figures.parent.size_mb
    gained = f"{100 * size:.0f} % of the size, {_speeds(figures.latency)}"
    significance = figures.significance
    if is_number(manifest):
        cost = numbers.cost(figures, manifest.data.labelled_test_texts, manifest.data.test_texts)
        return f"{gained}; {cost}."
    if significance is None:
        return (
            f"{gained}; the parent's {'labels' if is_several(manifest) else 'label'} on "
            f"{percent(figures.agreement)} % of {manifest.data.test_texts} texts, "
            f"95 % interval {percent(figures.agreement_low)} to {percent(figures.agreement_high)}."
        )
    difference = significance.micro_f1 or significance.accuracy
    what = "micro F1" if significance.micro_f1 else "accuracy"
    return (
        f"{gained}; {what} {percent(figures.parent.points)} to {percent(figures.bundle.points)} % of "
        f"{manifest.data.labelled_test_texts} texts, difference {signed(difference.value)} points, "
        f"95 % interval {signed(difference.low)} to {signed(difference.high)}."
    )


def comparison(manifest: Manifest) -> list[Line]:
    """Parent against bundle, the essential rows."""
    figures, data = manifest.figures, manifest.data
    labelled = data.labelled_test_texts
    same = data.test_texts - figures.flipped
    size = ("size, MB", f"{figures.parent.size_mb:.1f}", f"{figures.bundle.size_mb:.1f}")
    rest = [
        ("agreement with parent, % (95 %)", "", _agreement(figures)),
        ("largest difference of a logit", "", f"{figures.max_logit_difference:.2f}"),
        ("largest change of a score by a batch", "", small(figures.batch_deviation)),
        *_long_text_rows(manifest),
        *(
            (f"speed, {latency.batch} x {latency.tokens} tokens", _own_speed(latency), _speed(latency))
            for latency in figures.latency
        ),
    ]
    if is_number(manifest):
        return [
            size,
            *numbers.lines(figures),
            ("number as the parent's, texts", "", f"{same} of {data.test_texts}"),
            *rest,
        ]
    return [
        size,
        (
            f"{accuracy_name(manifest)}, %",
            counted(figures.parent.accuracy, labelled),
            counted(figures.bundle.accuracy, labelled),
        ),
        ("macro-F1, %", percent(figures.parent.macro_f1), percent(figures.bundle.macro_f1)),
        *_micro_f1_rows(figures),
        *_significance_rows(figures.significance, accuracy_name(manifest)),
        *_selective_rows(manifest),
        ("label as the parent's, texts", "", f"{same} of {data.test_texts}"),
        *rest,
    ]


def behaviour(manifest: Manifest) -> list[Line]:
    """How both behave on changed texts, and how sure they are: what, parent, bundle."""
    figures, what = manifest.figures, "number" if is_number(manifest) else "label"
    rows = [
        (
            f"{what} changed by {noise.kind}, %",
            counted(noise.parent.changed, noise.texts),
            counted(noise.bundle.changed, noise.texts),
        )
        for noise in figures.robustness
    ]
    if figures.fairness:
        texts = figures.fairness.texts
        changed = [counted(side.changed, texts) for side in (figures.fairness.parent, figures.fairness.bundle)]
        rows.append((f"{what} changed by swapped names and pronouns, %", changed[0], changed[1]))
    if figures.calibration:
        before, after = figures.calibration.ece_before, figures.calibration.ece_after
        rows.append(("calibration error, points", percent(figures.calibration.parent_ece), percent(before)))
        rows.append(("calibration error of calibrated scores, points", "", percent(after)))
    return rows


def print_comparison(name: str, manifest: Manifest) -> None:
    """Prints the comparison as a table on standard output."""
    data = manifest.data
    table = Table(
        title=f"{name} on {data.test_texts} texts, {data.labelled_test_texts} with labels", title_justify="left"
    )
    table.add_column("")
    table.add_column("parent", justify="right")
    table.add_column("bundle", justify="right")
    for row in comparison(manifest):
        table.add_row(*row)
    plain_console().print(table)


def report_html(manifest: Manifest, origin: Origin, evidence: Evidence = Evidence()) -> str:
    """A page that needs no other file and no network."""
    figures = manifest.figures
    return render(
        "report.html",
        title=manifest.parent.name,
        origin=origin,
        manifest=manifest,
        figures=figures,
        verdict=verdict(manifest),
        accuracy=accuracy_name(manifest),
        several=is_several(manifest),
        number=manifest.runtime.number,
        scatter=scatter(evidence.numbers) if evidence.numbers else "",
        conclusion=numbers.conclusion(figures.differences) if figures.differences else "",
        long_texts=reading(manifest.runtime.long_texts),
        rows=comparison(manifest),
        recipe=_recipe(manifest),
        evidence=evidence,
        sizes=_size_chart(figures),
        selection_texts=min(SELECTION_TEXTS, manifest.data.selection_texts),
        speeds=_speed_chart(figures.latency),
        classes=_class_chart(figures.classes),
        classes_shown=_CLASSES_SHOWN,
        few_texts=_FEW_TEXTS,
        reliability=reliability_diagram(evidence.before, evidence.after),
        risk=_risk_chart(manifest, evidence),
    )


def model_card(manifest: Manifest, name: str) -> str:
    """README.md of a bundle."""
    return render(
        "card.md",
        title=name,
        manifest=manifest,
        several=is_several(manifest),
        number=manifest.runtime.number,
        verdict=verdict(manifest),
        long_texts=reading(manifest.runtime.long_texts),
        rows=comparison(manifest),
        behaviour=behaviour(manifest),
    )


def _recipe(manifest: Manifest) -> str:
    import yaml

    return yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True)


def _size_chart(figures: Figures) -> str:
    """The parent, then the model after each step; parent and bundle alone where no step was judged."""
    steps = [(step.step, step.size_mb) for step in figures.steps] or [("bundle", figures.bundle.size_mb)]
    rows = [Row("parent", f"{figures.parent.size_mb:.1f} MB", figures.parent.size_mb, "parent")]
    rows += [Row(f"after {name}" if figures.steps else name, f"{size:.1f} MB", size, "bundle") for name, size in steps]
    return bar_chart("Size", rows, Axis.around([0.0, *(row.value for row in rows)], "MB"))


def _speed_chart(latencies: tuple[Latency, ...]) -> str:
    rows = [Row("parent", "1 x", 1.0, "parent")]
    for latency in latencies:
        shape = f"{latency.batch} x {latency.tokens} tokens"
        interval = (latency.ratio_low, latency.ratio_high)
        rows.append(Row(shape, _speed(latency), latency.ratio, "bundle", interval))
        if latency.onnx_ratio is not None:
            label = f"{shape}, parent in ONNX Runtime"
            rows.append(Row(label, f"{latency.onnx_ratio:.1f} x", latency.onnx_ratio, "parent"))
    most = max(1.0, *(row.value for row in rows), *(latency.ratio_high for latency in latencies))
    return bar_chart("Speed against the parent", rows, Axis.around([0.0, most], "times the parent's speed"))


def _risk_chart(manifest: Manifest, evidence: Evidence) -> str:
    selective, abstain = manifest.figures.selective, manifest.runtime.abstain
    if selective is None or not evidence.bundle_risk:
        return ""
    coverage = None if abstain is None else selective.answered / selective.texts
    return risk_coverage(evidence.parent_risk, evidence.bundle_risk, coverage)


def _class_chart(classes: tuple[ClassFigures, ...]) -> str:
    """The labels whose recall changed most, losses to the left; those of few texts last, grey, without an interval."""
    changed = [one for one in classes if one.bundle_recall != one.parent_recall]
    changed.sort(key=lambda one: (one.texts < _FEW_TEXTS, -abs(_change(one)), one.label))
    if not changed:
        return ""
    rows = [_class_row(one) for one in changed[:_CLASSES_SHOWN]]
    ends = [end for row in rows for end in (row.value, *(row.interval or ()))]
    most = max(_LEAST_POINTS, *map(abs, ends))
    return bar_chart("Change of recall", rows, Axis.around([-most, most], "points of recall", signed=True))


def _class_row(one: ClassFigures) -> Row:
    before, after = (round(recall * one.texts) for recall in (one.parent_recall, one.bundle_recall))
    few = one.texts < _FEW_TEXTS
    low, high = newcombe(before, after, one.texts)
    change = _change(one)
    return Row(
        label=one.label,
        text=f"{signed(change)} points, {after - before:+d} of {one.texts} texts",
        value=100 * change,
        style="few" if few else "gain" if change > 0 else "loss",
        interval=None if few else (100 * low, 100 * high),
    )


def _change(one: ClassFigures) -> float:
    return one.bundle_recall - one.parent_recall


def _micro_f1_rows(figures: Figures) -> list[Line]:
    if figures.parent.micro_f1 is None:
        return []
    return [("micro-F1, %", percent(figures.parent.micro_f1), percent(figures.bundle.micro_f1))]


def _long_text_rows(manifest: Manifest) -> list[Line]:
    found = manifest.figures.long_texts
    if found is None:
        return []
    rows = [(f"texts of more than {manifest.max_length} tokens", "", f"{found.longer} of {manifest.data.test_texts}")]
    if manifest.runtime.long_texts is not None:
        rows.append(("windows computed of a text, mean", "", f"{found.windows:.2f}"))
    return rows


def _significance_rows(significance: Significance | None, accuracy: str) -> list[Line]:
    if significance is None:
        return []
    return [
        (f"{accuracy}, points of difference (95 %)", "", _points(significance.accuracy)),
        ("macro-F1, points of difference (95 %)", "", _points(significance.macro_f1)),
        *(
            [("micro-F1, points of difference (95 %)", "", _points(significance.micro_f1))]
            if significance.micro_f1
            else []
        ),
        ("McNemar's p", "", f"{significance.mcnemar_p:.2g}"),
    ]


def _selective_rows(manifest: Manifest) -> list[Line]:
    """What is answered, and how much of it is right, where the bundle abstains from something."""
    selective, accuracy = manifest.figures.selective, accuracy_name(manifest)
    if selective is None:
        return []
    outside = selective.outside
    sides = [] if outside is None else [
        ("AUROC, inside against outside (95 %)", _auroc(outside.parent_auroc), _auroc(outside.bundle_auroc))
    ]  # fmt: skip
    if manifest.runtime.abstain is None:
        return sides
    right = _share(selective.right, selective.answered) if selective.answered else "nothing"
    return [
        ("answered, % (95 %)", "", _share(selective.answered, selective.texts)),
        (f"{accuracy} of what is answered, % (95 %)", "", right),
        *(
            [("abstained from, of those outside, % (95 %)", "", _share(outside.abstained, outside.texts))]
            if outside
            else []
        ),
        *sides,
    ]


def _auroc(figure: Estimate) -> str:
    return ranged(*(f"{value:.3f}" for value in (figure.value, figure.low, figure.high)))


def _share(found: int, texts: int) -> str:
    """In percent, with its 95 % interval."""
    return ranged(*map(percent, (found / texts, *wilson(found, texts))))


def _points(difference: Difference) -> str:
    """With its 95 % interval."""
    return ranged(*map(signed, (difference.value, difference.low, difference.high)))


def _agreement(figures: Figures) -> str:
    """In percent, with its 95 % interval."""
    return ranged(*map(percent, (figures.agreement, figures.agreement_low, figures.agreement_high)))


def _own_speed(latency: Latency) -> str:
    """The parent's: what speeds are times of, and what it is without PyTorch."""
    return "1" if latency.onnx_ratio is None else f"1; {latency.onnx_ratio:.1f} in ONNX Runtime"


def _speed(latency: Latency) -> str:
    """With its quartiles."""
    return ranged(f"{latency.ratio:.1f} x", f"{latency.ratio_low:.1f}", f"{latency.ratio_high:.1f}")


def _speeds(latencies: tuple[Latency, ...]) -> str:
    """How many times as fast as the parent, slowest and fastest shape."""
    low, high = (choose(latencies, key=lambda one: one.ratio) for choose in (min, max))
    fastest = f"{high.ratio:.1f} times as fast at {high.batch} x {high.tokens} tokens"
    return fastest if low is high else f"{fastest}, {low.ratio:.1f} at {low.batch} x {low.tokens}"
