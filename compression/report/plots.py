"""Inline SVG of the pages. Colours come from the style sheet, so that both colour schemes fit.

Charts of rows have no viewBox: widths are percentages and text keeps the page's size, on a phone as on a desk.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from compression.measure.evidence import Bin, RiskCurve
from compression.report.words import short, width

_LINE, _BAR, _GAP = 20, 12, 14  # px: a line of text, a bar, what lies between two rows
_PHONE_COLUMNS = 44  # Latin letters of one line on a phone
_SIDE = 300  # of the square of the reliability diagram, in its own units
_LEFT, _TOP = 44, 8


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with round numbers at equal distances.

    Attributes:
        step: from one number to the next.
        unit: what the numbers are.
        signed: whether gains have a plus sign.
    """

    low: float
    high: float
    step: float
    unit: str
    signed: bool = False

    @classmethod
    def around(cls, values: Iterable[float], unit: str, signed: bool = False) -> "Axis":
        """The shortest one that holds these values, with two to seven numbers 1, 2 or 5 times a power of ten apart."""
        found = list(values)
        low, high = min(found), max(found)
        raw = max(high - low, 1e-3) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(first * step, max(last, first + 1) * step, step, unit, signed)

    def numbers(self) -> list[float]:
        """Those that are written below it."""
        return [self.low + self.step * index for index in range(round((self.high - self.low) / self.step) + 1)]

    def at(self, value: float) -> float:
        """Where a value lies, as a fraction of the width."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def name(self, number: float) -> str:
        """As it is written below the axis."""
        near = 0.0 if abs(number) < self.step / 2 else number
        return f"{near:+g}" if self.signed and near else f"{near:.6g}"


@dataclass(frozen=True)
class Row:
    """One value of a chart, in the units of its axis.

    Attributes:
        text: the value, in words.
        style: class of the style sheet: `parent`, `bundle`, `loss`, `gain` or `few`.
        interval: where the whisker begins and ends.
    """

    label: str
    text: str
    value: float
    style: str
    interval: tuple[float, float] | None = None


def bar_chart(title: str, rows: Sequence[Row], axis: Axis) -> str:
    """Bars from zero, which the axis holds."""
    return _chart(title, rows, axis, bars=True)


def dot_chart(title: str, rows: Sequence[Row], axis: Axis) -> str:
    """A dot for each value: its axis need not begin at zero."""
    return _chart(title, rows, axis, bars=False)


def _chart(title: str, rows: Sequence[Row], axis: Axis, bars: bool) -> str:
    """Each row under its words, the axis below all; where one's label and text do not fit beside each other, all stand
    on two lines."""
    drawn, top = [], 0
    beside = all(width(row.label) + width(row.text) + 2 <= _PHONE_COLUMNS for row in rows)
    for row in rows:
        label = short(row.label, _PHONE_COLUMNS)
        drawn.append(f'<text x="0" y="{top + 15}">{escape(label)}</text>')
        top += 0 if beside else _LINE
        place = 'x="100%" text-anchor="end"' if beside else 'x="0"'
        drawn.append(f'<text class="value" {place} y="{top + 15}">{escape(row.text)}</text>')
        top += _LINE
        drawn.append(_mark(row, axis, top, bars))
        top += _BAR + _GAP
    grid = [f'<line class="grid" x1="{_percent(axis.at(number))}" x2="{_percent(axis.at(number))}" y1="0" y2="{top}"/>'
            for number in axis.numbers()]  # fmt: skip
    zero = _percent(axis.at(0))
    if axis.low <= 0 <= axis.high:
        grid.append(f'<line class="axis" x1="{zero}" x2="{zero}" y1="0" y2="{top}"/>')
    names = [_number(axis, number, top + 15) for number in axis.numbers()]
    unit = f'<text class="unit" x="100%" y="{top + 33}" text-anchor="end">{escape(axis.unit)}</text>'
    spoken = escape(f"{title}: " + "; ".join(f"{row.label}: {row.text}" for row in rows))
    return (
        f'<svg class="rows" role="img" width="100%" height="{top + 40}" aria-label="{spoken}">'
        f"{''.join([*grid, *drawn, *names, unit])}</svg>"
    )


def _mark(row: Row, axis: Axis, top: int, bars: bool) -> str:
    start, end, middle = axis.at(0), axis.at(row.value), top + _BAR // 2
    whisker = ""
    if row.interval:
        low, high = (_percent(axis.at(edge)) for edge in row.interval)
        whisker = f'<line class="spread" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
    if bars:
        left, wide = _percent(min(start, end)), _percent(abs(end - start))
        return f'<rect class="{row.style}" x="{left}" y="{top}" width="{wide}" height="{_BAR}"/>{whisker}'
    return f'{whisker}<circle class="{row.style}" cx="{_percent(end)}" cy="{middle}" r="{_BAR // 2}"/>'


def _number(axis: Axis, number: float, y: int) -> str:
    where = axis.at(number)
    anchor = "start" if where < 0.02 else "end" if where > 0.98 else "middle"
    return f'<text class="unit" x="{_percent(where)}" y="{y}" text-anchor="{anchor}">{axis.name(number)}</text>'


def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Accuracy over confidence, a point per bin, its area as its number of texts; on the diagonal both are equal."""
    wide, height = _LEFT + _SIDE + 8, _TOP + _SIDE + 40
    series = [("before", before), ("after", after)]
    spoken = "; ".join(
        f"{name} temperature: "
        + ", ".join(f"{100 * one.confidence:.0f} % sure, {100 * one.accuracy:.0f} % right" for one in bins)
        for name, bins in series
    )
    ticks = "".join(
        f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(tick)}" y2="{_y(tick)}"/>'
        f'<text x="{_x(tick)}" y="{_y(0) + 16}" text-anchor="middle">{100 * tick:.0f}</text>'
        f'<text x="{_LEFT - 6}" y="{_y(tick) + 4}" text-anchor="end">{100 * tick:.0f}</text>'
        for tick in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg class="reliability" role="img" viewBox="0 0 {wide} {height}" '
        f'aria-label="Reliability diagram: {escape(spoken)}">{ticks}'
        f'<line class="axis" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
        f"{''.join(_curve(name, bins) for name, bins in series)}"
        f'<text x="{_x(0.5)}" y="{height - 6}" text-anchor="middle">confidence, %</text>'
        f'<text transform="translate(10 {_y(0.5)}) rotate(-90)" text-anchor="middle">accuracy, %</text></svg>'
    )


def risk_coverage(parent: RiskCurve, bundle: RiskCurve, coverage: float | None) -> str:
    """The error among the surest texts over the fraction that they are, of parent and bundle.

    Args:
        coverage: of the bundle, where it abstains from the others; a line there.
    """
    axis = Axis.around([0.0, *(100 * error for _, error in (*parent, *bundle))], "")
    wide, height = _LEFT + _SIDE + 8, _TOP + _SIDE + 40
    ticks = "".join(
        f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(axis.at(number))}" y2="{_y(axis.at(number))}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(axis.at(number)) + 4}" text-anchor="end">{axis.name(number)}</text>'
        for number in axis.numbers()
    ) + "".join(
        f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        f'<text x="{_x(tick)}" y="{_y(0) + 16}" text-anchor="middle">{100 * tick:.0f}</text>'
        for tick in (0, 0.25, 0.5, 0.75, 1)
    )
    lines = "".join(
        f'<polyline class="{style}" points="'
        + " ".join(f"{_x(covered)},{_y(axis.at(100 * error))}" for covered, error in curve)
        + '"/>'
        for style, curve in (("before", parent), ("after", bundle))
    )
    threshold = ""
    if coverage is not None:
        threshold = f'<line class="axis" x1="{_x(coverage)}" x2="{_x(coverage)}" y1="{_y(0)}" y2="{_y(1)}"/>'
    return (
        f'<svg class="reliability" role="img" viewBox="0 0 {wide} {height}" aria-label="Error among the surest texts, '
        f'{_spoken(parent)} of the parent, {_spoken(bundle)} of the bundle">{ticks}{threshold}{lines}'
        f'<text x="{_x(0.5)}" y="{height - 6}" text-anchor="middle">answered, %</text>'
        f'<text transform="translate(10 {_y(0.5)}) rotate(-90)" text-anchor="middle">wrong among those, %</text></svg>'
    )


def _spoken(curve: RiskCurve) -> str:
    half = min(curve, key=lambda point: abs(point[0] - 0.5))
    return f"{100 * half[1]:.1f} % of half and {100 * curve[-1][1]:.1f} % of all"


def scatter(pairs: Sequence[tuple[float, float]]) -> str:
    """The bundle's number over the parent's, a point for each text; on the diagonal both are equal."""
    axis = Axis.around([number for pair in pairs for number in pair], "")
    wide, height = _LEFT + _SIDE + 8, _TOP + _SIDE + 40
    ticks = "".join(
        f'<line class="grid" x1="{_x(at)}" x2="{_x(at)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(at)}" y2="{_y(at)}"/>'
        f'<text x="{_x(at)}" y="{_y(0) + 16}" text-anchor="middle">{axis.name(number)}</text>'
        f'<text x="{_LEFT - 6}" y="{_y(at) + 4}" text-anchor="end">{axis.name(number)}</text>'
        for number in axis.numbers()
        for at in [axis.at(number)]
    )
    dots = "".join(f'<circle class="point" cx="{_x(axis.at(a))}" cy="{_y(axis.at(b))}" r="3"/>' for a, b in pairs)
    return (
        f'<svg class="reliability" role="img" viewBox="0 0 {wide} {height}" '
        f"aria-label=\"The bundle's number over the parent's, of {len(pairs)} texts\">{ticks}"
        f'<line class="axis" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>{dots}'
        f'<text x="{_x(0.5)}" y="{height - 6}" text-anchor="middle">parent</text>'
        f'<text transform="translate(10 {_y(0.5)}) rotate(-90)" text-anchor="middle">bundle</text></svg>'
    )


def _curve(style: str, bins: Sequence[Bin]) -> str:
    largest = max((one.texts for one in bins), default=1)
    points = " ".join(f"{_x(one.confidence)},{_y(one.accuracy)}" for one in bins)
    dots = "".join(
        f'<circle class="{style}" cx="{_x(one.confidence)}" cy="{_y(one.accuracy)}" '
        f'r="{3 + 6 * (one.texts / largest) ** 0.5:.1f}"/>'
        for one in bins
    )
    return f'<polyline class="{style}" points="{points}"/>{dots}'


def _x(fraction: float) -> float:
    return round(_LEFT + _SIDE * fraction, 1)


def _y(fraction: float) -> float:
    return round(_TOP + _SIDE * (1 - fraction), 1)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"
