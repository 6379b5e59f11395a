"""The texts of a request, tokenised once for all models that tokenise alike: both of triage, members of an ensemble."""

import asyncio
from collections.abc import Sequence
from typing import Self

from compression.bundle import Encoded
from service.engine.engine import Engine
from service.telemetry import Telemetry

# Tokenising runs at some 10 MB/s; below this it costs less than handing it to a thread does.
_INLINE_CHARACTERS = 4000


class Texts(tuple[str, ...]):
    """Texts, and what they were tokenised to so far.

    Attributes:
        places: of each text in the request, for messages.
    """

    places: Sequence[int]
    _encoded: dict[tuple[str, int], "list[Encoded] | asyncio.Future[list[Encoded]]"]

    def __new__(cls, texts: Sequence[str], places: Sequence[int] | None = None) -> Self:
        self = super().__new__(cls, texts)
        self.places = range(len(texts)) if places is None else places
        self._encoded = {}
        return self

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """These texts; themselves where they are some already."""
        return texts if isinstance(texts, Texts) else cls(texts)

    def part(self, indices: Sequence[int]) -> "Texts":
        """Some of them, which keep their places."""
        return Texts([self[index] for index in indices], [self.places[index] for index in indices])

    async def encoded(self, engine: Engine, name: str, telemetry: Telemetry) -> list[Encoded]:
        """Tokenised for an engine; measured under the name of the model that is the first to ask."""

        def encode() -> list[Encoded]:
            return [engine.encode(text) for text in self]

        encoded = self._encoded.get(engine.tokenizer_key)
        if isinstance(encoded, list):
            return encoded
        if encoded is not None:
            return await asyncio.shield(encoded)
        with telemetry.stage(name, "tokenize"):
            if sum(map(len, self)) <= _INLINE_CHARACTERS:
                self._encoded[engine.tokenizer_key] = encoded = encode()
                return encoded
            work = self._encoded[engine.tokenizer_key] = asyncio.ensure_future(asyncio.to_thread(encode))
            return await asyncio.shield(work)  # others may wait for it, too
