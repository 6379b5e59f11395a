"""The cost model, against batches whose cost is known."""

import math
import random

import pytest

from service.batching.cost import CostModel


def learnt(fixed: float, per_token: float, batches: list[int], noise: float = 0.0, padding: float = 1.0) -> CostModel:
    """A model that has seen those batches, in padded tokens."""
    choose, cost = random.Random(0), CostModel()
    for padded in batches:
        seconds = (fixed + per_token * padded) * choose.lognormvariate(0, noise)
        cost.observe(int(padded / padding), padded, seconds, seconds)
    return cost


def sizes(count: int = 200) -> list[int]:
    choose = random.Random(1)
    return [choose.randint(20, 2000) for _ in range(count)]


def test_nothing_is_known_at_first() -> None:
    cost = CostModel()
    assert cost.seconds(1000) == 0
    assert cost.tokens_within(0.001) == math.inf
    assert cost.fixed_tokens == math.inf
    assert cost.padding == 1


def test_fixed_and_per_token_cost_are_told_apart() -> None:
    cost = learnt(0.002, 5e-5, sizes())
    assert cost.seconds(0) == pytest.approx(0.002, rel=0.01)
    assert cost.seconds(1000, batches=3) == pytest.approx(0.056, rel=0.01)
    assert cost.tokens_within(0.052) == pytest.approx(1000, rel=0.01)
    assert cost.tokens_within(0.001) == pytest.approx(40, abs=1)  # less would spend most of its time on the fixed part


def test_noise_changes_little() -> None:
    cost = learnt(0.002, 5e-5, sizes(), noise=0.2)
    assert cost.seconds(1000) == pytest.approx(0.052, rel=0.15)


def test_batches_of_one_size_put_the_whole_cost_on_the_tokens() -> None:
    cost = learnt(0.01, 1e-5, [100] * 50)
    assert cost.seconds(100) == pytest.approx(0.011, rel=0.01)
    assert cost.seconds(1000) == pytest.approx(0.11, rel=0.01)  # rather too long than too short


@pytest.mark.parametrize(("first", "second"), [(0.01, 0.001), (0.001, 0.01)])
def test_no_part_of_a_cost_is_below_zero(first: float, second: float) -> None:
    cost = CostModel()
    cost.observe(100, 100, first, first)
    cost.observe(101, 101, second, second)
    assert cost.seconds(0) >= 0
    assert cost.seconds(10**6) >= cost.seconds(100) > 0


def test_a_slower_machine_is_noticed_within_a_hundred_batches() -> None:
    cost = learnt(0.002, 5e-5, sizes())
    for padded in sizes(100):
        seconds = 10 * (0.002 + 5e-5 * padded)
        cost.observe(padded, padded, seconds, seconds)
    assert cost.seconds(1000) == pytest.approx(0.52, rel=0.25)


def test_one_stall_is_not_the_cost_of_the_model() -> None:
    cost = learnt(0.002, 5e-5, sizes())
    before = cost.seconds(1000)
    cost.observe(1000, 1000, 60, 60)
    assert cost.seconds(1000) == pytest.approx(before, rel=0.1)


def test_padding_is_that_of_the_batches_seen() -> None:
    assert learnt(0.002, 5e-5, [100] * 50, padding=1.25).padding == pytest.approx(1.25)


def test_what_a_batch_costs_besides_its_tokens_is_known_in_tokens() -> None:
    assert learnt(0.002, 5e-5, sizes()).fixed_tokens == pytest.approx(48, abs=1)  # 2 ms, and 0.4 ms to hand it over
    assert learnt(0, 5e-5, sizes()).fixed_tokens >= 8  # never nothing


def test_waits_for_a_core_do_not_make_batches_larger() -> None:
    choose, cost = random.Random(0), CostModel()
    for padded in sizes():
        work_s = 0.0004 + 5e-5 * padded
        cost.observe(padded, padded, work_s + choose.expovariate(100), work_s)
    assert cost.fixed_tokens == pytest.approx(16, abs=1)
    assert cost.seconds(0) > 0.005
