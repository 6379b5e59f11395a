"""How many replicas there should be, as Kubernetes' HorizontalPodAutoscaler decides from what KEDA hands it.

Source: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale, "Algorithm details" and "Configurable scaling
behavior". Read from a ScaledObject: triggers with average values, and behavior with one policy for each direction.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

_TOLERANCE = 0.1  # so far from its target a metric changes nothing


@dataclass(frozen=True)
class Trigger:
    """A query, and which value of it is one replica's share."""

    query: str
    threshold: float


@dataclass(frozen=True)
class Policy:
    """How far the number may go within a period.

    Attributes:
        value: replicas (`Pods`), or percent of those there were (`Percent`).
        window_s: the most cautious decision of that time counts.
    """

    kind: str
    value: int
    period_s: float
    window_s: float

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Of `scaleUp` or `scaleDown`."""
        (policy,) = given["policies"]
        return cls(policy["type"], policy["value"], policy["periodSeconds"], given["stabilizationWindowSeconds"])

    def most(self, before: int) -> int:
        """Replicas that may come or go where there were so many when the period began."""
        return self.value if self.kind == "Pods" else math.ceil(before * self.value / 100)


class Autoscaler:
    """One deployment's.

    Args:
        fewest, most: replicas.

    Attributes:
        triggers: what to ask Prometheus.
        interval_s: how often.
    """

    def __init__(
        self, triggers: Sequence[Trigger], interval_s: float, up: Policy, down: Policy, fewest: int, most: int
    ) -> None:
        self.triggers = triggers
        self.interval_s = interval_s
        self._up, self._down = up, down
        self._fewest, self._most = fewest, most
        self._wanted: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()  # when, by how many

    @classmethod
    def read(cls, path: Path, most: int | None = None) -> Self:
        """From a ScaledObject.

        Args:
            most: replicas, in place of its own number.
        """
        spec = yaml.safe_load(path.read_text("utf-8"))["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        triggers = [
            Trigger(trigger["metadata"]["query"], float(trigger["metadata"]["threshold"]))
            for trigger in spec["triggers"]
            if trigger["metricType"] == "AverageValue"
        ]
        return cls(
            triggers,
            spec["pollingInterval"],
            Policy.read(behavior["scaleUp"]),
            Policy.read(behavior["scaleDown"]),
            spec["minReplicaCount"],
            most or spec["maxReplicaCount"],
        )

    def decide(self, now: float, replicas: int, values: Sequence[float]) -> int:
        """How many there should be.

        Args:
            now: in seconds, never less than before.
            replicas: that there are.
            values: of the triggers, over all replicas; NaN where there is none.
        """
        wanted = max(
            self._wants(replicas, value, trigger) for value, trigger in zip(values, self.triggers, strict=True)
        )
        wanted = min(max(wanted, self._fewest), self._most)
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - max(self._up.window_s, self._down.window_s):
            self._wanted.popleft()
        lowest = min(number for when, number in self._wanted if when >= now - self._up.window_s)
        highest = max(number for when, number in self._wanted if when >= now - self._down.window_s)
        settled = min(max(replicas, lowest), highest)  # up to what all wanted, down to what any wanted
        result = self._limited(now, replicas, settled)
        if result != replicas:
            self._changes.append((now, result - replicas))
        return result

    def _wants(self, replicas: int, value: float, trigger: Trigger) -> int:
        if math.isnan(value) or abs(value / (trigger.threshold * replicas) - 1) <= _TOLERANCE:
            return replicas
        return math.ceil(value / trigger.threshold)

    def _limited(self, now: float, replicas: int, wanted: int) -> int:
        policy = self._up if wanted > replicas else self._down
        way = 1 if wanted > replicas else -1
        changed = sum(
            change * way for when, change in self._changes if when > now - policy.period_s and change * way > 0
        )
        before = replicas - way * changed
        left = max(0, policy.most(before) - changed)
        return replicas + way * min(left, abs(wanted - replicas))
