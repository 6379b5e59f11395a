"""The texts that every serving benchmark sends: short messages of the examples, in an order that says nothing."""

import random
from pathlib import Path

from compression.data import Columns, read_examples

_MESSAGES = Path(__file__).resolve().parents[2] / "examples" / "customer_messages.csv"


def short_messages() -> list[str]:
    """Those of 3 to 40 words."""
    texts = [text for text in read_examples(_MESSAGES, Columns()).single_texts if 3 <= len(text.split()) <= 40]
    random.Random(0).shuffle(texts)
    return texts
