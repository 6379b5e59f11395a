"""How figures are written for people."""

import unicodedata


def percent(fraction: float | None) -> str:
    """Without the sign."""
    return "no labels" if fraction is None else f"{100 * fraction:.1f}"


def counted(fraction: float | None, texts: int) -> str:
    """In percent, and how many of the texts that is: `97.5 (39 of 40)`."""
    return "no labels" if fraction is None else f"{percent(fraction)} ({round(fraction * texts)} of {texts})"


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
