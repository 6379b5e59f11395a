"""The queue before an engine: bounded, token-budgeted, length-aware, fair; keeps deadlines. Knows asyncio alone.

    submit ──admission──▶ line of its key ──a stream is idle──▶ batch ──engine, on a thread──▶ answers
      │ full, or cannot be      │ deadline, cancelled:             │ fails: each text again, alone
      ▼ in time: 429            ▼ leaves at once                   ▼
    Overloaded              never computed                    neighbours keep their answers

- A batch is bounded by tokens as they will be computed, longest times count, and by the time that they will take.
- An idle stream never waits: a lone text starts at once. Batches grow only because all streams are busy, and only by
  texts that make a token cheaper: each shares what a batch costs besides its tokens, and may cost the others padding.
- A thread may have batches before it, as much work as it would do until a busy event loop learns that it is idle. The
  event loop comes first where there are too few cores: it has to refuse what is too much.
- The keys take turns, a batch each; the oldest text of the key whose turn it is goes, so with k keys waiting none waits
  for more than k batches. Texts of similar length join it, its own rather than those of others; a key with a window
  full of texts has its turn to itself.
- Interactive keys come before those of the priority `batch`, whose turn is every fifth batch where both wait.
- In a full queue a key below its equal share gets in, and the key that holds most gives way with its newest request.
- One request of 64 texts and 64 requests of one text are treated alike: lines, bounds and shares count texts.
- When a stream or the engine dies, all that waits is answered with an error at once, and `alive` is false. It is false
  also while a batch hangs.

Each file does one thing: `batcher` is what users hold, `admission` decides what enters the `queue`, `dispatcher` takes
batches from it (`packing` chooses which texts) and gives them to `threads`, `outstanding` ends what gets no answer,
`cost` learns what batches cost, and `estimate` says what follows for those that wait. `held` bounds the bytes of text
of all models together, before any of it is tokenised.

Texts come tokenised: the event loop does it, or for all but short ones a thread, while the engine's threads compute.
"""

from service.batching.batcher import Batcher
from service.batching.limits import BatchLimits
from service.batching.predictor import Predictor
from service.batching.submissions import Cancellation, Item, Logits

__all__ = ["BatchLimits", "Batcher", "Cancellation", "Item", "Logits", "Predictor"]
