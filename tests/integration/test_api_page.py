"""docs/api.md shows what the real service answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from docs.answers import ANSWERS, alike, ask, shown
from docs.api import api_page
from service.http.operation import Operation
from tests.handmade import make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration

SHOWN: dict[str, Any] = json.loads(ANSWERS.read_text("utf-8"))


@pytest.fixture(scope="module")
def answers(models_setting: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What this service answers now."""
    folder: Path = tmp_path_factory.mktemp("api")
    make_bundle(folder / "root" / "sentiment-2")
    settings = {"LATHE_MODELS": models_setting, "LATHE_BUNDLES_ROOT": str(folder / "root")}
    with serve(folder / "service.log", settings) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        yield ask(client)


def test_every_route_with_an_answer_is_shown_with_it() -> None:
    assert set(SHOWN) == {operation.name for _, operation in shown()}
    page = api_page()
    for endpoint, _ in shown():
        assert f"### {endpoint.method} {endpoint.path}\n" in page


@pytest.mark.parametrize("name", SHOWN)
def test_a_shown_answer_has_the_names_and_types_of_the_real_one(answers: dict[str, Any], name: str) -> None:
    assert alike(SHOWN[name], answers[name]), answers[name]


@pytest.mark.parametrize("operation", [operation for _, operation in shown()], ids=lambda operation: operation.name)
def test_an_answer_is_as_the_openapi_document_says(answers: dict[str, Any], operation: Operation) -> None:
    for answer in (SHOWN[operation.name], answers[operation.name]):
        TypeAdapter(operation.answer).validate_json(json.dumps(answer))
