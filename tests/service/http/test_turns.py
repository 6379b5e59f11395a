"""Large bodies are read one after another, with time between them; small ones do not wait for them."""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable

import pytest

from service.access.caller import ANYBODY
from service.errors import InvalidRequest, Overloaded
from service.http.body import read_body
from service.http.messages import Message, Request
from service.http.turns import Turns
from service.settings import Settings

LARGE = b"x" * 1_000_000
PACKED = gzip.compress(LARGE)
TURN_S = 0.04  # of a megabyte


def play(scenario: Callable[[Callable[[bytes], Awaitable[bytes]]], Awaitable[None]]) -> None:
    """Runs it with what reads bodies, which take turns; those of gzip are unpacked."""

    async def whole() -> None:
        turns = Turns()

        async def read(body: bytes) -> bytes:
            async def receive() -> Message:
                return {"type": "http.request", "body": body}

            headers = {b"content-type": b"application/json"}
            if body.startswith(PACKED[:2]):
                headers[b"content-encoding"] = b"gzip"
            return await read_body(Request("1", headers, receive, ANYBODY, {}, turns=turns), Settings())

        await scenario(read)

    asyncio.run(whole())


@pytest.mark.parametrize("body", [LARGE, PACKED])
def test_large_ones_wait_for_each_other_and_small_ones_for_none(body: bytes) -> None:
    async def scenario(read: Callable[[bytes], Awaitable[bytes]]) -> None:
        start = time.monotonic()
        large = [asyncio.ensure_future(read(body)) for _ in range(6)]
        await asyncio.sleep(0)
        for _ in range(100):
            assert await read(b"{}") == b"{}"
        assert not large[-1].done()
        assert await asyncio.gather(*large) == [LARGE] * 6
        assert time.monotonic() - start >= 5 * TURN_S

    play(scenario)


def test_a_small_one_that_is_packed_takes_hardly_a_turn() -> None:
    async def scenario(read: Callable[[bytes], Awaitable[bytes]]) -> None:
        start = time.monotonic()
        assert await asyncio.gather(*(read(gzip.compress(b"{}")) for _ in range(30))) == [b"{}"] * 30
        assert time.monotonic() - start < 20 * TURN_S

    play(scenario)


def test_one_that_cannot_be_unpacked_has_had_its_turn_too() -> None:
    async def scenario(read: Callable[[bytes], Awaitable[bytes]]) -> None:
        start = time.monotonic()
        for _ in range(6):
            with pytest.raises(InvalidRequest):
                await read(PACKED[:-1])
        assert time.monotonic() - start >= 5 * TURN_S

    play(scenario)


def test_so_many_wait_and_no_more() -> None:
    async def scenario(read: Callable[[bytes], Awaitable[bytes]]) -> None:
        results = await asyncio.gather(*(read(LARGE) for _ in range(40)), return_exceptions=True)
        assert sum(isinstance(result, bytes) for result in results) == 32
        assert sum(isinstance(result, Overloaded) for result in results) == 8
        assert await read(LARGE) == LARGE

    play(scenario)
