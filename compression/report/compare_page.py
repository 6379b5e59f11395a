"""The page of `lathe compare --html`: size against accuracy as an inline SVG, larger dots where a bundle is faster.

It needs no other file and no network.
"""

import math
from dataclasses import dataclass

from compression.bundle import extra
from compression.report.compare import Comparison, Entry, rows

# The SVG's own units; the page scales it to its width.
_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 30, 25, 50
_RADIUS = (6.0, 18.0)


@dataclass(frozen=True)
class Dot:
    """One bundle on the plot."""

    number: int
    name: str
    x: float
    y: float
    radius: float


def comparison_html(comparison: Comparison) -> str:
    """A page with the plot and the table."""
    with extra("serve", "a page"):
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compression.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    headings, cells = rows(comparison)
    return environment.get_template("compare.html").render(
        comparison=comparison, headings=headings, cells=cells, **_plot(comparison.entries)
    )


def _plot(entries: tuple[Entry, ...]) -> dict[str, object]:
    """Where everything goes. Accuracy where every bundle has one, else agreement."""
    labelled = all(entry.accuracy is not None for entry in entries)
    heights = [100 * (entry.accuracy if labelled and entry.accuracy is not None else entry.agreement)
               for entry in entries]  # fmt: skip
    x_ticks = _ticks([0.0, *(entry.size_mb for entry in entries)])
    y_ticks = _ticks(heights)
    shape, radii = _radii(entries)

    def x(size_mb: float) -> float:
        share = (size_mb - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(percent: float) -> float:
        share = (percent - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP), 1)

    dots = [
        Dot(number, entry.name, x(entry.size_mb), y(height), radius)
        for number, (entry, height, radius) in enumerate(zip(entries, heights, radii, strict=True), start=1)
    ]
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": _HEIGHT - _BOTTOM,
        "x_ticks": [(x(tick), f"{tick:g}") for tick in x_ticks],
        "y_ticks": [(y(tick), f"{tick:g}") for tick in y_ticks],
        "y_title": "accuracy, %" if labelled else "agreement, %",
        "dots": sorted(dots, key=lambda dot: -dot.radius),  # the small ones on top
        "shape": shape,
    }


def _radii(entries: tuple[Entry, ...]) -> tuple[str, list[float]]:
    """The first shape that all were timed at, and radii whose squares (areas) grow with the speed there."""
    shared = [shape for shape in entries[0].speeds if all(shape in entry.speeds for entry in entries)]
    if not shared:
        return "", [_RADIUS[0]] * len(entries)
    speeds = [entry.speeds[shared[0]] for entry in entries]
    small, large = _RADIUS
    radii = [round(max(small, large * math.sqrt(speed / max(speeds))), 1) for speed in speeds]
    return f"{shared[0][0]} x {shared[0][1]} tokens", radii


def _ticks(values: list[float]) -> list[float]:
    """Round numbers, three to seven of them, that enclose the values: steps of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    raw = max(high - low, 0.1) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 6) for index in range(first, max(last, first + 1) + 1)]
