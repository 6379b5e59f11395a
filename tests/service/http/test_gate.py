"""The gate, in front of apps that misbehave."""

import asyncio
import math
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.authenticator import Authenticator
from service.access.keys import add_key
from service.access.local import LocalOnly
from service.errors import ErrorResponse, Overloaded, ServiceError
from service.http.entrance import Entrance, Entry
from service.http.gate import Gate
from service.http.messages import ENTRY, App, Receive, Request, Response, Send
from service.http.routing import Endpoint, ErrorShape, Routes
from service.telemetry import Telemetry
from service.tenant import Tenant

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
    gate = Gate(app, Entrance(Routes(endpoints), authenticator or LocalOnly(()), 1000), telemetry or Telemetry())

    async def main() -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(gate), headers=headers, base_url="http://localhost"
        ) as client:
            return await client.request(method, "/v1/models")

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"order-17/a.B_c:9+=@", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"a b", False),
        (b"\xff", False),
        (b"", False),
    ],
)
def test_a_client_s_own_request_id_is_kept_where_it_can_do_no_harm(given: bytes, kept: bool) -> None:
    entry = Entrance(Routes(()), LocalOnly(()), 1000).enter("GET", "/nope", [(b"x-request-id", given)])
    assert (entry.id == given.decode("latin-1")) is kept
    assert entry.id.isprintable()
    assert entry.id


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


def ask_by_head(
    folder: Path, method: str, path: str, failure: Exception | None = None, **headers: str
) -> tuple[Entry | Response, Gate, list[tuple[Tenant, float]], Telemetry]:
    """What a gate, which takes POST /ask and POST /other, says to a request's headers; and how /ask was asked for
    capacity: by whom, until when."""
    asked: list[tuple[Tenant, float]] = []

    def admit(tenant: Tenant, deadline: float) -> None:
        asked.append((tenant, deadline))
        if failure is not None:
            raise failure

    async def handler(request: Request) -> Response:
        return Response.json([request.caller.name, request.deadline < math.inf])

    def error_body(error: ServiceError, _: str) -> dict[str, object]:
        return {"error": error.message}

    telemetry, errors = Telemetry(), ErrorShape(ErrorResponse, error_body)
    key = add_key(folder / "keys.json", "shop", priority="batch")
    routes = Routes(
        [Endpoint("POST", "/ask", handler, admit=admit, errors=errors), Endpoint("POST", "/other", handler)]
    )
    gate = Gate(failing, Entrance(routes, Authenticator(folder / "keys.json"), 1000), telemetry)
    given = {"authorization": f"Bearer {key}", **headers}
    entry = gate.enter(method, path, [(name.replace("_", "-").encode(), given[name].encode()) for name in given])
    return entry, gate, asked, telemetry


@pytest.mark.parametrize(
    ("path", "failure", "headers", "status"),
    [
        ("/ask", Overloaded("full", 3), {}, 429),
        ("/ask", Unexpected(SECRET), {}, 500),
        ("/ask", None, {"x_request_timeout_ms": "soon"}, 400),
        ("/ask", None, {"authorization": "Bearer y"}, 401),
        ("/other", None, {"authorization": "Bearer y"}, 401),
        ("/unknown", None, {"authorization": "Bearer y"}, 401),
    ],
)
def test_what_is_not_served_is_answered_by_its_head(
    tmp_path: Path, path: str, failure: Exception | None, headers: dict[str, str], status: int
) -> None:
    answer, _, _, telemetry = ask_by_head(tmp_path, "POST", path, failure, **headers)
    assert isinstance(answer, Response)
    found = dict(answer.headers)
    assert answer.status == status
    assert found[b"content-length"] == b"%d" % len(answer.body)
    assert len(found[b"x-request-id"]) == 32
    if status == 429:
        assert (answer.body, found[b"retry-after"]) == (b'{"error":"full"}', b"3")
    assert SECRET.encode() not in answer.body
    route = "other" if path == "/unknown" else path
    rows = [row for row in telemetry.exposition().decode().splitlines() if row.startswith("lathe_requests_total{")]
    assert [f'route="{route}",status="{status}"}} 1.0' in row for row in rows] == [True]
    head, _, _, _ = ask_by_head(tmp_path / "head", "HEAD", path, authorization="Bearer y")
    assert isinstance(head, Response)
    assert head.status == 401


@pytest.mark.parametrize(("timeout", "seconds"), [("70", 0.07), ("5000", 1.0)])
def test_what_is_served_meets_key_deadline_and_capacity_once(tmp_path: Path, timeout: str, seconds: float) -> None:
    entry, gate, asked, telemetry = ask_by_head(tmp_path, "POST", "/ask", x_request_timeout_ms=timeout)
    assert isinstance(entry, Entry)
    (tmp_path / "keys.json").unlink()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/ask", "headers": [], ENTRY: entry}
    asyncio.run(gate(scope, receive, send))
    assert [message.get("body") for message in sent] == [None, b'["shop",true]']
    assert asked == [(Tenant("shop", "batch"), entry.deadline)]
    assert entry.deadline - entry.since == pytest.approx(seconds)
    assert 'lathe_requests_total{code="ok",route="/ask",status="200"} 1.0' in telemetry.exposition().decode()


def test_who_asks_no_model_has_no_deadline(tmp_path: Path) -> None:
    entry, _, asked, _ = ask_by_head(tmp_path, "POST", "/other", x_request_timeout_ms="soon")
    assert isinstance(entry, Entry)
    assert (entry.deadline, entry.error, asked) == (math.inf, None, [])


def test_an_error_that_a_connection_keeps_does_not_keep_the_body() -> None:
    """By its traceback: frames, and what stood in them, until all objects of the process are looked through."""
    kept = Overloaded("too many bodies", 1)

    async def handle(request: Request) -> Response:
        raise kept

    assert ask(failing, endpoints=[Endpoint("GET", "/v1/models", handle)]).status_code == 429
    assert kept.__traceback__ is None
