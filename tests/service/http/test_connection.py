"""Connections, through a real uvicorn: who is refused before the body, and what becomes of the connection."""

import asyncio
import contextlib
import gc
import socket
import struct
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
import uvloop

from service.errors import ServiceError
from service.http.connection import HttpProtocol
from service.http.connections import Connections, Deadlines, Limits
from service.http.messages import ANSWER, Headers, Response
from service.telemetry import Telemetry

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

made: list["weakref.ref[HttpProtocol]"] = []
LIMITS = Limits()


class Observed(HttpProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made.append(weakref.ref(self))


class Door:
    """Refuses POST /full and POST /stranger."""

    def enter(self, method: str, path: str, headers: Headers) -> Response | None:
        statuses = {"/full": 429, "/stranger": 401}
        if method != "POST" or path not in statuses:
            return None
        return Response(statuses[path], [(b"retry-after", b"2"), (b"content-length", b"4")], b"full")

    def reject(self, error: ServiceError, method: str, path: str) -> Response:
        return Response(error.status, [(b"content-length", b"%d" % len(error.code))], error.code.encode())


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body, after a while where that is asked for."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    if scope["path"] == "/never":
        await receive()  # gives nothing before the client has left
        return
    if scope["path"] == "/stops":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"so far", "more_body": True})
        await receive()
        return
    headers = {
        "/no-length": [],
        "/wrong-length": [(b"content-length", b"999")],
        "/last": [(b"Connection", b"close"), (b"content-length", b"%d" % len(body))],
    }.get(scope["path"], [(b"content-length", b"%d" % len(body))])
    status = {"/late": 429, "/late-in-messages": 429, "/bad": 400, "/empty": 204}.get(scope["path"], 200)
    if scope["path"] in ("/late", "/bad", "/whole"):
        scope[ANSWER](Response(status, headers, body))
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[int]:
    """The port of a server."""
    protocol = partial(Observed, connections=Connections(Door(), Telemetry(), limits))
    config = uvicorn.Config(
        app,
        port=0,
        log_level="error",
        lifespan="off",
        http=protocol,  # type: ignore[arg-type]  # what makes one
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    server.server_state.default_headers = [(b"date", b"today")]
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


def play(scenario: Callable[[Callable[[], Awaitable[Connection]]], Awaitable[None]], limits: Limits = LIMITS) -> None:
    """Plays a scenario, which gets a function that connects to a server."""
    made.clear()

    async def main() -> None:
        async with serving(limits) as port:
            connections: list[Connection] = []

            async def connect() -> Connection:
                connections.append(await asyncio.open_connection("127.0.0.1", port))
                return connections[-1]

            try:
                await asyncio.wait_for(scenario(connect), 20)
            finally:
                for _, writer in connections:
                    writer.close()

    uvloop.run(main())


def post(path: str, body: bytes = b"", headers: str = "", version: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), head, await reader.readexactly(length)


def test_who_is_refused_can_ask_again_on_the_connection() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(post("/full?x=1", b"text"))
            status, head, body = await answer(reader)
            assert (status, body) == (429, b"full")
            assert b"retry-after: 2" in head
            assert b"date: " in head
            writer.write(post("/echo", b"text"))
            assert (await answer(reader))[::2] == (200, b"text")

    play(scenario)


@pytest.mark.parametrize("path", ["/full", "/stranger", "/late", "/late-in-messages"])
def test_a_refusal_is_held_back_while_others_are_answered_and_takes_its_turn(path: str) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        refused, other = await connect(), await connect()
        refused[1].write(post(path) + post("/echo", b"text"))
        refusal = asyncio.create_task(answer(refused[0]))
        for _ in range(20):
            other[1].write(post("/echo", b"other"))
            assert (await answer(other[0]))[2] == b"other"
        assert not refusal.done()
        assert (await refusal)[0] == (401 if path == "/stranger" else 429)
        assert (await answer(refused[0]))[2] == b"text"

    play(scenario, Limits(hold_s=1.0))


def test_a_refusal_is_held_back_where_its_body_was_large() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        (large, sends), (small, sends_less) = await connect(), await connect()
        sends.write(post("/bad", b"x" * 100_000))
        refusal = asyncio.create_task(answer(large))
        for _ in range(20):
            sends_less.write(post("/bad", b"x" * 1000))
            assert (await answer(small))[0] == 400
        assert not refusal.done()
        assert (await refusal)[0] == 400

    play(scenario, Limits(hold_s=1.0))


@pytest.mark.parametrize("path", ["/whole", "/echo"])
def test_the_answer_to_head_has_the_length_and_no_body(path: str) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(post(path, b"text").replace(b"POST", b"HEAD"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"content-length: 4" in head
        writer.write(post(path, b"text"))
        assert (await answer(reader))[2] == b"text"

    play(scenario)


@pytest.mark.parametrize("path", ["/full", "/late"])
def test_so_many_refusals_are_held_back_and_no_more(path: str) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        held, *others = [await connect() for _ in range(3)]
        for _ in range(2):  # whose place is free afterwards
            held[1].write(post(path))
            refusal = asyncio.create_task(answer(held[0]))
            await asyncio.sleep(0.1)
            for reader, writer in others:
                writer.write(post("/full"))
                assert (await answer(reader))[0] == 429
            assert not refusal.done()
            assert (await refusal)[0] == 429

    play(scenario, Limits(hold_s=1.0, held=1))


@pytest.mark.parametrize("path", ["/full", "/whole", "/echo"])
def test_many_requests_in_one_piece_let_others_have_their_turn(path: str) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        (many, asks_much), (one, asks) = await connect(), await connect()
        asks_much.write(post(path) * 300)
        for _ in range(3):
            asks.write(post("/echo", b"text"))
            assert (await answer(one))[2] == b"text"
        received = await many.read(1 << 20)
        assert 0 < received.count(b"HTTP/1.1 ") < 200
        while received.count(b"HTTP/1.1 ") < 300:
            received += await many.read(1 << 20)

    play(scenario, Limits(held=0))


def test_the_refusal_comes_before_the_body_and_the_body_is_passed_over() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        request = post("/full", b"x" * 200_000)
        writer.write(request[:100])
        assert (await answer(reader))[0] == 429
        writer.write(request[100:])
        writer.write(post("/echo", b"text"))
        assert (await answer(reader))[::2] == (200, b"text")

    play(scenario)


@pytest.mark.parametrize(("headers", "version"), [("connection: close\r\n", "1.1"), ("", "1.0")])
def test_a_connection_for_one_request_ends_when_that_is_there(headers: str, version: str) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        request = post("/full", b"text", headers, version)
        writer.write(request[:-2])
        status, head, _ = await answer(reader)
        assert status == 429
        assert b"connection: close" in head
        writer.write(request[-2:])
        assert await reader.read() == b""

    play(scenario)


def test_an_answer_in_one_message_has_its_length_and_its_own_end_of_the_connection() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        writer.write(post("/no-length", b"text"))
        assert (await answer(reader))[2] == b"text"
        writer.write(post("/no-length", b"text").replace(b"POST", b"HEAD"))
        assert b"content-length" not in (await reader.readuntil(b"\r\n\r\n")).lower()
        writer.write(post("/empty"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        writer.write(post("/last", b"text"))
        _, head, body = await answer(reader)
        assert (head.count(b"connection: close"), body) == (1, b"text")
        assert await reader.read() == b""

    play(scenario)


def test_an_answer_that_is_shorter_than_it_says_ends_the_connection() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        writer.write(post("/wrong-length", b"text"))
        assert await reader.read() == b""

    play(scenario)


def test_a_body_that_has_ended_makes_no_room_for_others() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        (slow, asks), (echo, asks_next) = await connect(), await connect()
        for writer, path in ((asks, "/slow"), (asks_next, "/echo")):
            writer.write(post(path, b"x" * 100)[:-10])
            await asyncio.sleep(0.05)
            writer.write(b"x" * 10)
        assert [(await answer(reader))[2] for reader in (slow, echo)] == [b"x" * 100] * 2

    play(scenario, Limits(arriving_bytes=150))


def test_answers_keep_the_order_of_requests() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        writer.write(post("/slow", b"one") + post("/full", b"two"))
        assert [(await answer(reader))[2] for _ in range(2)] == [b"one", b"full"]

    play(scenario)


def test_who_asks_whether_to_send_the_body_is_told() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        request = post("/echo", b"text", "expect: 100-continue\r\n")
        writer.write(request[:-4])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(request[-4:])
        assert (await answer(reader))[::2] == (200, b"text")
        writer.write(post("/full", b"text", "expect: 100-continue\r\n")[:-4])
        status, head, _ = await answer(reader)
        assert status == 429
        assert b"connection: close" in head  # whether the body comes now, nobody knows
        assert await reader.read() == b""

    play(scenario)


@pytest.mark.parametrize("path", ["/full", "/echo"])
def test_an_idle_connection_is_closed_after_a_while(path: str) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        writer.write(post(path))
        await answer(reader)
        start = time.monotonic()
        assert await reader.read() == b""
        assert 0.2 < time.monotonic() - start < 10

    play(scenario, Limits(deadlines=Deadlines(idle=0.3)))


def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, _ = await connect()
        assert await reader.read() == b""

    play(scenario, Limits(deadlines=Deadlines(idle=0.3)))


@pytest.mark.parametrize(
    ("path", "deadlines"), [("/never", Deadlines(waiting=0.3)), ("/stops", Deadlines(answering=0.3))]
)
def test_an_answer_that_does_not_come_or_does_not_end_closes_the_connection(path: str, deadlines: Deadlines) -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        writer.write(post(path))
        said = await reader.read()
        assert said.endswith(b"so far\r\n") if path == "/stops" else said == b""

    play(scenario, Limits(deadlines=deadlines))


def test_a_head_that_does_not_end_is_given_up() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        reader, writer = await connect()
        for _ in range(2):  # who is late with one request has as long for the next
            for part in (post("/echo", b"text")[:20], post("/echo", b"text")[20:]):
                writer.write(part)
                await asyncio.sleep(0.3)
            assert (await answer(reader))[::2] == (200, b"text")
        writer.write(b"POST /echo HTTP/1.1\r\n")
        sent = 0
        while not reader.at_eof():
            assert sent < 100
            writer.write(b"x-more: and more\r\n")
            sent += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.1)
        assert sent > 2

    play(scenario, Limits(deadlines=Deadlines(head=0.5)))


def test_a_connection_leaves_no_garbage() -> None:
    async def scenario(connect: Callable[[], Awaitable[Connection]]) -> None:
        for sent in (post("/full"), post("/echo"), post("/slow"), post("/echo")[:9], b""):
            reader, writer = await connect()
            writer.write(sent)
            if sent in (post("/full"), post("/echo")):  # the others leave before an answer
                await answer(reader)
            await asyncio.sleep(0.05)
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            writer.transport.abort()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert [protocol() for protocol in made] == [None] * 5

    gc.disable()
    try:
        play(scenario)
    finally:
        gc.enable()
