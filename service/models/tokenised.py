"""The texts of a request, tokenised once for all models that tokenise alike: both of triage, members of an ensemble.

Short texts are tokenised in the event loop, in a few milliseconds whatever they hold; all others, and those that are
masked before, on threads, where they stop when their time is over or nobody waits for them. Much text has threads of
its own, which run when nothing else wants the core: whoever sends a little is not behind those who send a lot.
"""

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Self

from compression.bundle import Encoded, Input, texts_of
from service.batching.threads import give_way
from service.engine.engine import Engine
from service.errors import DeadlineExceeded
from service.telemetry import VersionMetrics

# The costliest text, of words that no piece of a vocabulary begins, takes some 25 us a character.
_INLINE_CHARACTERS = 256
_MUCH_CHARACTERS = 8192
_LOWEST = 19  # as nice(2) takes it


class TokenizerThreads:
    """Where texts are tokenised that are too long for the event loop.

    Args:
        count: threads for a little text, and as many for much.
    """

    def __init__(self, count: int) -> None:
        self._little = ThreadPoolExecutor(count, "tokenize", give_way)
        self._much = ThreadPoolExecutor(count, "tokenize-much", give_way, (_LOWEST,))

    def executor(self, characters: int) -> Executor:
        """For so much text."""
        return self._little if characters <= _MUCH_CHARACTERS else self._much

    def shut_down(self) -> None:
        """Begins nothing more, and waits for nobody."""
        for executor in (self._little, self._much):
            executor.shutdown(wait=False, cancel_futures=True)


class Texts(tuple[Input, ...]):
    """Texts or pairs, and what they were tokenised to so far.

    Attributes:
        places: of each text in the request, for messages.
    """

    places: Sequence[int]
    _threads: TokenizerThreads | None
    _encoded: dict[Hashable, "list[Encoded] | _Work"]

    def __new__(
        cls, texts: Sequence[Input], places: Sequence[int] | None = None, threads: TokenizerThreads | None = None
    ) -> Self:
        self = super().__new__(cls, texts)
        self.places = range(len(texts)) if places is None else places
        self._threads = threads
        self._encoded = {}
        return self

    @classmethod
    def of(cls, texts: Sequence[Input]) -> "Texts":
        """These texts; themselves where they are some already."""
        return texts if isinstance(texts, Texts) else cls(texts)

    def part(self, indices: Sequence[int]) -> "Texts":
        """Some of them, which keep their places."""
        return Texts([self[index] for index in indices], [self.places[index] for index in indices], self._threads)

    async def encoded(self, engine: Engine, metrics: VersionMetrics, deadline: float = math.inf) -> list[Encoded]:
        """Tokenised for an engine; measured as the work of the version that is the first to ask.

        Args:
            deadline: as time.monotonic() counts.

        Raises:
            DeadlineExceeded: they were not tokenised by then.
        """
        encoded = self._encoded.get(engine.tokenizer_key)
        if isinstance(encoded, list):
            return encoded
        try:
            if encoded is not None:
                return await encoded.result(deadline)
            with metrics.stage("tokenize"):
                characters = sum(len(text) for given in self for text in texts_of(given))
                if characters <= _INLINE_CHARACTERS and engine.mask is None:
                    self._encoded[engine.tokenizer_key] = encoded = [engine.encode(given) for given in self]
                    return encoded
                executor = self._threads.executor(characters) if self._threads is not None else None
                work = self._encoded[engine.tokenizer_key] = _Work(self, engine.encode, executor, deadline)
                return await work.result(deadline)
        except TimeoutError:
            metrics.shed("deadline", len(self))
            raise DeadlineExceeded("the texts were not tokenised within the request's time") from None


class _Work:
    """Texts that a thread tokenises, for as long as anybody waits for them."""

    def __init__(
        self, texts: Sequence[Input], encode: Callable[[Input], Encoded], executor: Executor | None, deadline: float
    ) -> None:
        self._waiting = 0
        self._given_up = False

        def work() -> list[Encoded]:
            """All of them, or those until nobody waits any more."""
            encoded: list[Encoded] = []
            for text in texts:
                if self._given_up or time.monotonic() >= deadline:
                    break
                encoded.append(encode(text))
            return encoded

        self._count = len(texts)
        self._future = asyncio.get_running_loop().run_in_executor(executor, work)

    async def result(self, deadline: float) -> list[Encoded]:
        """What became of the texts.

        Raises:
            TimeoutError: the deadline passed.
        """
        self._waiting += 1
        try:
            async with asyncio.timeout(None if deadline == math.inf else max(0, deadline - time.monotonic())):
                encoded = await asyncio.shield(self._future)  # others may wait for it, too
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._given_up = True
                self._future.cancel()  # where it has not begun
        if len(encoded) < self._count:
            raise TimeoutError
        return encoded
