"""The requests that are not answered yet, and the ways in which one ends without an answer, each counted."""

from collections.abc import Callable
from typing import Generic

from service.batching.queue import FairQueue
from service.batching.requests import Request, T, Text
from service.errors import DeadlineExceeded, InferenceFailed, NotANumber, NotReady
from service.telemetry import VersionMetrics


class Outstanding(Generic[T]):
    """What was admitted and is not over.

    Attributes:
        name: the model's name, for messages.
        queue: those texts of theirs that wait.
        requests: all of them; those whose texts are all being computed, too.
    """

    def __init__(self, queue: FairQueue[T], metrics: VersionMetrics, clock: Callable[[], float]) -> None:
        self.name = metrics.model
        self.queue = queue
        self.requests: set[Request[T]] = set()
        self._metrics = metrics
        self._clock = clock

    def add(self, request: Request[T]) -> None:
        """Puts an admitted request into the queue."""
        self.queue.add(request)
        self.requests.add(request)

    def remove(self, request: Request[T]) -> None:
        """Forgets a request that is over."""
        self.requests.discard(request)
        self.queue.discard(request)
        request.texts.clear()  # each refers to its request: without the cycle, memory is free at once

    def shed(self, reason: str, texts: int) -> None:
        """Counts texts that are turned away or given up; for the reasons see `VersionMetrics.shed`."""
        self._metrics.shed(reason, texts)

    def end(self, request: Request[T], error: Exception, reason: str) -> None:
        """Answers a request with an error; what it still has in the queue leaves, and counts as shed."""
        self.shed(reason, request.waiting)
        self.queue.discard(request)
        request.fail(error)

    def expire(self, request: Request[T]) -> None:
        """Ends a request whose time is over."""
        self.end(request, DeadlineExceeded("there was no answer within the request's time"), "deadline")

    def fail(self, text: Text[T], error: InferenceFailed | NotANumber) -> None:
        """Ends the request of a text that the model could not compute."""
        self._metrics.failed(error.code)
        self.queue.discard(text.request)
        text.request.fail(error)

    def end_all(self, message: str) -> None:
        """Answers all of them with NotReady."""
        for request in self.requests:
            self.queue.discard(request)
            request.fail(NotReady(message))

    def wants(self, text: Text[T]) -> bool:
        """Whether anybody still waits for a text that has left the queue; counts why not."""
        request = text.request
        if request.deadline <= self._clock():  # its timer is late
            self.expire(request)
        if request.future.done():
            self.shed(request.left(), 1)
            return False
        return True
