"""The OpenAPI document says what the endpoints are, and is whole by itself."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.access.limits import Limiter
from service.access.local import LocalOnly
from service.api.openapi import openapi_document
from service.api.routes import all_groups
from service.http.routing import Endpoint
from service.models.registry import Serving
from service.settings import Settings
from service.telemetry import Telemetry

GROUPS = all_groups(Serving(Settings(), Path, Telemetry(), lambda _: None), LocalOnly(()), Limiter())
ENDPOINTS = [endpoint for group in GROUPS for endpoint in group.endpoints]
DOCUMENT = openapi_document(GROUPS)
OPERATIONS = [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_endpoint_is_in_the_document_but_a_second_name_and_the_parts_of_a_page() -> None:
    described = {(path, method.upper()) for path, method, _ in OPERATIONS}
    others = {("/healthz", "GET"), ("/static_content/{file}", "GET")}
    assert {(one.path, one.method) for one in ENDPOINTS} - described == others
    assert {(path, "GET") for path in ("/", "/livez", "/readyz", "/metrics", "/docs.json", "/docs")} <= described


def test_names_are_unique_and_references_lead_somewhere() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) == known


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_parameter_of_a_path_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    described = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
    assert described == re.findall(r"\{(\w+)\}", path)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_errors_of_keys_and_bodies_are_those_of_endpoints_that_have_them(endpoint: Endpoint) -> None:
    if endpoint.operation is None:
        return
    responses = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]["responses"]
    assert ("401" in responses) is not endpoint.public
    assert ({"400", "408", "413", "415"} <= set(responses)) is (endpoint.operation.request is not None)
    assert ({"429", "504"} <= set(responses)) is (endpoint.admit is not None)


def test_our_own_bodies_take_no_other_keys_and_have_an_example() -> None:
    for path in ("/v1/classify", "/v1/triage", "/v1/models/{name}/load"):
        content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        assert schema["additionalProperties"] is False
        assert schema["examples"]
