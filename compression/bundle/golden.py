"""Golden answers, `golden.json`: what the bundle answered to a few fixed texts on the machine that made it.

Digests say that the files arrived as they were written. Golden answers say that this machine computes from them what
the other one did: an older CPU can saturate the products of 8-bit numbers, a runtime can have a fault.

The texts are the project's own, so that no private text travels with a bundle. They need not suit its task: any text
has an answer, and that must stay the same. Where the model reads pairs, each goes with the next one.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from pydantic import Field, ValidationError

from compression.bundle.figures import Record
from compression.bundle.inputs import Input, InputKind
from compression.bundle.storage import Bundle
from compression.bundle.task import Logits, Task
from compression.bundle.windows import Encoded
from compression.errors import BundleError

GOLDEN = "golden.json"

# The largest difference of any score that counts as the same answer, as a part of `Task.scale`. Rounding on another CPU
# or in float16 moves scores by thousandths; saturation, a wrong tokenizer or other weights by tenths.
GOLDEN_WITHIN = 0.05

_TEXTS = (
    "Good morning.",
    "I am very happy with this, thank you!",
    "This does not work at all, and nobody answers.",
    "Where can I see when my order will arrive?",
    "How do I change my password?",
    "Please cancel it.",
    "I was charged twice for the same thing: 12.50 on Monday, and 12.50 again on Tuesday.",
    "It is fine, nothing special.",
    "WHY IS THE LINE ALWAYS BUSY???",
    "My phone was stolen yesterday and I cannot sign in any more.",
    "Could you tell me what the fee is for sending money abroad?",
    "not bad, not bad at all :-)",
    "Das Wetter ist heute schön. 今天天气很好。",
    "id 4711-0815, ref. #A9/x",
    "ok",
    "We waited for a long time, and then we waited some more. " * 24,  # longer than most windows
)


class GoldenAnswers(Record):
    """Texts, or pairs of them, and their logits, (texts, labels)."""

    texts: tuple[Input, ...] = Field(max_length=256)
    logits: tuple[tuple[float, ...], ...]

    @classmethod
    def of(
        cls,
        encode: Callable[[Input], Encoded],
        infer: Callable[[Sequence[Encoded]], Logits],
        inputs: InputKind = "texts",
    ) -> Self:
        """What a model answers to the project's texts, each alone."""
        texts: tuple[Input, ...] = _TEXTS
        if inputs == "pairs":
            texts = tuple(zip(_TEXTS, (*_TEXTS[1:], _TEXTS[0]), strict=True))
        rows = [infer([encode(text)])[0].tolist() for text in texts]
        return cls(texts=texts, logits=tuple(map(tuple, rows)))

    def difference(self, task: Task, logits: Logits) -> str | None:
        """Where other answers to these texts are not the same ones; None where all are.

        Scores may differ by GOLDEN_WITHIN of their scale, and the labels must be the same where they led by more.

        Args:
            logits: (texts, labels)
        """
        expected = np.asarray(self.logits, np.float32)
        if logits.shape != expected.shape:
            return f"it gives answers of shape {logits.shape} in place of {expected.shape}"
        furthest_of = np.abs(task.scores(expected) - task.scores(logits)).max(axis=-1)
        flipped = ~task.same(expected, logits) & (task.lead(expected) > GOLDEN_WITHIN)
        for number, furthest in enumerate(furthest_of.tolist(), start=1):
            if not furthest <= GOLDEN_WITHIN * task.scale:  # also where it is not a number
                return f"a score of text {number} of {len(logits)} is {furthest:.3g} from the golden one"
            if flipped[number - 1]:
                return f"text {number} of {len(logits)} gets another label than the golden one"
        return None


def read_golden(bundle: Bundle) -> GoldenAnswers | None:
    """The golden answers of a verified bundle; None where it has none, as older ones do.

    Raises:
        BundleError: the file does not hold any.
    """
    if GOLDEN not in bundle.manifest.files:
        return None
    try:
        return GoldenAnswers.model_validate_json(bundle.read(GOLDEN))
    except ValidationError as error:
        raise BundleError(f"{bundle.path / GOLDEN}: {error}; make the bundle anew with lathe compress") from error
