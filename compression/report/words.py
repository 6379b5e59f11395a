"""How figures are written for people."""

import math
import re
import unicodedata

from compression.bundle.figures import Difference, Estimate
from compression.bundle.windows import HeadTail, LongTexts

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_JOINED = {"mean": "mean", "max": "maximum"}
_MARKDOWN = re.compile(r"[\\`*{}\[\]<>#|~&!]|(?<![^\W_])_|_(?![^\W_])")  # a _ within a word is just that


def percent(fraction: float | None) -> str:
    """Without the sign."""
    return "no labels" if fraction is None else f"{100 * fraction:.1f}"


def counted(fraction: float | None, texts: int) -> str:
    """In percent, and how many of the texts that is: `97.5 (39 of 40)`."""
    return "no labels" if fraction is None else f"{percent(fraction)} ({round(fraction * texts)} of {texts})"


def plain(figure: Estimate | Difference | None, sign: bool = False) -> str:
    """A number's figure, which is no fraction, without its interval."""
    return "undefined" if figure is None else number(figure.value, sign)


def measured(figure: Estimate | Difference | None, sign: bool = False) -> str:
    """The same with its interval."""
    if figure is None:
        return "undefined"
    return ranged(*(number(value, sign) for value in (figure.value, figure.low, figure.high)))


def number(value: float, sign: bool = False) -> str:
    """In three digits, or all those before the point; a zero has no sign."""
    if not abs(value) >= 5e-5:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 1000 else 0
    return f"{value:{'+' if sign else ''}.{min(digits, 4)}f}"


def signed(fraction: float) -> str:
    """In points."""
    points = f"{100 * fraction:+.1f}"
    return "0.0" if float(points) == 0 else points


def ranged(value: str, low: str, high: str) -> str:
    """With its interval."""
    return f"{value} ({low} to {high})"


def small(number: float) -> str:
    """Of a difference that may be tiny."""
    return f"{number:.1e}" if number else "0"


def reading(long_texts: LongTexts | None) -> str:
    """What becomes of texts that are longer than the window."""
    if long_texts is None:
        return "cut"
    if isinstance(long_texts, HeadTail):
        return "their beginnings and ends are read"
    apart = "" if long_texts.stride is None else f" that begin {long_texts.stride} tokens apart"
    return f"read in up to {long_texts.max_windows} windows{apart}; the {_JOINED[long_texts.join]} of the logits counts"


def short(label: str, columns: int) -> str:
    """Without its middle where it is wider than so many Latin letters: names of bundles differ at the end."""
    if width(label) <= columns:
        return label
    kept = len(label) // 2
    while width(label[:kept] + "…" + label[-kept:]) > columns:
        kept -= 1
    return f"{label[:kept]}…{label[-kept:]}"


def width(text: str) -> int:
    """In Latin letters; a Chinese one takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def printable(text: str) -> str:
    """Of a name that others chose: what a terminal would obey is written as in Python."""
    return _CONTROL.sub(lambda control: repr(control[0])[1:-1], text)


def markdown(text: str) -> str:
    """Of a name that others chose, as Markdown that shows it as it is."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def code(text: str) -> str:
    """The same as code in a line of Markdown."""
    text = printable(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if not text.strip(" ") or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"
