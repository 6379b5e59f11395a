"""The page of `lathe compare --html`: a row for each bundle and figure, with intervals on one axis.

Nothing is set against anything else: a few points whose intervals overlap, drawn over size, would look like a trend.
"""

from collections.abc import Sequence

from compression.measure.intervals import Interval
from compression.report.compare import Comparison, Shape
from compression.report.plots import Axis, Row, bar_chart, dot_chart
from compression.report.rendering import Origin, render
from compression.report.words import counted, measured, percent

_OF_NUMBERS = (  # figure, its name, what the axis says
    ("spearman", "Spearman's correlation", "correlation"),
    ("mae", "Mean absolute error", "units of the number, less is better"),
    ("rmse", "Root mean squared error", "units of the number, less is better"),
)


def comparison_html(comparison: Comparison, origin: Origin) -> str:
    """A page that needs no other file and no network."""
    entries = comparison.entries
    accuracy = "Exact match" if all(one.micro_f1 is not None for one in entries) else "Accuracy"
    labelled = [one for one in entries if one.accuracy_interval is not None]
    return render(
        "compare.html",
        title=f"{len(entries)} bundles side by side" if len(entries) > 1 else entries[0].name,
        origin=origin,
        comparison=comparison,
        shapes=comparison.shapes(),
        accuracy=_fractions(
            accuracy, [(one.name, one.accuracy, one.labelled, one.accuracy_interval) for one in labelled]
        ),
        agreement=_fractions(
            "Agreement", [(one.name, one.agreement, one.texts, one.agreement_interval) for one in entries]
        ),
        numbers=_numbers(comparison),
        all_numbers=all(one.number is not None for one in entries),
        any_number=any(one.number is not None for one in entries),
        any_abstains=any(one.coverage is not None for one in entries),
        sizes=_sizes(comparison),
        speeds=[(f"{batch} x {tokens} tokens", _speeds(comparison, (batch, tokens)))
                for batch, tokens in comparison.shapes()],
    )  # fmt: skip


def _fractions(title: str, figures: Sequence[tuple[str, float | None, int, Interval | None]]) -> str:
    """Dots with their intervals; empty where no bundle has the figure."""
    rows, ends = [], []
    for name, fraction, texts, interval in figures:
        if fraction is not None and interval is not None:
            low, high = (100 * end for end in interval)
            text = f"{counted(fraction, texts)}, {percent(interval[0])} to {percent(interval[1])}"
            rows.append(Row(name, text, 100 * fraction, "bundle", (low, high)))
            ends += [low, high]
    return dot_chart(title, rows, Axis.around(ends, "%")) if rows else ""


def _numbers(comparison: Comparison) -> list[tuple[str, str]]:
    """Of each figure that says how near numbers are to the labels, its name and chart; none where no bundle has it."""
    charts = []
    for name, what, unit in _OF_NUMBERS:
        rows = [
            Row(one.name, measured(figure), figure.value, "bundle", (figure.low, figure.high))
            for one in comparison.entries
            if one.number is not None and (figure := getattr(one.number, name)) is not None
        ]
        if rows:
            ends = [end for row in rows for end in row.interval or ()]
            charts.append((what, dot_chart(what, rows, Axis.around(ends, unit))))
    return charts


def _sizes(comparison: Comparison) -> str:
    rows = [Row(one.name, f"{one.size_mb:.1f} MB", one.size_mb, "bundle") for one in comparison.entries]
    return bar_chart("Size", rows, Axis.around([0.0, *(row.value for row in rows)], "MB"))


def _speeds(comparison: Comparison, shape: Shape) -> str:
    speeds = [(one.name, one.speeds[shape]) for one in comparison.entries]
    rows = [
        Row(name, f"{speed.median:.1f} x ({speed.low:.1f} to {speed.high:.1f})", speed.median, "bundle",
            (speed.low, speed.high))
        for name, speed in speeds
    ]  # fmt: skip
    axis = Axis.around([0.0, 1.0, *(speed.high for _, speed in speeds)], "times the speed of the reference")
    return bar_chart("Speed", rows, axis)
