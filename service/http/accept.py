"""What a client would rather have (RFC 9110, 12.5.1)."""

import math


def accepted(header: str | None) -> list[tuple[str, str | None]]:
    """Media ranges of an Accept header, each with the version that it asks for, the most wanted first.

    What is not wanted (q=0) is left out, and what cannot be understood.
    """
    found = []
    for item in (header or "").split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        quality = _number(values.get("q", "1"))
        if media and quality > 0:
            found.append((-quality, media, values.get("version", "").strip('"') or None))
    return [(media, version) for _, media, version in sorted(found, key=lambda one: one[0])]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
