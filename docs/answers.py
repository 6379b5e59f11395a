"""`python -m docs.answers URL`: asks a running service what docs/api.md shows, and keeps its answers for that page.

The service serves the default bundles, and has a bundle `sentiment-2` below LATHE_BUNDLES_ROOT; it is left as it was.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from service.access.limits import Limiter
from service.access.local import LocalOnly
from service.api.routes import all_groups
from service.http.operation import Operation
from service.http.routing import Endpoint, Group
from service.models.registry import Serving
from service.settings import Settings
from service.telemetry import Telemetry

ANSWERS = Path(__file__).with_name("answers.json")
_SHOWN = 3  # entries of a long list, or of a bundle's figures
_FIGURES = "figures"  # of any shape: a bundle has those that were measured


def groups() -> list[Group]:
    """Every route, of a service that serves nothing."""
    return all_groups(Serving(Settings(), Path, Telemetry(), lambda _: None), LocalOnly(()), Limiter())


def shown() -> Iterator[tuple[Endpoint, Operation]]:
    """The endpoints whose answers are shown: not pages, nor the document of all, nor what no default bundle gives."""
    for group in groups():
        for endpoint in group.endpoints:
            operation = endpoint.operation
            if (
                operation is not None
                and operation.content_type != "text/html"
                and operation.name not in ("docs", "rerank")
            ):
                yield endpoint, operation


def example(operation: Operation) -> Any:
    """The body that is sent; None where there is none."""
    if operation.request is None:
        return None
    extra = operation.request.model_config.get("json_schema_extra")
    assert isinstance(extra, dict)
    return extra["examples"][0]  # type: ignore[index]  # a list of bodies


def ask(client: httpx.Client) -> dict[str, Any]:
    """The service's answers, shortened, by the name of the operation."""
    version = client.get("/v2/models/sentiment").raise_for_status().json()["versions"][0]
    known = {operation.name: (endpoint, operation) for endpoint, operation in shown()}
    answers = {}
    for name in known:
        for step in ("load", name) if name == "drop" else (name,):  # there has to be a trial
            endpoint, operation = known[step]
            path = endpoint.path.format(name="sentiment", model="sentiment", version=version)
            answer = client.request(endpoint.method, path, json=example(operation)).raise_for_status()
            answers[step] = shortened(answer.json() if operation.content_type == "application/json" else answer.text)
    return answers


def shortened(answer: Any, few: bool = False) -> Any:
    """An answer whose long lists, texts and figures say how much more there is."""
    if isinstance(answer, dict):
        pairs = list(answer.items())
        kept = {name: shortened(value, name == _FIGURES) for name, value in (pairs[:_SHOWN] if few else pairs)}
        return {**kept, "...": f"and {len(pairs) - _SHOWN} more"} if few and len(pairs) > _SHOWN else kept
    if isinstance(answer, list):
        more = [f"... and {len(answer) - _SHOWN} more"] if len(answer) > _SHOWN else []
        return [*(shortened(value) for value in answer[:_SHOWN]), *more]
    if isinstance(answer, str) and answer.count("\n") > _SHOWN:
        return "\n".join([line for line in answer.splitlines() if "lathe_requests" in line][:_SHOWN])
    return answer


def alike(one: Any, other: Any) -> bool:
    """Whether two answers have the same names, and types where neither is null; whatever the models."""
    if one is None or other is None:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(name == _FIGURES or alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or alike(one[0], other[0])
    return type(one) is type(other) or {type(one), type(other)} == {int, float}


def main() -> int:
    """Asks, and writes the answers."""
    with httpx.Client(base_url=sys.argv[1], timeout=60, trust_env=False) as client:
        ANSWERS.write_text(json.dumps(ask(client), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
