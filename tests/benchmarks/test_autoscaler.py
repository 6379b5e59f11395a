"""The autoscaler of benchmarks/elastic decides as Kubernetes' documentation says."""

from math import nan
from pathlib import Path

from benchmarks.elastic.autoscaler import Autoscaler, Policy, Trigger

SCALED_OBJECT = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "keda" / "scaled-object.yaml"
QUEUE, BUSY = Trigger("queue", 0.1), Trigger("busy", 1.2)


def autoscaler(window_s: float = 0.0, down: int = 1) -> Autoscaler:
    up, less = Policy("Percent", 100, 15, 0), Policy("Pods", down, 60, window_s)
    return Autoscaler([QUEUE, BUSY], 5, up, less, 2, 10)


def test_the_larger_of_both_counts_and_both_are_sums_over_the_replicas() -> None:
    assert autoscaler().decide(0, 4, [0.0, 7.0]) == 6
    assert autoscaler().decide(0, 4, [0.7, 1.0]) == 7


def test_what_is_close_to_its_target_or_missing_changes_nothing() -> None:
    assert autoscaler().decide(0, 4, [0.0, 4.8 * 1.09]) == 4
    assert autoscaler().decide(0, 4, [nan, nan]) == 4


def test_there_are_never_fewer_or_more_than_allowed() -> None:
    scaler = autoscaler(down=100)
    assert scaler.decide(0, 3, [0.0, 0.0]) == 2
    assert autoscaler().decide(0, 8, [99.0, 0.0]) == 10


def test_replicas_at_most_double_within_a_period() -> None:
    scaler = autoscaler()
    assert scaler.decide(0, 2, [9.0, 0.0]) == 4
    assert scaler.decide(5, 4, [9.0, 0.0]) == 4  # two came 5 s ago
    assert scaler.decide(15, 4, [9.0, 0.0]) == 8


def test_one_at_a_time_goes_and_only_when_none_was_wanted_for_a_while() -> None:
    scaler = autoscaler(window_s=300)
    assert scaler.decide(0, 4, [0.4, 4.8]) == 4
    assert scaler.decide(299, 4, [0.0, 0.0]) == 4
    assert scaler.decide(301, 4, [0.0, 0.0]) == 3
    assert scaler.decide(330, 3, [0.0, 0.0]) == 3
    assert scaler.decide(361, 3, [0.0, 0.0]) == 2


def test_the_deployed_one_is_read_whole() -> None:
    scaler = Autoscaler.read(SCALED_OBJECT)
    assert [trigger.threshold for trigger in scaler.triggers] == [0.1, 1.2]
    assert scaler.interval_s == 5
    assert scaler.decide(0, 2, [0.0, 4.7]) == 4
