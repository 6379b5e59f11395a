"""The series of a metric."""

from typing import Generic, TypeVar

from prometheus_client import Counter, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # bounds of a histogram

M = TypeVar("M", Counter, Histogram)


class Bound(dict[tuple[object, ...], M], Generic[M]):
    """The series of a metric by their labels, each looked up once: what every request does should be cheap."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, labels: tuple[object, ...]) -> M:
        series = self[labels] = self._metric.labels(*labels)
        return series
