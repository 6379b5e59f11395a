"""What keys may use: counted in memory, and in a real Redis that replicas share and that goes away."""

import asyncio
import itertools
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from loadtests.run import free_port, stop
from service.access.caller import ANYBODY, Caller, Limits
from service.access.limits import Limiter
from service.errors import LimitsUnavailable, RateLimited

numbers = itertools.count()


class Redis:
    """A real one."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not installed; on Debian: apt-get install redis-server")
        self.port = free_port()
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        probe = ["redis-cli", "-p", str(self.port), "ping"]
        deadline = time.monotonic() + 30
        while subprocess.run(probe, capture_output=True, check=False).stdout.strip() != b"PONG":
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.05)
        return process

    def stop(self) -> None:
        stop(self.process)

    def restart(self) -> None:
        self.process = self._start()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    redis = Redis(tmp_path_factory.mktemp("redis"))
    yield redis
    redis.stop()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    return "memory" if request.param == "memory" else request.getfixturevalue("redis").url


def key(**limits: int) -> Caller:
    """One that no other test has."""
    return Caller(f"key {next(numbers)}", limits=Limits(**limits))


opened: list[Limiter] = []


def limiter_of(
    store: str = "memory", without_store: Literal["open", "closed"] = "open", *gone: Callable[[], None]
) -> Limiter:
    limiter = Limiter(store, without_store, *gone)
    opened.append(limiter)
    return limiter


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    """Runs it, and closes every limiter that it made."""

    async def whole() -> None:
        try:
            await asyncio.wait_for(scenario(), 30)
        finally:
            while opened:
                await opened.pop().close()

    asyncio.run(whole())


async def ask(limiter: Limiter, caller: Caller, tokens: int = 0) -> None:
    await limiter.enter(caller)
    await limiter.leave(caller, tokens)


def test_so_many_requests_a_second_are_let_in_and_no_more(store: str) -> None:
    async def scenario() -> None:
        limiter, caller = limiter_of(store), key(requests_per_s=5)
        for _ in range(5):
            await ask(limiter, caller)

        async def too_many() -> None:
            for _ in range(6):  # a second may end meanwhile
                await ask(limiter, caller)

        with pytest.raises(RateLimited, match="5 requests per s") as caught:
            await too_many()
        headers = caught.value.headers
        assert headers["RateLimit-Policy"] == '"requests_per_s";q=5;w=1'
        assert headers["RateLimit"] == f'"requests_per_s";r=0;t={headers["Retry-After"]}'
        await asyncio.sleep(2.1)
        await ask(limiter, caller)

    play(scenario)


@pytest.mark.parametrize("window", ["tokens_per_min", "tokens_per_month"])
def test_a_key_without_tokens_left_is_rejected_and_the_last_request_may_take_more(store: str, window: str) -> None:
    async def scenario() -> None:
        limiter, caller, other = limiter_of(store), key(**{window: 100}), key(**{window: 100})
        await ask(limiter, caller, 60)
        await ask(limiter, caller, 60)
        with pytest.raises(RateLimited, match=f"100 {window.replace('_', ' ')}"):
            await ask(limiter, caller)
        await ask(limiter, other, 1)
        (used,) = await limiter.usage(other)
        assert used[:3] == (window, 100, 99)
        assert 0 < used.resets_in_s <= (60 if window == "tokens_per_min" else 30 * 86400)

    play(scenario)


def test_so_many_at_the_same_time_and_whoever_failed_is_one_no_more() -> None:
    async def scenario() -> None:
        limiter, caller = limiter_of(), key(concurrent=2)
        await limiter.enter(caller)
        await limiter.enter(caller)
        with pytest.raises(RateLimited, match="2 requests under way"):
            await limiter.enter(caller)
        await limiter.leave(caller, 0)
        await limiter.enter(caller)

    play(scenario)


def test_requests_that_come_together_are_no_more_than_may_be(store: str) -> None:
    async def scenario() -> None:
        limiter, caller = limiter_of(store), key(concurrent=2, requests_per_s=1000)
        entered = await asyncio.gather(*(limiter.enter(caller) for _ in range(20)), return_exceptions=True)
        assert sum(error is None for error in entered) == 2
        assert sum(isinstance(error, RateLimited) for error in entered) == 18

    play(scenario)


def test_whoever_is_rejected_by_another_limit_is_not_under_way() -> None:
    async def scenario() -> None:
        limiter, caller = limiter_of(), key(concurrent=1, tokens_per_month=10)
        await ask(limiter, caller, 10)
        for _ in range(3):
            with pytest.raises(RateLimited, match="10 tokens per month"):
                await ask(limiter, caller)

    play(scenario)


def test_replicas_share_what_redis_counts(redis: Redis) -> None:
    async def scenario() -> None:
        caller = key(tokens_per_min=100)
        await ask(limiter_of(redis.url), caller, 100)
        with pytest.raises(RateLimited):
            await ask(limiter_of(redis.url), caller)

    play(scenario)


def test_without_redis_the_setting_decides_and_it_is_asked_again_later(tmp_path: Path) -> None:
    redis = Redis(tmp_path)
    gone: list[str] = []

    async def scenario() -> None:
        caller = key(requests_per_s=1000, tokens_per_min=1000)
        let_in = limiter_of(redis.url, "open", lambda: gone.append("open"))
        rejects = limiter_of(redis.url, "closed", lambda: gone.append("closed"))
        await ask(let_in, caller, 10)
        await ask(rejects, caller, 10)
        await asyncio.to_thread(redis.stop)
        start = time.monotonic()
        for _ in range(50):
            await ask(let_in, caller, 10)
            with pytest.raises(LimitsUnavailable):
                await ask(rejects, caller)
        assert {*gone} == {"open", "closed"}
        assert time.monotonic() - start < 10  # of which not every request waits for an answer
        await asyncio.to_thread(redis.restart)
        await asyncio.sleep(1.1)
        before = len(gone)
        await ask(let_in, caller)
        await ask(rejects, caller)
        assert len(gone) == before

    try:
        play(scenario)
    finally:
        redis.stop()


def test_keys_without_limits_are_not_looked_up() -> None:
    async def scenario() -> None:
        limiter = limiter_of("redis://127.0.0.1:1/0", "closed")
        for caller in (ANYBODY, Caller("shop")):
            await ask(limiter, caller, 10)
            assert await limiter.usage(caller) == []

    play(scenario)
