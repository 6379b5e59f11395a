"""Bytes of text: bounded, shared by the keys, given back."""

import contextlib

from service.batching.held import HeldText
from service.errors import Overloaded


def test_a_key_may_hold_as_much_as_is_free_so_that_there_is_room_for_another() -> None:
    held, kilobyte = HeldText(100_000), ["x" * 950]
    counts: dict[str, int] = {}
    for tenant in ("one", "two", "three"):
        counts[tenant] = 0
        with contextlib.suppress(Overloaded):
            while True:
                held.take(kilobyte, tenant)
                counts[tenant] += 1
    assert list(counts.values()) == [50, 25, 13]
    assert 85_000 < held.bytes < 89_000
    for tenant, count in counts.items():
        for _ in range(count):
            held.give_back(kilobyte, tenant)
    assert held.bytes == 0
    held.take(["x" * 99_000], "one")  # one request may take it all
