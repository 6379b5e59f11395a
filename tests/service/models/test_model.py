"""Versions of a model: swapped, on trial, compared, averaged; with real engines on handmade bundles."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.bundle import Encoded, softmax
from service.engine.engine import Engine
from service.errors import ConfigurationError, NotANumber, Overloaded
from service.models.loading import Loader
from service.models.model import Candidate, Model
from service.models.options import CallOptions
from service.models.registry import check
from service.models.tokenised import Texts
from service.models.version import Scored, Version
from service.settings import Settings
from service.telemetry import Telemetry
from tests.handmade import make_bundle

OPPOSITE = {"good": (1.0, -1.0), "bad": (-1.0, 1.0)}
TEXTS = [f"good number {number}" for number in range(200)]


class Shop:
    """A model, and versions to change to: those with the same opinion as the first, and those with the opposite."""

    def __init__(self, folder: Path, cache_bytes: int = 0) -> None:
        self.telemetry = Telemetry()
        self._loader = Loader(Settings(streams=1, cache_bytes=cache_bytes), self.telemetry)
        make_bundle(folder / "same", {"good": (-1.5, 1.5), "bad": (1.5, -1.5)})
        make_bundle(folder / "opposite", OPPOSITE)
        make_bundle(folder / "first")
        make_bundle(folder / "fitted", temperature=2.0)
        self._folder = folder
        self.model = Model("shop", self.version("first"), self.telemetry)

    def version(self, location: str, **options: Any) -> Version:
        return self._loader.load("shop", location, self._folder.joinpath, **options)

    def started(self, location: str) -> Version:
        version = self.version(location)
        version.start("candidate")
        return version

    async def label(self, text: str = "good") -> str:
        answer = await self.model.ask([text])
        return answer.labels[int(answer.scores[0].argmax())]

    def metric(self, line: str) -> float | None:
        values = [row.rsplit(" ", 1)[1] for row in self.telemetry.exposition().decode().splitlines() if line in row]
        return float(values[0]) if values else None


Scenario = Callable[[Shop], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario in an event loop of its own, and stops the model after it."""

    async def main(scenario: Scenario) -> None:
        shop = Shop(tmp_path)
        try:
            await scenario(shop)
        finally:
            await shop.model.stop()

    return lambda scenario: asyncio.run(main(scenario))


def test_a_swap_drops_nobody_and_the_way_back_needs_no_file(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        asking = [asyncio.create_task(shop.model.ask([text] * 3)) for text in TEXTS]
        await asyncio.sleep(0)
        for location in ("opposite", "same", "opposite"):
            shop.model.swap(shop.started(location))
            asking += [asyncio.create_task(shop.model.ask([text] * 3)) for text in TEXTS]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*asking)
        assert len(answers) == 800
        assert len({answer.version for answer in answers}) == 3
        assert await shop.label() == "negative"
        for file in (tmp_path / "same").iterdir():
            file.unlink()
        shop.model.roll_back()
        assert await shop.label() == "positive"
        assert shop.model.previous is None

    play(scenario)


def test_a_version_that_is_given_up_finishes_what_it_took_and_leaves_no_memory(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(shop: Shop) -> None:
        first = shop.model.live
        asking = asyncio.create_task(shop.model.ask([*TEXTS, "bad " * 5000]))  # long: tokenised on a thread
        await asyncio.sleep(0)
        shop.model.swap(shop.started("same"))
        shop.model.swap(shop.started("opposite"))
        assert len((await asking).scores) == 201
        await shop.model.ask(["good"])
        while shop.model._background:
            await asyncio.sleep(0.01)
        assert not first.alive
        gone = weakref.ref(first.members[0].engine)
        del first, asking
        gc.collect()
        assert gone() is None

    play(scenario)


def test_metrics_follow_the_part_that_a_version_has(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        def versions() -> dict[str, str]:
            rows = [
                row for row in shop.telemetry.exposition().decode().splitlines() if row.startswith("lathe_model_info{")
            ]
            parts = [
                dict(pair.split("=") for pair in row.partition("{")[2].partition("}")[0].split(",")) for row in rows
            ]
            assert {part["model"] for part in parts} == {'"shop"'}
            assert len({part["role"] for part in parts}) == len(
                parts
            )  # Prometheus refuses a series that is there twice
            return {part["role"].strip('"'): part["version"].strip('"') for part in parts}

        first, second = shop.model.live, shop.started("opposite")
        shop.model.try_out(second, 10)
        assert versions() == {"live": first.id, "candidate": second.id}
        shop.model.swap(second)
        assert versions() == {"live": second.id, "previous": first.id}
        assert shop.metric('lathe_queue_texts{model="shop",role="candidate"}') is None
        before = shop.metric('lathe_tokens_total{kind="text",model="shop",role="live"}') or 0
        await shop.model.ask(["good"])
        assert shop.metric('lathe_tokens_total{kind="text",model="shop",role="live"}') == before + 1
        shop.model.roll_back()
        assert versions() == {"live": first.id}
        assert shop.metric('lathe_queue_texts{model="shop",role="live"}') == 0

    play(scenario)


@pytest.mark.parametrize("cache_bytes", [0, 100_000])
def test_of_many_versions_those_that_have_gone_are_freed_without_a_garbage_collection(
    tmp_path: Path, cache_bytes: int
) -> None:
    engines: list[weakref.ref[Engine]] = []

    async def main() -> None:
        shop = Shop(tmp_path, cache_bytes)

        def started(location: str) -> Version:
            version = shop.version(location)
            version.verify()
            version.warm_up()
            version.start("candidate")
            engines.extend(weakref.ref(member.engine) for member in version.members)
            return version

        for location in ("same", "opposite", "same@1+first@1", "opposite", "same", "opposite"):
            version = started(location)
            shop.model.try_out(version, 50)
            await shop.model.ask(TEXTS)
            shop.model.try_out(version, None)
            await shop.model.ask(["good"])
            shop.model.swap(version)
            shop.telemetry.exposition()
        shop.model.try_out(started("same"), 10)
        shop.model.drop()
        shop.model.roll_back()
        del version
        await asyncio.gather(*shop.model._background)
        for _ in range(100):  # until threads of the last batches have let go of them
            if sum(engine() is not None for engine in engines) == 1:
                break
            await asyncio.sleep(0.05)
        assert [engine() is shop.model.live.members[0].engine for engine in engines if engine() is not None] == [True]
        await shop.model.stop()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
    assert len(engines) == 8


def test_a_canary_answers_its_part_and_the_same_text_gets_the_same_version(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        shop.model.try_out(shop.started("opposite"), 25)
        assert shop.model.candidate is not None
        candidate = shop.model.candidate.version.id
        together = await shop.model.ask(TEXTS)
        alone = [await shop.model.ask([text]) for text in TEXTS]
        labels = [answer.scores[0].argmax() for answer in alone]
        assert together.scores.argmax(1).tolist() == labels
        assert together.version == f"{shop.model.live.id},{candidate}"
        by_candidate = [answer.version == candidate for answer in alone]
        assert [label == 0 for label in labels] == by_candidate
        assert 25 < sum(by_candidate) < 75
        wider = Candidate(shop.model.candidate.version, 60)
        assert all(wider.takes(text) for text, taken in zip(TEXTS, by_candidate, strict=True) if taken)
        shop.model.drop()
        assert {(await shop.model.ask([text])).version for text in TEXTS} == {shop.model.live.id}

    play(scenario)


@pytest.mark.parametrize(("percent", "share"), [(0, 0), (100, 200)])
def test_a_canary_of_nothing_or_all(play: Callable[[Scenario], None], percent: float, share: int) -> None:
    async def scenario(shop: Shop) -> None:
        version = shop.started("opposite")
        shop.model.try_out(version, percent)
        answer = await shop.model.ask(TEXTS)
        assert (answer.scores.argmax(1) == 0).sum() == share
        assert answer.version == (version.id if share else shop.model.live.id)

    play(scenario)


def test_a_canary_that_died_leaves_its_texts_to_the_live_version(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        version = shop.started("opposite")
        shop.model.try_out(version, 100)
        await version.stop()
        assert await shop.label() == "positive"
        assert shop.model.alive

    play(scenario)


def test_a_shadow_is_compared_and_never_sent(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        shop.model.try_out(shop.started("opposite"), None)
        answer = await shop.model.ask(["good", "bad", "neither"])
        assert answer.version == shop.model.live.id
        await asyncio.gather(*shop.model._background)
        assert shop.metric('lathe_shadow_texts_total{model="shop",result="disagree"}') == 2
        assert shop.metric('lathe_shadow_texts_total{model="shop",result="agree"}') == 1
        assert shop.model.candidate is not None
        await shop.model.candidate.version.members[0].batcher.close()
        candidate = shop.model.candidate
        await shop.model._compare(candidate, Texts(["good"]), CallOptions(), answer)
        assert shop.metric('lathe_shadow_texts_total{model="shop",result="failed"}') == 1

    play(scenario)


def test_an_ensemble_averages_probabilities_by_weight(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        version = shop.version("first@3+opposite@1")
        version.verify()
        version.warm_up()
        version.start("candidate")
        shop.model.swap(version)
        answer = await shop.model.ask(["good", "bad bad", ""])
        one = softmax(np.array([[-1, 1], [2, -2], [0, 0]], np.float32))
        other = softmax(np.array([[1, -1], [-2, 2], [0, 0]], np.float32))
        assert answer.scores == pytest.approx(0.75 * one + 0.25 * other)
        assert not answer.degraded
        assert answer.version == "+".join(f"{m.bundle.version}@{m.weight:g}" for m in version.members)
        assert shop.metric('lathe_tokens_total{kind="text",model="shop.0",role="live"}') is not None

    play(scenario)


@pytest.mark.parametrize(("location", "calibrated"), [("first@1+fitted@1", False), ("fitted@1+fitted@3", True)])
def test_an_ensemble_is_calibrated_where_every_member_is(
    play: Callable[[Scenario], None], location: str, calibrated: bool
) -> None:
    async def scenario(shop: Shop) -> None:
        version = shop.version(location)
        version.start("candidate")
        shop.model.swap(version)
        answer = await shop.model.ask(["good"], CallOptions(calibrated=True))
        assert answer.calibrated is calibrated
        logits = np.array([[-1, 1]], np.float32) / (2 if calibrated else 1)
        assert answer.scores == pytest.approx(softmax(logits))

    play(scenario)


def test_beside_a_canary_that_is_not_calibrated_no_answer_is(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        version = shop.version("fitted")
        version.start("candidate")
        shop.model.swap(version)
        shop.model.try_out(shop.started("same"), 50)
        options = CallOptions(calibrated=True)
        answer = await shop.model.ask(TEXTS, options)
        assert not answer.calibrated
        assert {round(float(one), 4) for one in answer.scores.max(1)} == {
            round(float(softmax(np.array([-by, by]))[1]), 4) for by in (1.0, 1.5)
        }
        shop.model.drop()
        assert (await shop.model.ask(TEXTS, options)).calibrated

    play(scenario)


def test_an_ensemble_without_a_member_says_so_where_that_is_allowed(play: Callable[[Scenario], None]) -> None:
    async def scenario(shop: Shop) -> None:
        location = "first@3+nowhere@1"
        with pytest.raises(Exception, match="nowhere"):
            shop.version(location)
        with pytest.raises(Exception, match="nowhere"):
            shop.version("nowhere", degraded=True)
        version = shop.version(location, degraded=True)
        version.start("candidate")
        shop.model.swap(version)
        answer = await shop.model.ask(["good"])
        assert answer.degraded
        assert answer.scores == pytest.approx(softmax(np.array([[-1, 1]], np.float32)))
        assert shop.metric('lathe_missing_members{model="shop"}') == 1

    play(scenario)


def test_members_with_other_labels_are_refused(play: Callable[[Scenario], None], tmp_path: Path) -> None:
    make_bundle(tmp_path / "turned", labels=("positive", "negative"))

    async def scenario(shop: Shop) -> None:
        with pytest.raises(Exception, match=r"turned.*positive, negative"):
            shop.version("first@1+turned@1")

    play(scenario)


def test_an_answer_that_is_no_number_is_an_error_of_its_own_and_leaves_the_others_alone(
    play: Callable[[Scenario], None], tmp_path: Path
) -> None:
    make_bundle(tmp_path / "poisoned", {"good": (-1.0, 1.0), "poison": (float("nan"), 0.0)})

    async def scenario(shop: Shop) -> None:
        shop.model.swap(shop.started("poisoned"))
        asking = [shop.model.ask([text]) for text in ("good", "poison", "good")]
        one, poisoned, other = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(poisoned, NotANumber)
        assert isinstance(one, Scored)
        assert isinstance(other, Scored)
        assert shop.metric('lathe_failed_texts_total{code="not_a_number",model="shop",role="live"}') == 1

    play(scenario)


def test_what_a_full_queue_will_refuse_is_not_tokenised(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shop: Shop) -> None:
        room = Settings().queue_texts
        waiting = asyncio.create_task(shop.model.ask(["good"] * room))
        while not shop.metric('lathe_queue_texts{model="shop",role="live"}'):
            await asyncio.sleep(0)  # until all are queued; no stream has had its turn yet

        def encode(_: Engine, text: str) -> Encoded:
            raise AssertionError("a text was tokenised that nobody will compute")

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "encode", encode)
            with pytest.raises(Overloaded):
                await shop.model.ask(["good"])
        assert len((await waiting).truncated) == room

    play(scenario)


def test_a_version_for_which_no_memory_is_left_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = make_bundle(tmp_path / "same").model_path.stat().st_size
    loader = Loader(Settings(streams=1), Telemetry())
    monkeypatch.setattr("service.models.loading.memory_left", lambda: 2 * size - 1)
    with pytest.raises(ConfigurationError, match=r"same: needs .* MB of memory at least, and the limit .* leaves 0 MB"):
        loader.load("shop", "same", tmp_path.joinpath)
    monkeypatch.setattr("service.models.loading.memory_left", lambda: 2 * size)
    loader.load("shop", "same", tmp_path.joinpath)
    monkeypatch.setattr("service.models.loading.memory_left", lambda: None)
    loader.load("shop", "same", tmp_path.joinpath)


def test_more_bundles_than_there_is_memory_for_are_refused_before_a_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(tmp_path / "one")
    settings = Settings(models={"one": "one", "two": "one"}, triage="off")
    check(settings, tmp_path.joinpath, lambda _: None)
    monkeypatch.setattr("service.models.loading.memory_left", lambda: 100_000_000)
    with pytest.raises(ConfigurationError, match=r"needs 120 MB of memory at least, .* leaves 100 MB: raise it"):
        check(settings, tmp_path.joinpath, lambda _: None)
