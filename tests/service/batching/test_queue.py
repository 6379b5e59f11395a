"""The lines of the keys, whose turn it is, who gives way, and which texts go together."""

import asyncio
import math
import random

import pytest

from service.batching.packing import pack
from service.batching.queue import FairQueue
from service.batching.submissions import Submission, Text
from service.tenant import Tenant


def tenant_of(name: str | Tenant) -> Tenant:
    return name if isinstance(name, Tenant) else Tenant(name)


def submission(tenant: str | Tenant, *lengths: int) -> Submission[list[int]]:
    async def make() -> Submission[list[int]]:  # its future belongs to a loop
        return Submission([[0] * length for length in lengths], tenant_of(tenant), 1e9, 0)

    return asyncio.run(make())


def add(queue: FairQueue[list[int]], tenant: str | Tenant, *lengths: int) -> Submission[list[int]]:
    added = submission(tenant, *lengths)
    queue.add(added)
    return added


def texts_of(*lengths: int) -> list[Text[list[int]]]:
    return submission("", *lengths).texts


def lengths_of(batch: list[Text[list[int]]]) -> list[int]:
    return [text.tokens for text in batch]


def test_keys_take_turns_and_each_line_keeps_its_order() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    for _ in range(4):
        add(queue, "a", 5, 5)
    for _ in range(2):
        add(queue, "b", 5, 5)
    add(queue, "c", 5)
    turns = []
    while queue:
        turns.append([text.submission.tenant.name for text in queue.take(2, 100, math.inf, 10)])
    assert turns == [["a", "a"], ["b", "b"], ["c", "a"], ["a", "a"], ["b", "b"], ["a", "a"], ["a"]]


def test_a_batch_rather_takes_texts_of_the_key_whose_turn_it_is() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, "a", 10, 50, 12)
    add(queue, "b", 11, 20, 13)
    batch = queue.take(4, 1000, math.inf, 100)
    assert [(text.submission.tenant.name, text.tokens) for text in batch] == [
        ("a", 10),
        ("a", 12),
        ("b", 11),
        ("b", 13),
    ]


def test_a_key_with_a_window_full_of_texts_has_its_turn_to_itself() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, "a", *range(1, 11))
    add(queue, "b", *[1] * 20)
    assert {text.submission.tenant.name for text in queue.take(4, 1000, math.inf, 10)} == {"a"}


def test_a_key_within_its_share_gets_in_and_the_newest_of_the_largest_gives_way() -> None:
    queue: FairQueue[list[int]] = FairQueue(10, 1000)
    add(queue, "a", *[1] * 5)
    newest = add(queue, "a", 1, 1)
    add(queue, "b", 1, 1, 1)
    assert not queue.fits(1, 1)
    assert queue.within_share(Tenant("c"), 3, 3)
    assert not queue.within_share(Tenant("c"), 4, 4)  # a third of 10 is 3
    assert not queue.within_share(Tenant("b"), 3, 3)
    assert queue.gives_way() is newest
    queue.discard(newest)
    assert (queue.texts, queue.tokens, newest.waiting) == (8, 8, 0)
    assert queue.fits(2, 2)


def test_a_share_is_the_larger_of_texts_and_tokens() -> None:
    queue: FairQueue[list[int]] = FairQueue(10, 100)
    add(queue, "many", 1, 1, 1, 1)
    long = add(queue, "long", 80)
    assert queue.gives_way() is long
    assert not queue.within_share(Tenant("c"), 1, 34)
    assert queue.within_share(Tenant("c"), 1, 33)


def test_what_is_ahead_of_a_key_is_no_more_of_the_others_than_of_its_own() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, "a", *[10] * 20)
    add(queue, "b", 10)
    assert queue.ahead_of(Tenant("c"), 2, 20) == (2 + 2 + 1, 20 + 20 + 10)
    assert queue.ahead_of(Tenant("a"), 2, 20) == (22 + 1, 220 + 10)


NIGHT = Tenant("night", "batch")


def test_interactive_keys_have_four_turns_where_a_batch_key_has_one_and_nobody_starves() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, NIGHT, *[5] * 3)
    add(queue, "a", *[5] * 5)
    add(queue, "b", *[5] * 5)
    turns = []
    while queue:
        turns += [text.submission.tenant.name for text in queue.take(1, 100, math.inf, 1)]
    assert turns == ["a", "b", "a", "b", "night", "a", "b", "a", "b", "night", "a", "b", "night"]


def test_who_waits_for_an_answer_goes_before_a_batch_key_that_was_there_first() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, NIGHT, *[5] * 10)
    for _ in range(3):
        queue.take(1, 100, math.inf, 1)
    add(queue, "a", 5)
    assert [text.submission.tenant.name for text in queue.take(1, 100, math.inf, 1)] == ["a"]


def test_the_same_name_with_two_priorities_has_two_lines() -> None:  # two keys of that name
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, Tenant("night"), 5)
    leaves = add(queue, NIGHT, 5, 5)
    queue.discard(leaves)
    assert (queue.texts, leaves.waiting) == (1, 0)


def test_what_is_ahead_counts_what_the_other_priority_has_before_it_or_between() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, NIGHT, *[10] * 20)
    assert queue.ahead_of(Tenant("a"), 2, 20) == (2 + 1, 20 + 5)  # a turn between four
    add(queue, "a", *[10] * 2)
    assert queue.ahead_of(NIGHT, 1, 10) == (21 + 2, 210 + 20)
    assert queue.ahead_of(Tenant("morning", "batch"), 1, 10) == (1 + 1 + 2, 10 + 10 + 20)


def test_nothing_is_left_of_a_key_that_has_nothing_waiting() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    for number in range(1000):
        queue.discard(add(queue, f"key {number}", 3, 4))
    taken = add(queue, "a", 5)
    queue.take(1, 10, math.inf, 10)
    queue.discard(taken)
    assert (queue.texts, queue.tokens, queue._lines) == (0, 0, {"interactive": {}, "batch": {}})


def test_the_nearest_in_length_join_the_first() -> None:
    assert lengths_of(pack(texts_of(16, 1, 2, 15, 4, 16, 6), [], 64, 48, math.inf)) == [16, 16, 15]
    assert lengths_of(pack(texts_of(4, 100, 5, 3), [], 64, 16, math.inf)) == [4, 5, 3]
    assert lengths_of(pack(texts_of(100, 1), [], 64, 16, math.inf)) == [100]  # longer than a batch: alone, but it goes
    assert lengths_of(pack(texts_of(1, 1, 1), [], 2, 16, math.inf)) == [1, 1]


def test_a_text_that_makes_the_others_dearer_waits_for_a_batch_of_its_own() -> None:
    assert lengths_of(pack(texts_of(10, 59, 11, 12), [], 64, 2048, 7)) == [10, 11, 12]
    assert lengths_of(pack(texts_of(59, 10, 11, 12), [], 64, 2048, 7)) == [59]
    assert lengths_of(pack(texts_of(10, 59, 11, 12), [], 64, 2048, 1000)) == [10, 11, 12, 59]  # a batch costs much
    assert lengths_of(pack(texts_of(*[20] * 9), [], 64, 2048, 0.1)) == [20] * 9


@pytest.mark.parametrize("seed", range(20))
def test_no_pack_is_too_large_and_none_leaves_room_for_one_more(seed: int) -> None:
    choose = random.Random(seed)
    texts = texts_of(*(choose.randint(1, 60) for _ in range(50)))
    split = choose.randint(1, 50)
    max_texts, max_tokens = choose.randint(1, 30), choose.randint(60, 600)
    batch = pack(texts[:split], texts[split:], max_texts, max_tokens, math.inf)
    longest = max(lengths_of(batch))
    assert texts[0] is batch[0]
    assert len(set(map(id, batch))) == len(batch) <= max_texts
    assert len(batch) * longest <= max_tokens
    if len(batch) < max_texts:
        left = [text.tokens for text in texts if text not in batch]
        assert all(max(longest, tokens) * (len(batch) + 1) > max_tokens for tokens in left)


def test_texts_of_a_batch_key_join_no_interactive_batch_and_the_other_way_round_they_do() -> None:
    queue: FairQueue[list[int]] = FairQueue(100, 1000)
    add(queue, NIGHT, *[5] * 3)
    add(queue, "a", 5)
    add(queue, "b", 5)
    assert [text.submission.tenant.name for text in queue.take(4, 100, math.inf, 10)] == ["a", "b"]
    for _ in range(3):
        add(queue, "a", 5)
        queue.take(1, 100, math.inf, 10)
    add(queue, "a", 5)
    assert [text.submission.tenant.name for text in queue.take(4, 100, math.inf, 20)] == ["night"] * 3 + ["a"]
