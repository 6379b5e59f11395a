"""Several models asked for one request, with real batchers in front of models that only count."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compression.bundle import Encoded
from service.batching import Batcher, BatchLimits, Logits
from service.errors import Overloaded
from service.inference import Inference
from service.routing import Request
from service.settings import load_settings
from service.telemetry import Telemetry

LIMITS = BatchLimits(
    streams=1, batch_texts=64, batch_tokens=4096, batch_ms=25, window=64, queue_texts=64, queue_tokens=4096
)


class Counting:
    """An engine and its bundle; remembers what it tokenised and computed."""

    def __init__(self, tokenizer: str, max_length: int = 8) -> None:
        self.tokenised: list[str] = []
        self.computed = 0
        self.computing: Callable[[], object] = lambda: None
        self.path = Path("bundle")
        self.tokenizer_path = self.path / "tokenizer.json"
        self.manifest = SimpleNamespace(files={"tokenizer.json": tokenizer}, max_length=max_length)

    def encode(self, text: str) -> Encoded:
        self.tokenised.append(text)
        return Encoded([0] * len(text), [0] * len(text), False)

    def infer(self, batch: Sequence[Encoded]) -> Logits:
        self.computing()
        self.computed += len(batch)
        return np.zeros((len(batch), 2), np.float32)

    def served(self, name: str, telemetry: Telemetry) -> Any:
        batcher: Batcher[Encoded] = Batcher(name, self.infer, LIMITS, telemetry)
        batcher.start()
        return SimpleNamespace(name=name, bundle=self, engine=self, batcher=batcher)


async def never() -> Any:
    await asyncio.sleep(60)


def request() -> Request:
    return Request("1", {}, never, "", {})


def inference(telemetry: Telemetry) -> Inference:
    serving: Any = SimpleNamespace(settings=load_settings({}), telemetry=telemetry)
    return Inference(lambda: serving)


@pytest.mark.parametrize(("other", "times"), [(Counting("a"), 1), (Counting("b"), 2), (Counting("a", max_length=9), 2)])
def test_models_that_tokenise_alike_have_a_text_tokenised_once(other: Counting, times: int) -> None:
    async def main() -> None:
        telemetry, first = Telemetry(), Counting("a")
        models = [first.served("first", telemetry), other.served("other", telemetry)]
        answers = await inference(telemetry).ask(request(), models, ["x", "yy"])
        assert [answer.tokens for answer in answers] == [3, 3]
        assert sorted(first.tokenised + other.tokenised) == sorted(["x", "yy"] * times)
        assert (first.computed, other.computed) == (2, 2)
        for model in models:
            await model.batcher.close()

    asyncio.run(main())


def test_when_one_model_refuses_what_the_other_has_queued_is_given_up() -> None:
    async def refuse(*_: object) -> Logits:
        await asyncio.sleep(0.01)
        raise Overloaded("full", 1)

    async def main() -> None:
        telemetry, slow, free = Telemetry(), Counting("a"), threading.Event()
        slow.computing = free.wait
        busy = slow.served("slow", telemetry)
        before = asyncio.create_task(busy.batcher.submit([slow.encode("x")]))  # its only stream is at this
        await asyncio.sleep(0.01)
        refusing: Any = SimpleNamespace(
            name="refusing", bundle=slow, engine=slow, batcher=SimpleNamespace(submit=refuse)
        )
        try:
            with pytest.raises(Overloaded):
                await inference(telemetry).ask(request(), [busy, refusing], ["x"] * 3)
            await asyncio.sleep(0)
        finally:
            free.set()
        assert 'lathe_shed_texts_total{model="slow",reason="client_gone"} 3.0' in telemetry.exposition().decode()
        await before
        await busy.batcher.close()
        assert slow.computed == 1

    asyncio.run(main())
