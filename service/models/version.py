"""One version of a model, as it runs: a bundle, or several whose scores are averaged.

Knows no HTTP, and not which versions there are besides; that is service/models/model.py.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from compression.bundle import Bundle, Encoded, Task, joined, windows_of
from compression.bundle.task import Answers, Flags, Scores
from service.batching import Batcher, Cancellation, Predictor
from service.engine.engine import Engine
from service.errors import PayloadTooLarge
from service.models.cache import CachedBatcher, ResultCache
from service.models.options import CallOptions
from service.models.tokenised import Texts
from service.telemetry import Role
from service.tenant import Tenant

T = TypeVar("T")

_ANSWERS_WITHIN_S = 600.0  # to the texts that a version is tried with


@dataclass(frozen=True)
class Scored:
    """A model's answer to the texts of a request.

    Attributes:
        version: of what answered.
        task: what makes scores of logits like these; its labels are the names of the columns.
        logits: (texts, labels); of an ensemble, whose scores are averaged, logits that have those.
        given: the labels that each text gets.
        truncated: of each text, whether it was cut.
        abstained: of each text, whether the bundle does not stand by its answer; None where nothing says so, as of an
            ensemble, for whose scores no threshold was chosen.
        tokens: of all texts, as far as they were read, in as many windows; each member of an ensemble reads them.
        degraded: whether members of an ensemble are missing.
        calibrated: whether the logits are divided by a fitted temperature; those of a bundle that has none, for lack
            of labelled texts, are the model's own whatever was asked.
    """

    version: str
    task: Task
    logits: npt.NDArray[np.floating]
    given: Answers
    truncated: Sequence[bool]
    abstained: Sequence[bool | None]
    tokens: int
    degraded: bool = False
    calibrated: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.task.labels

    @cached_property
    def scores(self) -> Scores:
        """(texts, labels)."""
        return self.task.scores(self.logits)

    def same(self, other: "Scored") -> Flags:
        """Whether another model's answers to these texts are the same, (texts,)."""
        return self.task.same(self.logits, other.logits, other.task)


class Member:
    """One bundle of a version, with its weight and its queue.

    Args:
        cache: of answers, asked before the queue is; None where every text is computed.
    """

    def __init__(
        self,
        engine: Engine,
        batcher: Batcher[Encoded],
        weight: float,
        cache: ResultCache | None = None,
    ) -> None:
        self.engine = engine
        self.batcher = batcher
        self.weight = weight
        self.metrics = batcher.metrics
        manifest = self.bundle.manifest
        recipe, batch_exact = str(manifest.recipe.get("name")), manifest.runtime.batch_exact
        self.metrics.describe(self.bundle.version, recipe, batch_exact)
        self.predictor: Predictor[Encoded] = batcher
        if cache is not None:
            self.predictor = CachedBatcher(cache, engine.bundle.manifest.version(), batcher)

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    @property
    def temperature(self) -> float:
        """What calibration divides logits by; a fitted one is never exactly 1."""
        return self.bundle.manifest.runtime.temperature

    async def ask(self, texts: Texts, options: CallOptions, alone: bool = True) -> Scored:
        """Tokenises and computes; see `Version.ask`.

        Args:
            alone: whether its answers are the version's, and not averaged with others'.
        """
        self.predictor.require_room(len(texts), options.tenant, options.deadline)
        encoded = await texts.encoded(self.engine, self.metrics, options.deadline)
        truncated = [one.truncated for one in encoded]
        if any(truncated):
            if not options.cut:
                place = texts.places[truncated.index(True)]
                raise PayloadTooLarge(
                    f"inputs.{place} has more than {self.engine.most_tokens} tokens; shorten it or send truncate"
                )
            self.metrics.truncated(sum(truncated))
        windows = windows_of(encoded)
        computed = await self.predictor.submit(windows, options.tenant, options.deadline, options.cancellation)
        logits = joined(computed, encoded, self.bundle.manifest.runtime.long_texts)
        abstained = self.bundle.abstains(logits) if alone else [None] * len(logits)
        if any(abstained):
            self.metrics.abstained(sum(map(bool, abstained)))
        temperature = self.temperature
        calibrated = options.calibrated and temperature != 1
        scaled = logits.astype(np.float64) / temperature if calibrated else logits
        tokens, task = sum(map(len, encoded)), self.bundle.task
        return Scored(
            self.bundle.version,
            task.at(temperature) if calibrated else task,
            scaled,
            task.decide(logits),
            truncated,
            abstained,
            tokens,
            calibrated=calibrated,
        )


class Version:
    """Members with the same labels, in the order of the setting; most versions have one.

    Args:
        missing: how many members of the setting could not be loaded.
    """

    def __init__(self, members: Sequence[Member], missing: int = 0) -> None:
        self.members = tuple(members)
        self.missing = missing
        self._in_use = 0
        self._unused = asyncio.Event()

    @property
    def id(self) -> str:
        """The bundle's version; of an ensemble, each member's with its weight, as the setting writes them."""
        if len(self.members) == 1 and not self.missing:
            return self.members[0].bundle.version
        return "+".join(f"{member.bundle.version}@{member.weight:g}" for member in self.members)

    def is_of(self, opened: Sequence[tuple[Bundle, float]]) -> bool:
        """Whether it is made of bundles of this content, with these weights."""
        mine = [(member.bundle.manifest.digest(), member.weight) for member in self.members]
        return not self.missing and mine == [(bundle.manifest.digest(), weight) for bundle, weight in opened]

    @property
    def bundle(self) -> Bundle:
        """The first member's: labels are the same in all."""
        return self.members[0].bundle

    @property
    def task(self) -> Task:
        """That of its answers, at temperature 1."""
        tasks = [member.bundle.task for member in self.members]
        return tasks[0].mean(tasks, [member.weight for member in self.members])

    @property
    def labels(self) -> tuple[str, ...]:
        return self.bundle.manifest.labels

    @property
    def abstain_below(self) -> float | None:
        """The calibrated confidence below which it abstains; None where it never does."""
        if len(self.members) > 1 or self.missing:
            return None
        abstain = self.bundle.manifest.runtime.abstain
        return None if abstain is None else abstain.below

    @property
    def alive(self) -> bool:
        return all(member.batcher.alive for member in self.members)

    def verify(self, within_s: float = _ANSWERS_WITHIN_S) -> None:
        """Compares the answers of this machine with the bundles' golden ones.

        Args:
            within_s: seconds that each member may take.

        Raises:
            BundleError: they are not the same, or not there in time.
        """
        for member in self.members:
            with member.engine.limited(within_s):
                member.engine.verify()

    def warm_up(self, within_s: float = _ANSWERS_WITHIN_S) -> None:
        """Answers texts, so that the first client does not wait for allocations, and estimates hold from the first.

        Args:
            within_s: seconds that each member may take.

        Raises:
            ConfigurationError: an answer is not finite.
            BundleError: they are not there in time.
        """
        for member in self.members:
            with member.engine.limited(within_s):
                member.engine.warm_up()
                member.batcher.rehearse(member.engine.rehearsal())

    def start(self, role: Role = "live") -> None:
        """Begins to take texts, in that part; call it inside the event loop."""
        self.take_role(role)
        for member in self.members:
            member.batcher.start()

    def take_role(self, role: Role) -> None:
        """Is measured in that part from now on."""
        for member in self.members:
            member.metrics.role = role

    def retire(self) -> None:
        """Has no part any more; it may still have to answer what it took."""
        for member in self.members:
            member.metrics.hide()

    def shed(self, reason: str, texts: int) -> None:
        """Counts texts that were turned away before any member had them."""
        for member in self.members:
            member.metrics.shed(reason, texts)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While this lasts, the version is not stopped."""
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1
            if not self._in_use:
                self._unused.set()

    @property
    def has_calibration(self) -> bool:
        """Whether every member was calibrated."""
        return all(member.temperature != 1 for member in self.members)

    def has_room(self, tenant: Tenant, deadline: float) -> bool:
        """Whether every member would take a text; see `Batcher.has_room`."""
        return all(member.predictor.has_room(tenant, deadline) for member in self.members)

    def require_room(self, tenant: Tenant, deadline: float) -> None:
        """Rejects a request where a member would not take a text; see `Batcher.require_room`."""
        for member in self.members:
            member.predictor.require_room(1, tenant, deadline)

    async def ask(self, texts: Texts, options: CallOptions) -> Scored:
        """Answers texts.

        Raises:
            PayloadTooLarge: a text is too long, and may not be cut.
            ServiceError: what `Batcher.submit` raises, of any member.
        """
        if options.calibrated and not self.has_calibration:  # nobody could say what a mixture of both is
            options = replace(options, calibrated=False)
        if len(self.members) == 1 and not self.missing:
            return await self.members[0].ask(texts, options)
        answers = await together(
            (member.ask(texts, options, alone=False) for member in self.members), options.cancellation
        )
        weights = [member.weight for member in self.members]
        scores = np.average([answer.scores for answer in answers], axis=0, weights=weights)
        task = answers[0].task.mean([answer.task for answer in answers], weights)
        logits = task.logits_of(scores)
        return Scored(
            self.id,
            task,
            logits,
            task.decide(logits),
            [any(flags) for flags in zip(*(answer.truncated for answer in answers), strict=True)],
            [None] * len(texts),
            sum(answer.tokens for answer in answers),
            bool(self.missing),
            all(answer.calibrated for answer in answers),
        )

    async def stop(self) -> None:
        """Answers what it was asked, and ends; nothing may ask it any more."""
        while self._in_use:
            self._unused.clear()
            await self._unused.wait()
        await asyncio.gather(*(member.batcher.close() for member in self.members))


async def together(work: Iterable[Coroutine[Any, Any, T]], cancellation: Cancellation) -> list[T]:
    """The results of all parts of a call, in order; when one fails or the caller is cancelled, the others end at once.

    Args:
        cancellation: the call's; tells those others when it was a part that failed.
    """
    work = list(work)
    if len(work) == 1:  # a task would cost more, and there is nobody else to give up
        return [await work[0]]
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except Exception:
        cancellation.give_up()
        raise
    finally:
        for task in tasks:
            task.cancel()
