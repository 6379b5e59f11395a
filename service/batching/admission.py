"""Admission: every "is there room, in the queue and in time?" of a request is asked here, once at each of its stages.

headers read ──has_room──▶ texts known ──require_room──▶ tokenised ──admit──▶ queue
  │ for one text?            │ for so many?                │ for so many tokens?
  ▼                          ▼                             ▼
 429, its body unread       429, nothing tokenised        429, or a key with more than its share gives way
"""

import math
from collections.abc import Callable
from typing import Generic

from service.batching.estimate import Estimate
from service.batching.limits import BatchLimits
from service.batching.outstanding import Outstanding
from service.batching.submissions import Submission, T
from service.errors import DeadlineExceeded, NotReady, Overloaded, PayloadTooLarge
from service.tenant import Tenant

# Part of its time that a request may be expected to wait. The rest is for what an estimate cannot know: which texts
# will be overtaken by others of the window. In overload a shorter queue costs nothing, and late answers do.
_HEADROOM = 0.35


class Admission(Generic[T]):
    """Decides what enters the queue of one model.

    Attributes:
        closed: why nothing is taken any more; None while texts are.
    """

    def __init__(
        self, limits: BatchLimits, outstanding: Outstanding[T], estimate: Estimate[T], clock: Callable[[], float]
    ) -> None:
        self.closed: str | None = None
        self._limits = limits
        self._outstanding = outstanding
        self._queue = outstanding.queue
        self._estimate = estimate
        self._clock = clock

    def has_room(self, tenant: Tenant, deadline: float) -> bool:
        """Whether it would take one text like those that wait; counts nothing."""
        in_time = self._in_time(1, self._mean_tokens(), tenant, deadline - self._clock())
        return in_time and self._has_place(1, 1, tenant)

    def require_room(self, texts: int, tenant: Tenant, deadline: float) -> None:
        """Rejects what `admit` would, of so many texts like those that wait: tokenising them would be in vain.

        Raises:
            Overloaded, DeadlineExceeded, NotReady: see `admit`.
        """
        # For a place their tokens are not guessed: a key within its share would be rejected for what others sent.
        self._require(texts, texts * self._mean_tokens(), texts, tenant, deadline, self._clock())

    def admit(self, submission: Submission[T]) -> None:
        """Puts a request into the queue, where those give way to it that hold more than their share of it.

        Raises:
            PayloadTooLarge: it would not fit into an empty queue either, or be computed in time were nothing before it.
            Overloaded: the queue has no place for it, or it would not be answered in time.
            DeadlineExceeded: its time is over.
            NotReady: nothing is taken any more.
        """
        limits, queue, texts, tokens = self._limits, self._queue, len(submission.texts), submission.tokens
        if texts > limits.queue_texts or tokens > limits.queue_tokens:
            raise PayloadTooLarge(
                f"the request has {texts} texts, windows of long ones counted, and {tokens} tokens; the queue of "
                f"{self._outstanding.name!r} never holds more than {limits.queue_texts} and {limits.queue_tokens}: "
                "send fewer at a time"
            )
        self._require_possible(submission)
        self._require(texts, tokens, tokens, submission.tenant, submission.deadline, submission.since)
        while not queue.fits(texts, tokens):
            self._outstanding.end(queue.gives_way(), self._overloaded(), "overloaded")
        self._outstanding.add(submission)

    def die(self, reason: str) -> None:
        """Takes nothing any more, because nothing will be computed, and ends all that waits."""
        self.closed = reason
        self._outstanding.end_all(reason)

    def _require_possible(self, submission: Submission[T]) -> None:
        """Rejects texts that take longer than their time: trying again would not help, and sending fewer does.

        A single text is tried, so that a wrong estimate can be corrected.
        """
        texts, seconds = len(submission.texts), submission.deadline - submission.since
        takes = self._estimate.alone_s(texts, submission.tokens)
        if texts > 1 and takes > seconds > 0 and self.closed is None:
            raise PayloadTooLarge(
                f"the request's {texts} texts, windows of long ones counted, are expected to take {takes:.1f} s, and "
                f"its time is {seconds:.1f} s: send at most {max(1, int(texts * seconds / takes))} like these at a "
                "time, or give them more time"
            )

    def _require(
        self, texts: int, expected_tokens: int, least_tokens: int, tenant: Tenant, deadline: float, now: float
    ) -> None:
        if self.closed is not None:
            raise NotReady(self.closed)
        if deadline <= now:
            self._outstanding.shed("deadline", texts)
            raise DeadlineExceeded("the request's time was over before it could be queued")
        if not (
            self._in_time(texts, expected_tokens, tenant, deadline - now)
            and self._has_place(texts, least_tokens, tenant)
        ):
            self._outstanding.shed("overloaded", texts)
            raise self._overloaded()

    def _in_time(self, texts: int, tokens: int, tenant: Tenant, seconds: float) -> bool:
        """Whether a request can be expected to be answered within so many seconds.

        An empty queue takes everything: were nothing computed any more, a wrong estimate could never be corrected.
        """
        if not self._queue or seconds == math.inf:
            return True
        return self._estimate.seconds(*self._queue.ahead_of(tenant, texts, tokens)) <= _HEADROOM * seconds

    def _has_place(self, texts: int, tokens: int, tenant: Tenant) -> bool:
        """Whether so much fits, or the key would hold no more than its share with it."""
        return self._queue.fits(texts, tokens) or self._queue.within_share(tenant, texts, tokens)

    def _mean_tokens(self) -> int:
        return self._queue.tokens // self._queue.texts if self._queue else 1

    def _overloaded(self) -> Overloaded:
        """The rejection; Retry-After, 1 to 60 seconds, says when what waits now is expected to be done."""
        queue = self._queue
        return Overloaded(
            f"{queue.texts} texts and {queue.tokens} tokens wait for {self._outstanding.name!r}; try again later",
            min(60, max(1, math.ceil(self._estimate.seconds(queue.texts, queue.tokens)))),
        )
