"""Models asked for one request: what is tokenised, computed, given up."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from compression.bundle import Encoded
from service.access.caller import ANYBODY
from service.batching import Batcher, Logits
from service.engine.engine import Engine
from service.errors import DeadlineExceeded, NotReady, PayloadTooLarge
from service.http.body import ClientGone
from service.http.messages import Request
from service.models.model import Model
from service.models.version import Member, Version
from service.telemetry import Telemetry
from tests.handmade import make_bundle
from tests.service.api.asking import LIMITS, LONG, inference, never, request, version


@pytest.mark.parametrize("words", [["x", "yy"], ["x " * 1000, "yy " * 1000]])  # in the event loop, on a thread
@pytest.mark.parametrize(
    ("first", "second", "times"),
    [("good", "opposite", 1), ("good", "others", 2), ("good@1+opposite@1", "opposite", 1)],
)
def test_models_that_tokenise_alike_have_a_text_tokenised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], first: str, second: str, times: int
) -> None:
    tokenised: list[str] = []
    encode = Engine.encode

    def count(engine: Engine, text: str) -> Encoded:
        tokenised.append(text)
        return encode(engine, text)

    async def main() -> None:
        telemetry = Telemetry()
        make_bundle(tmp_path / "others", {"another": (1.0, -1.0)})
        models = [Model(name, version(tmp_path, name, telemetry), telemetry) for name in (first, second)]
        monkeypatch.setattr(Engine, "encode", count)
        answers = await inference().ask(request(), models, words)
        assert [len(answer.logits) for answer in answers] == [2, 2]
        assert sorted(tokenised) == sorted(words * times)
        for model in models:
            await model.stop()

    asyncio.run(main())


@pytest.mark.parametrize("trial", [None, 50.0])
@pytest.mark.parametrize("location", ["good", "good@1+opposite@1"])
def test_a_text_that_may_not_be_cut_is_refused_by_whichever_version(
    tmp_path: Path, location: str, trial: float | None
) -> None:
    async def main() -> None:
        telemetry = Telemetry()
        model = Model("shop", version(tmp_path, location, telemetry), telemetry)
        if trial is not None:
            candidate = version(tmp_path, "opposite", telemetry)
            candidate.start("candidate")
            model.try_out(candidate, trial)
        (scored,) = await inference().ask(request(), [model], ["good", LONG])
        assert scored.truncated == [False, True]
        with pytest.raises(PayloadTooLarge, match=r"inputs\.1 has more than 64 tokens"):
            await inference().ask(request(), [model], ["good", LONG], cut=False)
        await model.stop()

    asyncio.run(main())


def test_what_softmax_makes_of_logits_are_the_probabilities_of_an_ensemble_too(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry = Telemetry()
        model = Model("shop", version(tmp_path, "good@3+opposite@1+nowhere@1", telemetry), telemetry)
        (scored,) = await inference().ask(request(), [model], ["good", "bad " * 400])
        assert scored.degraded
        assert np.isfinite(scored.logits).all()
        assert np.exp(scored.logits) == pytest.approx(scored.scores)
        await model.stop()

    asyncio.run(main())


def test_when_one_model_refuses_what_the_other_has_queued_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry, free = Telemetry(), threading.Event()
        computed: list[Encoded] = []
        (member,) = version(tmp_path, "good", telemetry).members

        def infer(batch: Sequence[Encoded]) -> Logits:
            free.wait()
            computed.extend(batch)
            return member.engine.infer(batch)

        slow = Member(member.engine, Batcher("slow", infer, LIMITS, telemetry), 1)
        busy = Model("slow", Version([slow]), telemetry)
        before = asyncio.create_task(busy.ask(["good"]))  # its only stream is at this
        await asyncio.sleep(0.01)
        refusing = Model("refusing", version(tmp_path, "good", telemetry), telemetry)
        await refusing.stop()
        try:
            with pytest.raises(NotReady):
                await inference().ask(request(), [busy, refusing], ["good"] * 3)
            await asyncio.sleep(0)
        finally:
            free.set()
        assert (
            'lathe_shed_texts_total{model="slow",reason="given_up",role="live"} 3.0' in telemetry.exposition().decode()
        )
        await before
        await busy.stop()
        assert len(computed) == 1

    asyncio.run(main())


def test_when_the_client_leaves_all_parts_of_its_request_say_so(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry, free = Telemetry(), threading.Event()

        def infer(batch: Sequence[Encoded]) -> Logits:
            free.wait()
            return np.zeros((len(batch), 2), np.float32)

        def slow(name: str) -> Model:
            (member,) = version(tmp_path / name, "good", telemetry).members
            return Model(name, Version([Member(member.engine, Batcher(name, infer, LIMITS, telemetry), 1)]), telemetry)

        models = [slow("one"), slow("other")]
        before = [asyncio.create_task(model.ask(["good"])) for model in models]  # their only streams are at these
        await asyncio.sleep(0.01)
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gone = Request("1", {}, never, ANYBODY, {}, gone=left)
        asking = asyncio.create_task(inference().ask(gone, models, ["good"] * 3))
        await asyncio.sleep(0.01)
        left.set_result(None)
        try:
            with pytest.raises(ClientGone):
                await asking
        finally:
            free.set()
        for name in ("one", "other"):
            counted = f'lathe_shed_texts_total{{model="{name}",reason="client_gone",role="live"}} 3.0'
            assert counted in telemetry.exposition().decode()
        await asyncio.gather(*before, *(model.stop() for model in models))

    asyncio.run(main())


class Slow:
    """A tokenizer that takes a while for each text; counts what it did."""

    def __init__(self, seconds: float) -> None:
        self.texts = 0
        self._seconds = seconds

    def __call__(self, text: str) -> Encoded:
        self.texts += 1
        time.sleep(self._seconds)
        return Encoded([2], [0], truncated=False)


@pytest.mark.parametrize("left", ["deadline", "client"])
def test_texts_that_nobody_waits_for_are_tokenised_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    async def main() -> None:
        telemetry, slow = Telemetry(), Slow(0.02)
        model = Model("shop", version(tmp_path, "good@1+opposite@1", telemetry), telemetry)
        monkeypatch.setattr(Engine, "encode", lambda _, text: slow(text))
        deadline = time.monotonic() + 0.1 if left == "deadline" else math.inf
        sent = Request("1", {}, never, ANYBODY, {}, deadline=deadline)
        start = time.monotonic()
        asking = asyncio.create_task(inference().ask(sent, [model], ["a good day " * 10] * 200))
        if left == "client":
            await asyncio.sleep(0.1)
            asking.cancel()
        with pytest.raises((DeadlineExceeded, asyncio.CancelledError)):
            await asking
        assert time.monotonic() - start < 2  # 4 s of work
        done = slow.texts
        await asyncio.sleep(0.2)
        assert slow.texts <= done + 1 < 200
        if left == "deadline":
            counted = 'lathe_shed_texts_total{model="shop.0",reason="deadline",role="live"} 200.0'
            assert counted in telemetry.exposition().decode()
        await model.stop()

    asyncio.run(main())


def test_the_event_loop_tokenises_only_what_takes_a_few_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    encode = Engine.encode

    def note(engine: Engine, text: str) -> Encoded:
        threads.append(threading.get_ident())
        return encode(engine, text)

    async def main() -> None:
        telemetry = Telemetry()
        model = Model("shop", version(tmp_path, "good", telemetry), telemetry)
        monkeypatch.setattr(Engine, "encode", note)
        asks = inference()
        for texts in (["x" * 256], ["x" * 99 + " x"] * 3, ["x" * 10_000]):
            await asks.ask(request(), [model], texts)
        await model.stop()

    asyncio.run(main())
    here, *others = threads
    assert here == threading.get_ident()
    assert here not in others
    assert len(set(others)) == 2  # a little text, and much of it
