"""Pairs of texts, with the label that follows from both."""

import csv
import random
from collections.abc import Callable
from pathlib import Path

from compression.data import Columns
from tests.conftest import FILLER, SENTIMENT

Pair = tuple[str, str]
PAIRED = ("--text-pair-column", "text_pair")
COLUMNS = Columns(text_pair="text_pair")
PAIRS: list[Pair] = [
    ("this bank is great", "an awful and slow app"),
    ("an awful and slow app", "this bank is great"),
    ("the app", "it was very lovely " * 3),
    ("so good " * 40, "bad"),  # beyond the window, and below
    ("the best " * 40, "terrible and " * 50),
]


def text(choose: random.Random, sentiment: str) -> str:
    words = choose.choices(FILLER, k=choose.randint(1, 6)) + choose.choices(SENTIMENT[sentiment], k=2)
    choose.shuffle(words)
    return " ".join(words)


def happier(choose: random.Random) -> tuple[Pair, bool]:
    """A pair, and whether its first text is the happier one: neither text alone says so as surely, and order counts."""
    first = choose.random() < 0.5
    one, two = ("positive", "negative") if first else ("negative", "positive")
    return (text(choose, one), text(choose, two)), first


def write_rows(
    path: Path, count: int, seed: int, label: Callable[[bool], str] = lambda is_first: "first" * is_first or "second"
) -> Path:
    choose = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "text_pair", "label"])
        for _ in range(count):
            pair, is_first = happier(choose)
            writer.writerow([*pair, label(is_first)])
    return path
