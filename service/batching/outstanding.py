"""The requests that are not answered yet, and the ways in which one ends without an answer, each counted."""

from collections.abc import Callable
from typing import Generic

from service.batching.queue import FairQueue
from service.batching.submissions import Submission, T, Text
from service.errors import DeadlineExceeded, InferenceFailed, NotANumber, NotReady
from service.telemetry import VersionMetrics


class Outstanding(Generic[T]):
    """What was admitted and is not over.

    Attributes:
        name: the model's name, for messages.
        queue: those texts of theirs that wait.
        submissions: all of them; those whose texts are all being computed, too.
    """

    def __init__(self, queue: FairQueue[T], metrics: VersionMetrics, clock: Callable[[], float]) -> None:
        self.name = metrics.model
        self.queue = queue
        self.submissions: set[Submission[T]] = set()
        self._metrics = metrics
        self._clock = clock

    def add(self, submission: Submission[T]) -> None:
        """Puts an admitted request into the queue."""
        self.queue.add(submission)
        self.submissions.add(submission)

    def remove(self, submission: Submission[T]) -> None:
        """Forgets a request that is over."""
        self.submissions.discard(submission)
        self.queue.discard(submission)
        submission.texts.clear()  # each refers to its submission: without the cycle, memory is free at once

    def shed(self, reason: str, texts: int) -> None:
        """Counts texts that are turned away or given up; for the reasons see `VersionMetrics.shed`."""
        self._metrics.shed(reason, texts)

    def end(self, submission: Submission[T], error: Exception, reason: str) -> None:
        """Answers a request with an error; what it still has in the queue leaves, and counts as shed."""
        self.shed(reason, submission.waiting)
        self.queue.discard(submission)
        submission.fail(error)

    def expire(self, submission: Submission[T]) -> None:
        """Ends a request whose time is over."""
        self.end(submission, DeadlineExceeded("there was no answer within the request's time"), "deadline")

    def fail(self, text: Text[T], error: InferenceFailed | NotANumber) -> None:
        """Ends the request of a text that the model could not compute."""
        self._metrics.failed(error.code)
        self.queue.discard(text.submission)
        text.submission.fail(error)

    def end_all(self, message: str) -> None:
        """Answers all of them with NotReady."""
        for submission in self.submissions:
            self.queue.discard(submission)
            submission.fail(NotReady(message))

    def wants(self, text: Text[T]) -> bool:
        """Whether anybody still waits for a text that has left the queue; counts why not."""
        submission = text.submission
        if submission.deadline <= self._clock():  # its timer is late
            self.expire(submission)
        if submission.future.done():
            self.shed(submission.left(), 1)
            return False
        return True
