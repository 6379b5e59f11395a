"""Contrast of two colours, as WCAG 2.2 defines it: 1 (the same) to 21 (black on white)."""

import re

LIGHT, DARK = "light", "dark"
Palette = dict[str, str]
_DARK = re.compile(r"@media \(prefers-color-scheme: dark\) *\{ *:root *\{([^}]*)\}", re.DOTALL)
_ROOT = re.compile(r":root *\{([^}]*)\}", re.DOTALL)
_VARIABLE = re.compile(r"--([\w-]+): *(#[0-9a-f]{3,6}) *[;}\n]")


def contrast(one: str, other: str) -> float:
    """Contrast of two colours that are written `#rgb` or `#rrggbb`."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def palettes(css: str) -> dict[str, Palette]:
    """The colour variables of a style sheet, by colour scheme."""
    dark = _DARK.search(css)
    light = _ROOT.search(css)
    assert dark is not None
    assert light is not None
    base = dict(_VARIABLE.findall(light[1] + ";"))
    return {LIGHT: base, DARK: {**base, **dict(_VARIABLE.findall(dark[1] + ";"))}}


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
