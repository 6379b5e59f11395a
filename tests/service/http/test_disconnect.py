import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from service.http.body import ClientGone
from service.http.disconnect import WhileThere
from service.http.messages import Gone
from tests.service.virtual_time import VirtualLoop

STAYS = 3600.0
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def leaving_after(seconds: float) -> Gone:
    """A client that closes its connection then."""
    loop = asyncio.get_running_loop()
    gone: Gone = loop.create_future()
    loop.call_later(seconds, gone.set_result, None)
    return gone


@pytest.mark.parametrize("seconds", [0, 1])
def test_who_leaves_is_computed_for_no_longer(seconds: float) -> None:
    async def main() -> float:
        start = asyncio.get_running_loop().time()
        with pytest.raises(ClientGone):
            async with WhileThere(leaving_after(seconds)):
                await asyncio.sleep(60)
        return asyncio.get_running_loop().time() - start

    assert run(main()) < 2


def test_who_has_left_before_is_not_computed() -> None:
    async def main() -> None:
        gone = leaving_after(0)
        await gone
        with pytest.raises(ClientGone):
            async with WhileThere(gone):
                await asyncio.sleep(60)

    run(main())


def test_who_leaves_later_interrupts_nothing() -> None:
    async def main() -> None:
        gone = leaving_after(STAYS)
        async with WhileThere(gone):
            await asyncio.sleep(1)
        gone.cancel()
        await asyncio.sleep(1)

    run(main())


def test_who_leaves_as_the_answer_is_there_interrupts_nothing() -> None:
    async def main() -> None:
        gone: Gone = asyncio.get_running_loop().create_future()
        async with WhileThere(gone):
            gone.set_result(None)
        await asyncio.sleep(1)

    run(main())


def test_where_nobody_tells_nobody_leaves() -> None:
    async def main() -> str:
        async with WhileThere(None):
            await asyncio.sleep(60)
        return "answered"

    assert run(main()) == "answered"


def test_an_error_passes_as_it_is() -> None:
    async def main() -> None:
        async with WhileThere(leaving_after(STAYS)):
            await asyncio.sleep(1)
            raise KeyError

    with pytest.raises(KeyError):
        run(main())


def test_a_server_that_stops_is_not_taken_for_a_client_that_left() -> None:
    async def main() -> None:
        async def serve() -> None:
            async with WhileThere(leaving_after(STAYS)):
                await asyncio.sleep(60)

        task = asyncio.create_task(serve())
        await asyncio.sleep(1)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())


def test_of_both_at_the_same_moment_the_server_s_wish_is_kept() -> None:
    async def main() -> None:
        gone: Gone = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            async with WhileThere(gone):
                await asyncio.sleep(60)

        task = asyncio.create_task(serve())
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(gone.set_result, None)
        while not task.cancelling():  # the client's leaving has cancelled it by then
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())
