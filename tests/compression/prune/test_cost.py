from pathlib import Path

import pytest

from compression.prune.cost import attention_price, column_price, machine_cost
from compression.prune.encoder import Shape


@pytest.mark.parametrize(
    ("hidden", "measured"), [(64, 2.40), (128, 1.35), (256, 1.38), (312, 1.44), (384, 1.29), (768, 1.12), (1024, 1.11)]
)
def test_the_load_of_the_machine_does_not_move_the_price(hidden: int, measured: float) -> None:
    assert {column_price(hidden, measured * noise) for noise in (0.8, 1.0, 1.25)} == {1 + 110 / hidden}


def test_a_machine_that_is_far_from_arithmetic_does() -> None:
    assert column_price(110, 5.0) == pytest.approx(6.0)
    assert column_price(110, 0.8) == pytest.approx(2 / 3)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    attention = Shape("attention", 64, 16, matrices=4)
    first = machine_cost(tmp_path, attention, [1, 2, 4])
    (kept,) = tmp_path.iterdir()
    kept.write_text("5.0", "utf-8")
    assert machine_cost(tmp_path, attention, [1, 2, 4]) != first
    assert machine_cost(tmp_path, attention, [1, 2]) == {1: 75 + 2 * 5 * 16, 2: 75 + 2 * 5 * 32}
    assert machine_cost(tmp_path, Shape("ffn", 64, 1, matrices=2), [32, 64]) == {32: 107, 64: 139}
    gated = Shape("ffn", 64, 1, matrices=3)
    assert machine_cost(tmp_path, gated, [32, 64]) == {32: 75 + 48, 64: 75 + 96}


def test_both_sublayers_can_be_timed() -> None:
    assert 0 < attention_price(32, 8) < float("inf")
