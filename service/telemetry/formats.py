"""The formats that Prometheus asks for metrics in."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import prometheus_client.openmetrics.exposition as openmetrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector


class Format(NamedTuple):
    """How metrics are written."""

    content_type: str
    write: Callable[[Collector], bytes]

    @classmethod
    def of(cls, accepted: Iterable[tuple[str, str | None]]) -> "Format":
        """The first that there is of media types with versions; the oldest where there is none."""
        return next((_FORMATS[one] for one in accepted if one in _FORMATS), TEXT)


TEXT = Format(CONTENT_TYPE_PLAIN_0_0_4, generate_latest)
_OPEN_METRICS = Format(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest)
# By media type and version: what writes it. Both versions of the text are the same for names like ours.
_FORMATS: dict[tuple[str, str | None], Format] = {
    ("*/*", None): TEXT,
    ("text/*", None): TEXT,
    ("text/plain", None): TEXT,
    ("text/plain", "0.0.4"): TEXT,
    ("text/plain", "1.0.0"): Format(CONTENT_TYPE_LATEST, generate_latest),
    ("application/openmetrics-text", None): _OPEN_METRICS,
    ("application/openmetrics-text", "1.0.0"): _OPEN_METRICS,
}
