"""When an answer counts as failed: a fast answer that lacks a result must not look like a good one.

Knows nothing of locust. The messages never quote a text or a result, because they end up in reports.
"""

import json
from collections.abc import Sequence
from typing import Any

LATER = "429"  # the service's way to say "later"; counted apart from what is broken
UNREACHED = 0  # the status that locust gives to a request without an answer


def problem(status: int, content: bytes | None, inputs: int, labels: Sequence[str]) -> str | None:
    """What is wrong with an answer; None when nothing is.

    Args:
        status: HTTP status, or UNREACHED.
        content: body of the answer.
        inputs: number of texts that were sent.
        labels: fields that every result must have, and not empty.
    """
    if status == 429:
        return LATER
    if status == UNREACHED:
        return "no answer"
    try:
        body = json.loads(content or b"")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return f"status {status}, and the body is not a JSON object"
    return _wrong_results(body, inputs, labels) if status == 200 else _error(status, body)


def _error(status: int, body: dict[str, Any]) -> str:
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else "in an unknown shape"
    return f"status {status} {code}"


def _wrong_results(body: dict[str, Any], inputs: int, labels: Sequence[str]) -> str | None:
    results = body.get("results")
    if not isinstance(results, list):
        return "no results"
    if len(results) != inputs:
        return "the number of results is not the number of inputs"
    missing = [label for label in labels if not all(isinstance(row, dict) and row.get(label) for row in results)]
    return f"a result without {' and '.join(missing)}" if missing else None
