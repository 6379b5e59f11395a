"""Models asked for one request: real engines, batchers and versions behind handmade bundles."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.bundle import Encoded, Input
from service.access.caller import ANYBODY, Caller
from service.api.ask import Inference
from service.batching import Batcher, BatchLimits, Logits
from service.engine.engine import Engine
from service.errors import DeadlineExceeded, NotReady, Overloaded, PayloadTooLarge
from service.http.body import ClientGone
from service.http.messages import Request
from service.models.intake import Intake
from service.models.loading import Loader
from service.models.model import Model
from service.models.version import Member, Version
from service.settings import Settings
from service.telemetry import Telemetry
from service.tenant import ANYONE, Priority
from tests.handmade import make_bundle

LIMITS = BatchLimits(
    streams=1, batch_texts=64, batch_tokens=4096, batch_ms=25, window=64, queue_texts=64, queue_tokens=4096
)
LONG = "good " * 65


async def never() -> Any:
    await asyncio.sleep(60)


def request() -> Request:
    return Request("1", {}, never, ANYBODY, {})


def inference() -> Inference:
    return Inference(Settings(), {}, Intake(Settings(), Telemetry()))


def version(folder: Path, location: str, telemetry: Telemetry) -> Version:
    """One of `good`, `opposite` or an ensemble of them."""
    make_bundle(folder / "good")
    make_bundle(folder / "opposite", {"good": (1.0, -1.0), "bad": (-1.0, 1.0)})
    return Loader(Settings(streams=1), telemetry).load("shop", location, folder.joinpath, degraded=True)


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


def test_a_batch_key_waits_for_the_interactive_one_that_came_later(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry, free, computed = Telemetry(), threading.Event(), list[int]()

        def infer(batch: Sequence[Encoded]) -> Logits:
            free.wait()
            computed.append(len(batch[0]))
            return np.zeros((len(batch), 2), np.float32)

        (member,) = version(tmp_path, "good", telemetry).members
        batcher = Batcher("shop", infer, replace(LIMITS, batch_texts=1), telemetry)
        model = Model("shop", Version([Member(member.engine, batcher, 1)]), telemetry)

        def ask(name: str, priority: Priority, words: int) -> "asyncio.Task[Any]":
            asks = Request("1", {}, never, Caller(name, priority=priority), {})
            return asyncio.create_task(inference().ask(asks, [model], ["good " * words]))

        asking = [ask("first", "interactive", 1)]  # the only stream is at this
        await asyncio.sleep(0.01)
        asking += [ask(f"night {number}", "batch", 2) for number in range(3)]
        await asyncio.sleep(0.01)
        asking.append(ask("shop", "interactive", 3))
        await asyncio.sleep(0.01)
        free.set()
        await asyncio.gather(*asking)
        assert [tokens - computed[0] for tokens in computed] == [0, 2, 1, 1, 1]
        await model.stop()

    asyncio.run(main())


def test_a_request_is_refused_where_no_model_has_room_for_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        telemetry, free = Telemetry(), threading.Event()

        def slow(name: str) -> Model:
            (member,) = version(tmp_path / name, "good", telemetry).members

            def infer(batch: Sequence[Encoded]) -> Logits:
                free.wait()
                return member.engine.infer(batch)

            batcher = Batcher(name, infer, replace(LIMITS, queue_texts=1), telemetry)
            return Model(name, Version([Member(member.engine, batcher, 1)]), telemetry)

        one, other = slow("one"), slow("other")
        admit = Inference(Settings(), {"one": one, "other": other}, Intake(Settings(), Telemetry())).admit
        waiting = []
        try:
            for model in (one, other):
                for _ in range(2):  # one is computed, and one fills the queue
                    waiting.append(asyncio.create_task(model.ask(["good"])))
                    await asyncio.sleep(0.01)
                if model is one:
                    admit(ANYONE, math.inf)  # the other has room
            with pytest.raises(Overloaded):
                admit(ANYONE, math.inf)
            with monkeypatch.context() as patch:
                patch.setattr(Batcher, "alive", False)
                admit(ANYONE, math.inf)  # who is served is told that it is not ready
            assert (
                'lathe_shed_texts_total{model="one",reason="overloaded",role="live"} 1.0'
                in telemetry.exposition().decode()
            )
        finally:
            free.set()
        await asyncio.gather(*waiting)
        await asyncio.gather(one.stop(), other.stop())

    asyncio.run(main())


def test_a_request_for_an_ensemble_is_refused_by_the_member_that_has_no_room(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry, free = Telemetry(), threading.Event()

        def infer(batch: Sequence[Encoded]) -> Logits:
            free.wait()
            return np.zeros((len(batch), 2), np.float32)

        members = [
            Member(member.engine, Batcher(name, infer, replace(LIMITS, queue_texts=texts), telemetry), 1)
            for member, name, texts in zip(
                version(tmp_path, "good@1+opposite@1", telemetry).members, ("shop.0", "shop.1"), (64, 1), strict=True
            )
        ]
        model = Model("shop", Version(members), telemetry)
        waiting = []
        for _ in range(2):  # one is computed, and one fills the second member's queue
            waiting.append(asyncio.create_task(model.ask(["good"])))
            await asyncio.sleep(0.01)
        try:
            with pytest.raises(Overloaded, match=r"shop\.1"):
                Inference(Settings(), {"shop": model}, Intake(Settings(), Telemetry())).admit(ANYONE, math.inf)
        finally:
            free.set()
        assert (
            'lathe_shed_texts_total{model="shop.1",reason="overloaded",role="live"} 1.0'
            in telemetry.exposition().decode()
        )
        await asyncio.gather(*waiting)
        await model.stop()

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


def test_text_that_waits_for_answers_is_bounded_in_bytes_whichever_model_it_is_for(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry = Telemetry()
        model = Model("shop", version(tmp_path, "good", telemetry), telemetry)
        settings = Settings(queue_bytes=200_000)
        intake = Intake(settings, telemetry)
        asks = Inference(settings, {}, intake)
        with intake.take(["x" * 80_000], "other", []):
            with pytest.raises(Overloaded):
                await asks.ask(request(), [model], ["x" * 130_000])
            await asks.ask(request(), [model], ["x" * 100_000])
        with pytest.raises(PayloadTooLarge, match="200000"):
            await asks.ask(request(), [model], ["x" * 70_000] * 3)
        assert intake.held.bytes == 0
        counted = 'lathe_shed_texts_total{model="shop",reason="overloaded",role="live"} 1.0'
        assert counted in telemetry.exposition().decode()
        await model.stop()

    asyncio.run(main())


def test_both_texts_of_a_pair_count_as_text_that_is_held_and_tokenised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    encode = Engine.encode

    def note(engine: Engine, given: Input) -> Encoded:
        threads.append(threading.get_ident())
        return encode(engine, given)

    async def main() -> None:
        telemetry = Telemetry()
        make_bundle(tmp_path / "pairs", inputs="pairs")
        model = Model("shop", version(tmp_path, "pairs", telemetry), telemetry)
        settings = Settings(queue_bytes=200_000)
        intake = Intake(settings, telemetry)
        with intake.take([("x" * 30_000, "y" * 50_000)], "other", []):
            assert 80_000 < intake.held.bytes < 81_000
        with pytest.raises(PayloadTooLarge, match="200000"):
            await Inference(settings, {}, intake).ask(request(), [model], [("x", "y" * 70_000)] * 3)
        monkeypatch.setattr(Engine, "encode", note)
        for pair in (("x", "y"), ("x", "y " * 200)):
            await Inference(settings, {}, intake).ask(request(), [model], [pair])
        await model.stop()

    asyncio.run(main())
    assert threads[0] == threading.get_ident()
    assert threads[1] != threading.get_ident()
