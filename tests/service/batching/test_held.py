"""Bytes of text: bounded, shared by the keys, given back."""

import contextlib
import sys

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from service.batching.held import HeldText
from service.errors import Overloaded
from service.tenant import Tenant


def test_a_key_may_hold_as_much_as_is_free_so_that_there_is_room_for_another() -> None:
    held, kilobyte = HeldText(100_000), ["x" * 950]
    counts: dict[Tenant, int] = {}
    for tenant in (Tenant("one"), Tenant("two"), Tenant("three")):
        counts[tenant] = 0
        with contextlib.suppress(Overloaded):
            while True:
                held.take(kilobyte, tenant)
                counts[tenant] += 1
    assert list(counts.values()) == [50, 25, 13]
    assert 85_000 < held.bytes < 89_000
    for tenant, count in counts.items():
        for _ in range(count):
            held.give_back(sum(map(sys.getsizeof, kilobyte)), tenant)
    assert held.bytes == 0
    held.take(["x" * 99_000], Tenant("one"))  # one request may take it all


def test_what_was_taken_is_given_back_though_the_texts_have_grown() -> None:
    held, texts = HeldText(100_000), ["".join(["ä", "x" * 100])]
    size = held.take(texts, Tenant("one"))
    Tokenizer(WordLevel({"x": 0}, "x")).encode(texts[0])  # which has the text keep its UTF-8
    assert sys.getsizeof(texts[0]) > size
    held.give_back(size, Tenant("one"))
    assert held.bytes == 0
    assert held.take(["x" * 99_000], Tenant("one")) > 99_000
