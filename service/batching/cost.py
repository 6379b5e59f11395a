"""What a batch costs, learnt while running: seconds = fixed + per padded token.

Least squares with exponential forgetting: recursive least squares (Ljung, System Identification, ch. 11) of two
unknowns, written as the five sums that solve it. Where every batch was of one size nothing tells fixed from per-token
cost; a little regularisation of the fixed part then puts all of it on the tokens, so that larger batches are expected
to take rather too long than too short.
"""

import math

_MEMORY = 0.98  # weight of the batch before: the last 50 or so count
_FEW = 8  # batches that tell nothing yet of what is fixed and what is not
_RIDGE = 0.01  # of the fixed cost, in batches
_HANDOVER_S = 0.0002  # to a thread and back, in the event loop's time (benchmarks/serving/batcher.py)
_OUTLIER = 3.0  # a batch counts as no more than so many times what was expected: one stall is not the model's cost


class CostModel:
    """Cost of batches of one model. Knows nothing at first: everything is free until a batch was seen."""

    def __init__(self) -> None:
        self._fixed_s = 0.0
        self._token_s = 0.0
        self._n = self._x = self._y = self._xx = self._xy = (
            0.0  # weighted sums over batches: padded tokens x, seconds y
        )
        self._unpadded = 0.0

    def observe(self, tokens: int, padded: int, seconds: float) -> None:
        """Learns from a batch.

        Args:
            tokens: of its texts.
            padded: longest times count.
            seconds: on the thread that computed it.
        """
        expected = self.seconds(padded)
        if expected > 0:
            seconds = min(seconds, _OUTLIER * expected)
        self._n = _MEMORY * self._n + 1
        self._x = _MEMORY * self._x + padded
        self._y = _MEMORY * self._y + seconds
        self._xx = _MEMORY * self._xx + padded * padded
        self._xy = _MEMORY * self._xy + padded * seconds
        self._unpadded = _MEMORY * self._unpadded + tokens
        n = self._n + _RIDGE
        determinant = n * self._xx - self._x * self._x
        self._fixed_s = (self._y * self._xx - self._x * self._xy) / determinant
        self._token_s = (n * self._xy - self._x * self._y) / determinant
        if self._fixed_s < 0 or self._token_s < 0:  # noise; no part of a cost is below zero
            self._fixed_s, self._token_s = 0.0, self._xy / self._xx

    def seconds(self, padded: float, batches: float = 1) -> float:
        """Expected seconds, on a thread, of so many padded tokens in so many batches."""
        return batches * self._fixed_s + padded * self._token_s

    def tokens_within(self, seconds: float) -> int | float:
        """Padded tokens of a batch that is expected to take so long; infinite while nothing is known.

        Never fewer than cost as much as the fixed part: smaller batches would hardly be shorter, and spend most of the
        time on it.
        """
        if self._token_s == 0:
            return math.inf
        return int(max(seconds - self._fixed_s, self._fixed_s) / self._token_s)

    @property
    def fixed_tokens(self) -> float:
        """Padded tokens that cost as much as a batch does besides its own; infinite while little is known."""
        return (self._fixed_s + _HANDOVER_S) / self._token_s if self._n > _FEW else math.inf

    @property
    def padding(self) -> float:
        """Padded tokens for each token of a text, in the batches seen; 1 is no padding."""
        return self._x / self._unpadded if self._unpadded else 1.0
