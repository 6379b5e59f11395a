"""Scores chunks on this machine, with the engine and the batcher of the service."""

import asyncio
import math
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np

from compression.bundle import Bundle, Encoded, Input, Logits, Windows, joined, windows_of
from compression.tables import CHUNK_ROWS
from service.batching import Batcher, BatchLimits
from service.engine.engine import Engine
from service.errors import InferenceFailed, NotANumber
from service.scoring.parts import NOTES, Part
from service.scoring.source import Source
from service.setting_types import Device
from service.telemetry import Telemetry

ChunkInputs = Sequence[Input | None]

_WINDOW = 512
_NO_LIMIT_MS = 1e9  # nobody waits for a batch


@dataclass(frozen=True)
class Compute:
    """How texts are computed.

    Attributes:
        streams: batches at the same time; of each worker, on Ray.
        batch_tokens: tokens in a batch, padding counted.
    """

    device: Device
    streams: int
    batch_tokens: int


@dataclass(frozen=True)
class ScoredChunk:
    """One chunk's part, the chunk's number, and how much of the file had been read by then, 0 to 1."""

    number: int
    part: Part
    read: float


class Scorer:
    """One bundle, ready to score chunk after chunk; a context manager.

    Raises:
        ConfigurationError, BundleError: see `Engine`.
    """

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        manifest = bundle.manifest
        self._labels = len(manifest.labels)
        self._long_texts = long_texts = manifest.runtime.long_texts
        windows = long_texts.max_windows if isinstance(long_texts, Windows) else 1
        self._engine = Engine(bundle, compute.device)
        limits = BatchLimits(
            streams=compute.streams,
            batch_texts=self._engine.batch_texts(compute.batch_tokens),
            batch_tokens=compute.batch_tokens,
            batch_ms=_NO_LIMIT_MS,
            window=_WINDOW,
            queue_texts=CHUNK_ROWS * windows,
            queue_tokens=CHUNK_ROWS * windows * manifest.max_length,
            fixed_tokens=math.inf,  # measured times must not decide what is computed together
        )
        self._batcher = Batcher("score", self._engine.infer, limits, Telemetry())
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._batcher.close())
        self._runner.close()

    def encode(self, inputs: ChunkInputs) -> list[Encoded | None]:
        """Tokenises a chunk; None where a row has no text. May run beside `score`."""
        return [None if given is None else self._engine.encode(given) for given in inputs]

    def score(self, encoded: Sequence[Encoded | None]) -> Part:
        """The answers to a chunk.

        Raises:
            NotReady: the engine has died.
        """
        return self._runner.run(self._score(encoded))

    async def _start(self) -> None:
        self._batcher.start()

    async def _score(self, encoded: Sequence[Encoded | None]) -> Part:
        logits = np.full((len(encoded), self._labels), np.nan, np.float32)
        notes = np.zeros(len(encoded), np.uint8)
        items: dict[int, Encoded] = {}
        for row, item in enumerate(encoded):
            if item is None:
                notes[row] = NOTES.index("no_text")
            else:
                items[row] = item
                notes[row] = NOTES.index("truncated" if item.truncated else "")
        rows = sorted(items, key=lambda row: -len(items[row]))
        try:
            if rows:
                logits[rows] = await self._computed([items[row] for row in rows])
        except (InferenceFailed, NotANumber):  # of one text; the others have an answer
            for row in rows:
                try:
                    logits[row] = (await self._computed([items[row]]))[0]
                except (InferenceFailed, NotANumber) as error:
                    notes[row] = NOTES.index(error.code)
        return Part(logits, notes)

    async def _computed(self, items: Sequence[Encoded]) -> Logits:
        """(texts, labels)"""
        return joined(await self._batcher.submit(windows_of(items)), items, self._long_texts)


def score_here(bundle: Bundle, compute: Compute, source: Source, done: Set[int]) -> Iterator[ScoredChunk]:
    """The parts of all chunks that are not done, in order. While one is computed, the next is read and tokenised."""
    with Scorer(bundle, compute) as scorer, ThreadPoolExecutor(1, thread_name_prefix="read") as ahead:
        chunks = (
            (number, scorer.encode(source.inputs(chunk)), chunk.read)
            for number, chunk in enumerate(source.chunks())
            if number not in done
        )
        coming = ahead.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = ahead.submit(next, chunks, None)
            number, encoded, read = chunk
            yield ScoredChunk(number, scorer.score(encoded), read)
