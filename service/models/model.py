"""One model as it is served, by name: which of its versions answers.

    load ──▶ live ──next load or promote──▶ previous ──next again──▶ stopped, when all that it took is answered
      │       ▲ ▲────────rollback──────────────┘
      └▶ candidate ──promote──┘     gets a part of the texts (canary), or all of them for comparison (shadow)
             └──drop──▶ stopped

A change of version is one assignment in the event loop: a request has the old one or the new one, and never none.
The previous version stays loaded, so that the way back needs no file and no time.
"""

import asyncio
import zlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compression.bundle import Input, InputKind, texts_of
from service.errors import ServiceError
from service.models.options import CallOptions
from service.models.tokenised import Texts
from service.models.version import Scored, Version, together
from service.telemetry import Telemetry


@dataclass(frozen=True)
class Candidate:
    """A version on trial.

    Attributes:
        percent: of the texts that it answers, 0 to 100; None where it is asked only to compare (shadow mode).
    """

    version: Version
    percent: float | None

    def takes(self, given: Input) -> bool:
        """Whether it answers this text or pair: always the same for the same one, and also at a higher percentage."""
        if self.percent is None:
            return False
        return zlib.crc32("\0".join(texts_of(given)).encode("utf-8", "surrogatepass")) < self.percent / 100 * 2**32


class Model:
    """A name, and the versions behind it.

    Args:
        live: started here.
    """

    def __init__(self, name: str, live: Version, telemetry: Telemetry) -> None:
        self.name = name
        self.live = live
        self.candidate: Candidate | None = None
        self.previous: Version | None = None
        self._telemetry = telemetry
        self._background: set[asyncio.Task[None]] = set()  # an event loop alone would forget them
        live.start()
        telemetry.versions(name, live.missing)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.live.labels

    @property
    def inputs(self) -> InputKind:
        """What every version of it reads."""
        return self.live.bundle.manifest.inputs

    @property
    def alive(self) -> bool:
        """Whether the live version can answer; what is on trial does not count."""
        return self.live.alive

    async def ask(self, texts: Sequence[Input], options: CallOptions | None = None) -> Scored:
        """Answers texts or pairs, each with the version that it belongs to.

        Args:
            texts: at least one; of the kind that the model reads.
            options: the call's; the defaults where they are left out.

        Raises:
            ServiceError: one of those of `Version.ask`.
        """
        texts, options = Texts.of(texts), options or CallOptions()
        live, candidate = self.live, self.candidate
        if candidate is None or not candidate.version.alive:
            with live.in_use():
                return await live.ask(texts, options)
        if candidate.percent is None:
            with live.in_use():
                answer = await live.ask(texts, options)
            self._run(self._compare(candidate, texts, options, answer))
            return answer
        to_candidate = [candidate.takes(text) for text in texts]
        with live.in_use(), candidate.version.in_use():
            return await _split(live, candidate.version, to_candidate, texts, options)

    def swap(self, version: Version) -> None:
        """Makes a started version the live one; the one before becomes the previous one."""
        if self.candidate is not None and self.candidate.version is version:
            self.candidate = None
        self._retire(self.previous)
        self.previous, self.live = self.live, version
        self.previous.take_role("previous")
        self._measure_live()

    def try_out(self, version: Version, percent: float | None) -> None:
        """Puts a started version on trial, or changes the percentage of the one that is."""
        self.candidate = Candidate(version, percent)
        version.take_role("candidate")

    def drop(self) -> None:
        """Ends the trial."""
        if self.candidate is not None:
            candidate, self.candidate = self.candidate, None
            self._retire(candidate.version)

    def roll_back(self) -> None:
        """Returns to the previous version, and gives up the one that was live, and what is on trial."""
        assert self.previous is not None
        self.drop()
        self._retire(self.live)
        self.live, self.previous = self.previous, None
        self._measure_live()

    async def stop(self) -> None:
        """Answers what was accepted, by every version."""
        versions = [self.live, self.previous, self.candidate.version if self.candidate is not None else None]
        await asyncio.gather(*(version.stop() for version in versions if version is not None), *self._background)

    def _measure_live(self) -> None:
        self.live.take_role("live")
        self._telemetry.versions(self.name, self.live.missing)

    def _retire(self, version: Version | None) -> None:
        if version is not None:
            version.retire()
            self._run(version.stop())

    async def _compare(self, candidate: Candidate, texts: Texts, options: CallOptions, answer: Scored) -> None:
        """Asks the candidate, too, and counts where its answers are others; its failures are nobody's but its own."""
        if self.candidate is not candidate:
            return
        try:
            with candidate.version.in_use():
                other = await candidate.version.ask(texts, CallOptions(options.tenant, options.deadline))
        except ServiceError:
            self._telemetry.shadow(self.name, "failed", len(texts))
            return
        agreeing = int(answer.same(other).sum())
        self._telemetry.shadow(self.name, "agree", agreeing)
        self._telemetry.shadow(self.name, "disagree", len(texts) - agreeing)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _split(
    live: Version,
    candidate: Version,
    to_candidate: Sequence[bool],
    texts: Texts,
    options: CallOptions,
) -> Scored:
    """Asks each version for its texts and puts the rows back in order; the answer names the versions that gave them."""
    shares = [
        (version, [index for index, taken in enumerate(to_candidate) if taken is wanted])
        for version, wanted in ((live, False), (candidate, True))
    ]
    shares = [(version, indices) for version, indices in shares if indices]
    if not all(version.has_calibration for version, _ in shares):  # `calibrated` is one word for the whole answer
        options = replace(options, calibrated=False)
    parts = (version.ask(texts.part(indices), options) for version, indices in shares)
    answers = await together(parts, options.cancellation)
    if len(answers) == 1:
        return answers[0]
    shape = len(texts), len(live.labels)
    logits, given = np.empty(shape), np.empty(shape, np.bool_)
    truncated = [False] * len(texts)
    abstained: list[bool | None] = [None] * len(texts)
    for (_, indices), answer in zip(shares, answers, strict=True):
        logits[indices], given[indices] = answer.logits, answer.given
        for index, was_cut, abstains in zip(indices, answer.truncated, answer.abstained, strict=True):
            truncated[index], abstained[index] = was_cut, abstains
    return Scored(
        ",".join(answer.version for answer in answers),
        answers[0].task,
        logits,
        given,
        truncated,
        abstained,
        sum(answer.tokens for answer in answers),
        any(answer.degraded for answer in answers),
        all(answer.calibrated for answer in answers),
    )
