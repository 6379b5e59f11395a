"""Inline SVG for `report.html`. Colours come from the page's style sheet, so that both colour schemes fit.

Bar charts have no viewBox: widths are percentages and text keeps the page's size, on a phone as on a desk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from compression.measure.evidence import Bin

_ROW = 46  # px: a line of text, then the bar below it
_SIDE = 300  # of the square of the reliability diagram, in its own units
_LEFT, _TOP = 40, 8


@dataclass(frozen=True)
class Bar:
    """One row; positions are fractions of the chart's width.

    Attributes:
        text: the value, in words.
        style: class of the style sheet: `parent`, `bundle`, `loss` or `gain`.
        spread: where the whisker begins and ends.
    """

    label: str
    text: str
    start: float
    end: float
    style: str
    spread: tuple[float, float] | None = None


def bar_chart(title: str, bars: Sequence[Bar], zero: float = 0.0) -> str:
    """Horizontal bars under their labels; `zero` is where the axis stands."""
    height = _ROW * len(bars)
    parts = [
        f'<svg class="bars" role="img" width="100%" height="{height}" aria-label="{_spoken(title, bars)}">',
        f'<line class="axis" x1="{_percent(zero)}" x2="{_percent(zero)}" y1="0" y2="{height}"/>' if zero else "",
    ]
    for row, bar in enumerate(bars):
        top = _ROW * row
        left, width = min(bar.start, bar.end), abs(bar.end - bar.start)
        parts.append(
            f'<text x="0" y="{top + 18}">{escape(bar.label)}</text>'
            f'<text class="value" x="100%" y="{top + 18}" text-anchor="end">{escape(bar.text)}</text>'
            f'<rect class="{bar.style}" x="{_percent(left)}" y="{top + 25}" width="{_percent(width)}" height="12"/>'
        )
        if bar.spread:
            low, high = map(_percent, bar.spread)
            parts.append(f'<line class="spread" x1="{low}" x2="{high}" y1="{top + 31}" y2="{top + 31}"/>')
    return "".join([*parts, "</svg>"])


def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Accuracy over confidence, a point per bin, its area as its number of texts; on the diagonal both are equal."""
    width, height = _LEFT + _SIDE + 8, _TOP + _SIDE + 40
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
        f'<svg class="reliability" role="img" viewBox="0 0 {width} {height}" '
        f'aria-label="Reliability diagram: {escape(spoken)}">{ticks}'
        f'<line class="axis" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
        f"{''.join(_curve(name, bins) for name, bins in series)}"
        f'<text x="{_x(0.5)}" y="{height - 6}" text-anchor="middle">confidence, %</text>'
        f'<text transform="translate(10 {_y(0.5)}) rotate(-90)" text-anchor="middle">accuracy, %</text></svg>'
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
    return f"{100 * min(max(fraction, 0.0), 1.0):.2f}%"


def _spoken(title: str, bars: Sequence[Bar]) -> str:
    return escape(f"{title}: " + "; ".join(f"{bar.label}: {bar.text}" for bar in bars))
