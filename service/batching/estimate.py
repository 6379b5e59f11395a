"""How long what waits will take, from what batches have cost so far."""

from typing import Generic

from service.batching.cost import CostModel
from service.batching.limits import BatchLimits
from service.batching.submissions import T
from service.batching.threads import Threads


class Estimate(Generic[T]):
    """Expected times of one batcher's threads; everything is free until a batch was seen."""

    def __init__(self, limits: BatchLimits, cost: CostModel, threads: Threads[T]) -> None:
        self._limits = limits
        self._cost = cost
        self._threads = threads

    def seconds(self, texts: int, tokens: int) -> float:
        """Expected seconds until the threads have done what they are at and so much more."""
        return self._threads.expected_s / self._limits.streams + self.alone_s(texts, tokens)

    def alone_s(self, texts: int, tokens: int) -> float:
        """Expected seconds that so much takes the threads, were there nothing else to do."""
        padded = tokens * self._cost.padding
        batches = min(texts, max(padded / self.batch_tokens(), texts / self._limits.batch_texts))
        return self._cost.seconds(padded, batches) / self._limits.streams

    def batch_tokens(self) -> float:
        """Padded tokens of a batch: as many as it may have, and as are expected to keep its time."""
        return max(1, min(self._limits.batch_tokens, self._cost.tokens_within(self._limits.batch_ms / 1e3)))
