"""The gate, in front of apps that misbehave."""

import asyncio
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.keys import Authenticator, add_key
from service.errors import ErrorResponse, InvalidRequest, Overloaded, ServiceError
from service.http.gate import Gate
from service.http.messages import App, Receive, Request, Response, Send
from service.http.routing import Endpoint, ErrorShape, Routes
from service.telemetry import Telemetry

SECRET = "zanzibarium"


def ask(
    app: App,
    telemetry: Telemetry | None = None,
    authenticator: Authenticator | None = None,
    key: str = "",
    endpoints: Sequence[Endpoint] = (),
    method: str = "GET",
) -> httpx.Response:
    """One request through the gate, as an ASGI server would send it."""
    gate = Gate(app, Routes(endpoints), telemetry or Telemetry(), authenticator)

    async def main() -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(gate), headers=headers, base_url="http://lathe"
        ) as client:
            return await client.request(method, "/v1/models")

    return asyncio.run(main())


def answering(status: int, content_type: bytes = b"text/plain") -> App:
    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})
        await send({"type": "http.response.body", "body": SECRET.encode()})

    return app


async def failing(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    raise RuntimeError(SECRET)


def test_an_exception_becomes_a_500_and_its_message_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(failing)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.json()["error"]["request_id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text + answer.text


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (500, "internal_error"), (503, "not_ready")]
)
def test_error_pages_of_others_get_our_shape(status: int, code: str) -> None:
    answer = ask(answering(status))
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


def test_what_is_well_passes_as_it_is() -> None:
    answer = ask(answering(200))
    assert answer.text == SECRET
    assert answer.headers["x-request-id"]


def test_every_answer_is_counted_under_its_code() -> None:
    telemetry = Telemetry()
    ask(failing, telemetry)
    ask(answering(404), telemetry)
    exposition = telemetry.exposition().decode()
    assert 'lathe_requests_total{code="internal_error",route="other",status="500"} 1.0' in exposition
    assert 'lathe_requests_total{code="not_found",route="other",status="404"} 1.0' in exposition


@pytest.mark.parametrize("tenant", ["shop", ""])
def test_the_app_behind_is_told_whose_key_it_is(tmp_path: Path, tenant: str) -> None:
    key = add_key(tmp_path / "keys.json", "shop")
    seen: list[str] = []

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        seen.append(scope["lathe.tenant"])
        await answering(200)(scope, receive, send)

    authenticator = Authenticator(tmp_path / "keys.json") if tenant else None
    assert ask(app, authenticator=authenticator, key=key).status_code == 200
    assert seen == [tenant]


def test_an_endpoint_without_a_handler_is_answered_by_the_app_behind_and_counted_by_its_path(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "shop")
    keys, telemetry = Authenticator(tmp_path / "keys.json"), Telemetry()
    for public, status in ((True, 200), (False, 401)):
        behind = Endpoint("GET", "/v1/models", None, public=public)
        for method in ("GET", "HEAD"):
            assert ask(answering(200), telemetry, keys, "nonsense", [behind], method).status_code == status
    exposition = telemetry.exposition().decode()
    assert 'lathe_requests_total{code="ok",route="/v1/models",status="200"} 2.0' in exposition


def test_a_method_that_a_path_does_not_take_is_told_which_it_takes() -> None:
    async def handler(_: Request) -> Response:
        raise AssertionError

    endpoints = [Endpoint("POST", "/v1/models", handler), Endpoint("GET", "/v1/models", None)]
    answer = ask(failing, endpoints=endpoints, method="DELETE")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


class Unexpected(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "path", "failure", "refused"),
    [
        ("POST", "/ask", Overloaded("full", 3), True),
        ("GET", "/ask", Overloaded("full", 3), False),
        ("POST", "/other", Overloaded("full", 3), False),
        ("POST", "/ask", None, False),
        ("POST", "/ask", InvalidRequest("a timeout of x"), False),  # told when it is served
        ("POST", "/ask", Unexpected("a fault"), False),
    ],
)
def test_what_would_be_refused_for_want_of_room_is_refused_by_its_head(
    tmp_path: Path, method: str, path: str, failure: Exception | None, refused: bool
) -> None:
    asked: list[tuple[str, str | None]] = []

    def admit(tenant: str, timeout: str | None) -> None:
        asked.append((tenant, timeout))
        if failure is not None:
            raise failure

    async def handler(request: Request) -> Response:
        raise AssertionError

    telemetry = Telemetry()
    key = f"Bearer {add_key(tmp_path / 'keys.json', 'shop')}".encode()

    def error_body(error: ServiceError, _: str) -> dict[str, object]:
        return {"error": error.message}

    endpoint = Endpoint("POST", "/ask", handler, admit=admit, errors=ErrorShape(ErrorResponse, error_body))
    routes = Routes([endpoint, Endpoint("POST", "/other", handler)])
    gate = Gate(failing, routes, telemetry, Authenticator(tmp_path / "keys.json"))
    answer = gate.refuse(method, path, [(b"authorization", key), (b"x-request-timeout-ms", b"70")])
    assert gate.refuse(method, path, [(b"authorization", b"Bearer y")]) is None  # told when it is served
    assert asked == [("shop", "70")] * ((method, path) == ("POST", "/ask"))
    counted = 'lathe_requests_total{code="overloaded",route="/ask",status="429"} 1.0' in telemetry.exposition().decode()
    assert counted is refused
    if not refused:
        assert answer is None
        return
    assert answer is not None
    found = dict(answer.headers)
    assert (answer.status, answer.body) == (429, b'{"error":"full"}')
    assert (found[b"retry-after"], found[b"content-length"]) == (b"3", b"16")
    assert len(found[b"x-request-id"]) == 32
