"""The bounds of a batcher, of its batches and of its queue."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of one batcher.

    Attributes:
        streams: batches computed at the same time.
        batch_texts: texts in a batch; 1 serves a model whose answers depend on their batch.
        batch_tokens: tokens in a batch, padding counted; a single longer text still goes, alone.
        batch_ms: time that a batch may take, as far as that can be known before.
        window: waiting texts among which similar lengths are looked for.
        queue_texts: texts that may wait.
        queue_tokens: tokens that may wait.
        fixed_tokens: what a batch costs besides its tokens, in tokens, for `pack`; measured where it is None.
        hang_s: a batch that takes longer is not expected to end.
    """

    streams: int
    batch_texts: int
    batch_tokens: int
    batch_ms: float
    window: int
    queue_texts: int
    queue_tokens: int
    fixed_tokens: float | None = None
    hang_s: float = math.inf
