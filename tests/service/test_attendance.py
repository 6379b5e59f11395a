import asyncio
from collections.abc import Coroutine, MutableMapping
from typing import Any, TypeVar

import pytest

from service.attendance import WhileThere
from service.limits import ClientGone
from service.routing import Receive
from tests.service.virtual_time import VirtualLoop

STAYS = 3600.0
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def leaving_after(seconds: float) -> Receive:
    """A client that closes its connection then."""

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(seconds)
        return {"type": "http.disconnect"}

    return receive


def test_who_leaves_is_computed_for_no_longer() -> None:
    async def main() -> float:
        start = asyncio.get_running_loop().time()
        with pytest.raises(ClientGone):
            async with WhileThere(leaving_after(1)):
                await asyncio.sleep(60)
        return asyncio.get_running_loop().time() - start

    assert run(main()) < 2


def test_a_quick_answer_makes_no_task() -> None:
    async def main() -> int:
        async with WhileThere(leaving_after(STAYS)):
            await asyncio.sleep(0.001)
            return len(asyncio.all_tasks())

    assert run(main()) == 1


def test_nothing_is_left_behind() -> None:
    async def main() -> int:
        async with WhileThere(leaving_after(STAYS)):
            await asyncio.sleep(1)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert run(main()) == 1


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
        gone = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def serve() -> None:
            async with WhileThere(receive):
                await asyncio.sleep(60)

        task = asyncio.create_task(serve())
        await asyncio.sleep(1)
        gone.set()
        await asyncio.sleep(0)  # the watcher has cancelled it by now
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())
