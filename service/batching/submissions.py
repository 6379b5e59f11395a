"""What waits in the queue: the texts that a request gives one model, answered when the last of them is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from service.tenant import Tenant

Logits = npt.NDArray[np.float32]


class Item(Protocol):
    """A tokenised text; its length is in tokens."""

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Item)


@dataclass(slots=True, eq=False)
class Text(Generic[T]):
    """One text of a submission, at that position in it."""

    item: T
    tokens: int
    submission: "Submission[T]"
    position: int


class Cancellation:
    """Why a call is cancelled, for the metrics: asyncio cancels tasks and cannot say. All parts of a call share one.

    Attributes:
        reason: `client_gone`, or `given_up` where another part of the call has failed.
    """

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason = "client_gone"

    def give_up(self) -> None:
        """What is cancelled from now on is so because a part of the call has failed."""
        self.reason = "given_up"


class Submission(Generic[T]):
    """The texts that a request gives one model: what `Batcher.submit` takes.

    Attributes:
        tenant: who asks.
        deadline: when an answer is of no use any more, on the batcher's clock.
        since: when it came.
        cancellation: why, where its future is cancelled.
        future: its answer, (texts, labels); ends exactly once, with it or with the first error of any text.
        waiting: how many of its texts are in the queue; kept by the queue.
    """

    __slots__ = (
        "_logits",
        "_missing",
        "cancellation",
        "deadline",
        "future",
        "since",
        "tenant",
        "texts",
        "tokens",
        "waiting",
    )

    def __init__(
        self,
        items: Sequence[T],
        tenant: Tenant,
        deadline: float,
        since: float,
        cancellation: Cancellation | None = None,
    ) -> None:
        # A text of no tokens counts as one: nothing is free.
        self.texts = [Text(item, len(item) or 1, self, position) for position, item in enumerate(items)]
        self.tokens = sum(text.tokens for text in self.texts)
        self.tenant = tenant
        self.deadline = deadline
        self.since = since
        self.cancellation = cancellation or Cancellation()
        self.future: asyncio.Future[Logits] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        self._missing = len(self.texts)
        self._logits: Logits | None = None

    def answer(self, position: int, row: Logits) -> None:
        """Takes the logits of one text, (labels,); with the last one it is answered."""
        if self.future.done():  # its time was over, or its client has gone
            return
        if self._logits is None:
            self._logits = np.empty((len(self.texts), len(row)), row.dtype)
        self._logits[position] = row
        self._missing -= 1
        if not self._missing:
            self.future.set_result(self._logits)

    def left(self) -> str:
        """Why nobody waits for it any more, in the words of the metrics."""
        if self.future.cancelled():
            return self.cancellation.reason
        self.future.exception()  # it is known here, where nobody waits to be told
        return "deadline"

    def fail(self, error: Exception) -> None:
        """Ends it with an error, unless it has ended."""
        if not self.future.done():
            self.future.set_exception(error)
