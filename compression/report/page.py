"""What a manifest says, for people: the report, the model card, and the table that the command line prints."""

from importlib import resources
from typing import Any

from rich.console import Console
from rich.table import Table

from compression.bundle import ClassFigures, Difference, Figures, Latency, Manifest, Significance
from compression.measure.evidence import Evidence
from compression.report.plots import Bar, bar_chart, reliability_diagram

Row = tuple[str, str, str]
_CLASSES_SHOWN = 20


def verdict(manifest: Manifest) -> str:
    """What was gained and what it cost, in one sentence."""
    figures = manifest.figures
    size = figures.bundle.size_mb / figures.parent.size_mb
    gained = f"{100 * size:.0f} % of the size, {figures.speedup:.1f} times as fast"
    significance = figures.significance
    if significance is None:
        return (
            f"{gained}; the parent's label on {_percent(figures.agreement)} % of {manifest.data.test_texts} texts, "
            f"95 % interval {_percent(figures.agreement_low)} to {_percent(figures.agreement_high)}."
        )
    difference = significance.accuracy
    return (
        f"{gained}; accuracy {_percent(figures.parent.accuracy)} to {_percent(figures.bundle.accuracy)} %, "
        f"difference {_signed(difference.value)} points, "
        f"95 % interval {_signed(difference.low)} to {_signed(difference.high)}."
    )


def comparison(manifest: Manifest) -> list[Row]:
    """Parent against bundle, the essential rows: what, parent, bundle."""
    figures = manifest.figures
    return [
        ("size, MB", f"{figures.parent.size_mb:.1f}", f"{figures.bundle.size_mb:.1f}"),
        ("accuracy, %", _percent(figures.parent.accuracy), _percent(figures.bundle.accuracy)),
        ("macro-F1, %", _percent(figures.parent.macro_f1), _percent(figures.bundle.macro_f1)),
        *_significance_rows(figures.significance),
        ("agreement with parent, % (95 %)", "", _agreement(figures)),
        ("largest difference of a logit", "", f"{figures.max_logit_difference:.2f}"),
        ("largest change of a score by a batch", "", _small(figures.batch_deviation)),
        *((f"speed, {latency.batch} x {latency.tokens} tokens", "1", _speed(latency)) for latency in figures.latency),
    ]


def behaviour(figures: Figures) -> list[Row]:
    """How both behave on changed texts, and how sure they are: what, parent, bundle."""
    rows = [
        (f"label changed by {noise.kind}, %", _percent(noise.parent.changed), _percent(noise.bundle.changed))
        for noise in figures.robustness
    ]
    if figures.fairness:
        changed = [_percent(side.changed) for side in (figures.fairness.parent, figures.fairness.bundle)]
        rows.append(("label changed by swapped names and pronouns, %", changed[0], changed[1]))
    if figures.calibration:
        before, after = figures.calibration.ece_before, figures.calibration.ece_after
        rows.append(("calibration error, points", _percent(figures.calibration.parent_ece), _percent(before)))
        rows.append(("calibration error of calibrated scores, points", "", _percent(after)))
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
    Console().print(table)


def report_html(manifest: Manifest, evidence: Evidence = Evidence()) -> str:
    """A page that needs no other file and no network."""
    figures = manifest.figures
    return _render(
        "report.html",
        manifest,
        title=manifest.parent.name,
        evidence=evidence,
        sizes=_size_chart(figures),
        speeds=_speed_chart(figures.latency),
        classes=_class_chart(figures.classes),
        classes_shown=_CLASSES_SHOWN,
        reliability=reliability_diagram(evidence.before, evidence.after),
    )


def model_card(manifest: Manifest, name: str) -> str:
    """README.md of a bundle."""
    return _render("card.md", manifest, title=name, behaviour=behaviour(manifest.figures))


def _size_chart(figures: Figures) -> str:
    """The parent, then the model after each step; parent and bundle alone where no step was judged."""
    sizes = [("parent", figures.parent.size_mb, figures.parent.accuracy)]
    if figures.steps:
        sizes = [("parent", figures.parent.size_mb, None)]
        sizes += [(step.step, step.size_mb, step.accuracy) for step in figures.steps]
    else:
        sizes.append(("bundle", figures.bundle.size_mb, figures.bundle.accuracy))
    largest = max(size for _, size, _ in sizes)
    bars = [
        Bar(
            label=_short(name),
            text=f"{size:.1f} MB" + ("" if accuracy is None else f", {_percent(accuracy)} %"),
            start=0,
            end=size / largest,
            style="bundle" if row else "parent",
        )
        for row, (name, size, accuracy) in enumerate(sizes)
    ]
    return bar_chart("Size and accuracy", bars)


def _speed_chart(latencies: tuple[Latency, ...]) -> str:
    most = max(1.0, *(latency.ratio_high for latency in latencies))
    bars = [Bar("parent", "1", 0, 1 / most, "parent")]
    bars += [
        Bar(
            label=f"{latency.batch} x {latency.tokens} tokens",
            text=_speed(latency),
            start=0,
            end=latency.ratio / most,
            style="bundle",
            spread=(latency.ratio_low / most, latency.ratio_high / most),
        )
        for latency in latencies
    ]
    return bar_chart("Speed against the parent", bars)


def _class_chart(classes: tuple[ClassFigures, ...]) -> str:
    """The labels whose recall changed most, losses to the left."""
    changes = [(one.bundle_recall - one.parent_recall, one) for one in classes]
    changes = sorted((one for one in changes if one[0]), key=lambda one: (-abs(one[0]), one[1].label))[:_CLASSES_SHOWN]
    if not changes:
        return ""
    most = max(abs(change) for change, _ in changes)
    bars = [
        Bar(
            label=f"{_short(one.label)} ({one.texts})",
            text=_signed(change),
            start=0.5,
            end=0.5 + 0.5 * change / most,
            style="gain" if change > 0 else "loss",
        )
        for change, one in changes
    ]
    return bar_chart("Change of recall in points", bars, zero=0.5)


def _render(template: str, manifest: Manifest, **values: Any) -> str:
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (resources.files("compression.report") / "templates" / name).read_text("utf-8")
        ),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=_percent, small=_small)
    recipe = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True)
    return environment.get_template(template).render(
        manifest=manifest,
        figures=manifest.figures,
        verdict=verdict(manifest),
        rows=comparison(manifest),
        recipe=recipe,
        **values,
    )


def _significance_rows(significance: Significance | None) -> list[Row]:
    if significance is None:
        return []
    return [
        ("accuracy, points of difference (95 %)", "", _points(significance.accuracy)),
        ("macro-F1, points of difference (95 %)", "", _points(significance.macro_f1)),
        ("McNemar's p", "", f"{significance.mcnemar_p:.2g}"),
    ]


def _points(difference: Difference) -> str:
    """With its 95 % interval."""
    return f"{_signed(difference.value)} ({_signed(difference.low)} to {_signed(difference.high)})"


def _signed(fraction: float) -> str:
    """In points."""
    points = f"{100 * fraction:+.1f}"
    return "0.0" if float(points) == 0 else points


def _small(number: float) -> str:
    return f"{number:.1e}" if number else "0"


def _agreement(figures: Figures) -> str:
    """In percent, with its 95 % interval."""
    return f"{_percent(figures.agreement)} ({_percent(figures.agreement_low)} to {_percent(figures.agreement_high)})"


def _speed(latency: Latency) -> str:
    return f"{latency.ratio:.1f} x ({latency.ratio_low:.1f} to {latency.ratio_high:.1f})"


def _short(label: str) -> str:
    return label if len(label) <= 30 else f"{label[:29]}…"


def _percent(fraction: float | None) -> str:
    return "no labels" if fraction is None else f"{100 * fraction:.1f}"
