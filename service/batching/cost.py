"""What a batch costs, learnt while running: fixed + per padded token, of time that passes, and of work.

Time says when a batch will be done; it holds the waits for a core that others have, too, and these say nothing of how
large a batch should be. Work, the CPU time of the thread, does.

Least squares with exponential forgetting: recursive least squares (Ljung, System Identification, ch. 11) of two
unknowns, written as the five sums that solve it. Where every batch was of one size nothing tells fixed from per-token
cost; a little regularisation of the fixed part then puts all of it on the tokens, so that larger batches are expected
to take rather too long than too short.
"""

import math

_MEMORY = 0.98  # weight of the batch before: the last 50 or so count
_FEW = 8  # batches that tell nothing yet of what is fixed and what is not
_RIDGE = 0.01  # of the fixed cost, in batches
_OUTLIER = 3.0  # a batch counts as no more than so many times what was expected: one stall is not the model's cost
# Work of the event loop and the thread for each batch besides its texts. With nothing else to do it is half of that
# (benchmarks/serving/batcher.py); a model leaves their code and data in no cache.
_HANDOVER_S = 0.0004


class _Cost:
    """A fixed part and one per padded token, in seconds; nothing at first."""

    def __init__(self) -> None:
        self.fixed_s = 0.0
        self.token_s = 0.0
        self._n = self._x = self._y = self._xx = self._xy = 0.0  # weighted sums over batches: tokens x, seconds y

    def of(self, padded: float, batches: float = 1) -> float:
        """Expected seconds of so many padded tokens in so many batches."""
        return batches * self.fixed_s + padded * self.token_s

    def observe(self, padded: int, seconds: float) -> None:
        """Learns from a batch."""
        expected = self.of(padded)
        if expected > 0:
            seconds = min(seconds, _OUTLIER * expected)
        self._n = _MEMORY * self._n + 1
        self._x = _MEMORY * self._x + padded
        self._y = _MEMORY * self._y + seconds
        self._xx = _MEMORY * self._xx + padded * padded
        self._xy = _MEMORY * self._xy + padded * seconds
        n = self._n + _RIDGE
        determinant = n * self._xx - self._x * self._x
        self.fixed_s = (self._y * self._xx - self._x * self._xy) / determinant
        self.token_s = (n * self._xy - self._x * self._y) / determinant
        if self.fixed_s < 0 or self.token_s < 0:  # noise; no part of a cost is below zero
            self.fixed_s, self.token_s = 0.0, self._xy / self._xx


class CostModel:
    """Cost of batches of one model. Knows nothing at first: everything is free until a batch was seen."""

    def __init__(self) -> None:
        self._time = _Cost()
        self._work = _Cost()
        self._batches = 0
        self._tokens = 0.0
        self._padded = 0.0

    def observe(self, tokens: int, padded: int, seconds: float, work_s: float) -> None:
        """Learns from a batch.

        Args:
            tokens: of its texts.
            padded: longest times count.
            seconds: that it took.
            work_s: CPU time of the thread that computed it.
        """
        self._time.observe(padded, seconds)
        self._work.observe(padded, work_s)
        self._batches += 1
        self._tokens = _MEMORY * self._tokens + tokens
        self._padded = _MEMORY * self._padded + padded

    def seconds(self, padded: float, batches: float = 1) -> float:
        """Expected seconds, on a thread, of so many padded tokens in so many batches."""
        return self._time.of(padded, batches)

    def tokens_within(self, seconds: float) -> int | float:
        """Padded tokens of a batch that is expected to take so long; infinite while nothing is known.

        Never fewer than cost as much as the fixed part: smaller batches would hardly be shorter, and spend most of the
        time on it.
        """
        time = self._time
        if time.token_s == 0:
            return math.inf
        return int(max(seconds - time.fixed_s, time.fixed_s) / time.token_s)

    @property
    def fixed_tokens(self) -> float:
        """Padded tokens that are as much work as a batch is besides its own; infinite while little is known."""
        if self._batches < _FEW or self._work.token_s == 0:
            return math.inf
        return (self._work.fixed_s + _HANDOVER_S) / self._work.token_s

    @property
    def padding(self) -> float:
        """Padded tokens for each token of a text, in the batches seen; 1 is no padding."""
        return self._padded / self._tokens if self._tokens else 1.0
