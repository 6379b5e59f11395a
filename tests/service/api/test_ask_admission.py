"""Requests for which there is no room, or for which others wait."""

import asyncio
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.bundle import Encoded, Input
from service.access.caller import Caller
from service.api.ask import Inference
from service.batching import Batcher, Logits
from service.engine.engine import Engine
from service.errors import Overloaded, PayloadTooLarge
from service.http.messages import Request
from service.models.intake import Intake
from service.models.model import Model
from service.models.version import Member, Version
from service.settings import Settings
from service.telemetry import Telemetry
from service.tenant import ANYONE, Priority, Tenant
from tests.handmade import make_bundle
from tests.service.api.asking import LIMITS, inference, never, request, version


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


def test_text_that_waits_for_answers_is_bounded_in_bytes_whichever_model_it_is_for(tmp_path: Path) -> None:
    async def main() -> None:
        telemetry = Telemetry()
        model = Model("shop", version(tmp_path, "good", telemetry), telemetry)
        settings = Settings(queue_bytes=200_000)
        intake = Intake(settings, telemetry)
        asks = Inference(settings, {}, intake)
        with intake.take(["x" * 80_000], Tenant("other"), []):
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
        with intake.take([("x" * 30_000, "y" * 50_000)], Tenant("other"), []):
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
