"""What is measured of a version of a model."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.telemetry.series import SECONDS

_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

Role = Literal["live", "previous", "candidate"]
_BY_VERSION = ("model", "role")
_STAGES = ("tokenize", "queue", "infer")
_KINDS = ("text", "padding")
_REASONS = ("overloaded", "deadline", "client_gone", "given_up")
_CODES = ("inference_failed", "not_a_number")
_OUTCOMES = ("hit", "shared", "miss")
_QUEUE_GAUGES = {
    "lathe_queue_texts": "Texts waiting for a batch.",
    "lathe_queue_tokens": "Tokens waiting for a batch.",
    "lathe_queue_seconds": "Expected seconds until what waits and is being computed is done.",
    "lathe_batch_limit_tokens": "Tokens a batch may have now, so that it keeps its time.",
}


class _Stage:
    """A context manager of its own: one made of a generator costs several times as much, for every request."""

    __slots__ = ("_seconds", "_start")

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds.observe(time.perf_counter() - self._start)


class Versions(Collector):
    """What is measured of each version; what it shows is looked up when Prometheus asks.

    Gauge.set_function would make a reference cycle, in which the engine of a version that has gone would stay.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shown: list[VersionMetrics] = []
        registry.register(self)
        self.stage_seconds = Histogram(
            "lathe_stage_seconds", "Time in one stage: tokenize, queue (a text), infer (a batch).",
            [*_BY_VERSION, "stage"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_texts = Histogram(
            "lathe_batch_texts", "Texts in a batch.", _BY_VERSION, buckets=_TEXTS, registry=registry
        )
        self.batch_tokens = Histogram(
            "lathe_batch_tokens", "Tokens in a batch, padding counted.", _BY_VERSION,
            buckets=_TOKENS, registry=registry,
        )  # fmt: skip
        self.tokens = Counter(
            "lathe_tokens", "Tokens computed: text, or padding.", [*_BY_VERSION, "kind"], registry=registry
        )
        self.truncated = Counter(
            "lathe_truncated_texts", "Texts cut to the model's window.", _BY_VERSION, registry=registry
        )
        self.abstained = Counter(
            "lathe_abstained_texts", "Texts whose answer was less sure than the bundle's threshold asks.",
            _BY_VERSION, registry=registry,
        )  # fmt: skip
        self.shed = Counter(
            "lathe_shed_texts",
            "Texts not computed: overloaded (429; one text for a request that was refused before its body was read), "
            "deadline, client gone, or given up because another model of the request could not answer.",
            [*_BY_VERSION, "reason"],
            registry=registry,
        )  # fmt: skip
        self.failed = Counter(
            "lathe_failed_texts", "Texts that the model could not compute.", [*_BY_VERSION, "code"], registry=registry
        )
        self.cached = Counter(
            "lathe_cache_texts",
            "Texts asked of the cache: hit, shared (equal to one being computed) or miss.",
            [*_BY_VERSION, "outcome"],
            registry=registry,
        )

    def collect(self) -> Iterator[Metric]:
        """The gauges of the versions that are served."""
        for name, documentation in _QUEUE_GAUGES.items():
            gauge = GaugeMetricFamily(name, documentation, labels=_BY_VERSION)
            for version in self.shown:
                gauge.add_metric((version.model, version.role), version.gauges[name]())
            yield gauge
        labels = (*_BY_VERSION, "version", "recipe", "batch_exact")
        info = GaugeMetricFamily("lathe_model_info", "1 for each version that is served.", labels=labels)
        for version in self.shown:
            if version.about:
                info.add_metric((version.model, version.role, *version.about), 1)
        yield info


class VersionMetrics:
    """Measurements of one version of a model, or of one member where it is an ensemble.

    Its series exist from the first, so that a rate over them is 0 and not absent.

    Attributes:
        model: the model's name; of a member NAME.0, NAME.1 and so on.
        about: the version's id, its recipe's name, and whether its answers are independent of their batch.
        gauges: of its queue, by the metric's name.
    """

    def __init__(self, versions: Versions, model: str) -> None:
        self.model = model
        self.about: tuple[str, ...] = ()
        self.gauges: Mapping[str, Callable[[], float]] = {}
        self._versions = versions
        self.role = "live"

    @property
    def role(self) -> Role:
        """Which part the version has; what is measured counts for the part of that time."""
        return self._role

    @role.setter
    def role(self, role: Role) -> None:
        self._role = role
        labels, versions = (self.model, role), self._versions
        self._stages = {stage: versions.stage_seconds.labels(*labels, stage) for stage in _STAGES}
        self._batch_texts = versions.batch_texts.labels(*labels)
        self._batch_tokens = versions.batch_tokens.labels(*labels)
        self._tokens = {kind: versions.tokens.labels(*labels, kind) for kind in _KINDS}
        self._truncated = versions.truncated.labels(*labels)
        self._abstained = versions.abstained.labels(*labels)
        self._shed = {reason: versions.shed.labels(*labels, reason) for reason in _REASONS}
        self._failed = {code: versions.failed.labels(*labels, code) for code in _CODES}
        self._cached = {outcome: versions.cached.labels(*labels, outcome) for outcome in _OUTCOMES}

    def describe(self, version: str, recipe: str, batch_exact: bool) -> None:
        """What it is."""
        self.about = (version, recipe, str(batch_exact).lower())

    def show(
        self,
        texts: Callable[[], float],
        tokens: Callable[[], float],
        seconds: Callable[[], float],
        batch_tokens: Callable[[], float],
    ) -> None:
        """Shows from now on what waits, how long that will take, and how large a batch is."""
        self.gauges = dict(zip(_QUEUE_GAUGES, (texts, tokens, seconds, batch_tokens), strict=True))
        self._versions.shown.append(self)

    def hide(self) -> None:
        """Shows nothing any more, since the version has no part any more; what it still does counts for its last."""
        if self in self._versions.shown:
            self._versions.shown.remove(self)

    def stage(self, stage: str) -> _Stage:
        """Times the block that it is the context of."""
        return _Stage(self._stages[stage])

    def inferred(self, seconds: float) -> None:
        """A batch was computed, in so long on its thread."""
        self._stages["infer"].observe(seconds)

    def batch(self, lengths: list[int], waited: list[float]) -> None:
        """A batch about to be computed, from the lengths of its texts in tokens and their seconds in the queue."""
        padded, text = max(lengths) * len(lengths), sum(lengths)
        self._batch_texts.observe(len(lengths))
        self._batch_tokens.observe(padded)
        self._tokens["text"].inc(text)
        self._tokens["padding"].inc(padded - text)
        queue = self._stages["queue"]
        for seconds in waited:
            queue.observe(seconds)

    def truncated(self, texts: int) -> None:
        """Texts that were cut."""
        self._truncated.inc(texts)

    def abstained(self, texts: int) -> None:
        """Texts that the version answered without standing by it."""
        self._abstained.inc(texts)

    def shed(self, reason: str, texts: int = 1) -> None:
        """Texts turned away or given up: `overloaded`, `deadline`, `client_gone`, `given_up`."""
        self._shed[reason].inc(texts)

    def failed(self, code: str) -> None:
        """A text that the model could not compute."""
        self._failed[code].inc()

    def cached(self, hits: int = 0, shared: int = 0, misses: int = 0) -> None:
        """Texts that the cache was asked for; the hit ratio is hits and shared over all."""
        for outcome, texts in (("hit", hits), ("shared", shared), ("miss", misses)):
            self._cached[outcome].inc(texts)
