"""The service's metrics: every name is here, and every measurement is made by a call into here.

Each Telemetry has a registry of its own, so that a test has one too. Labels take their values from closed sets (routes,
models, codes); nothing that a client sends becomes a label. A version of a model is measured under the model's name for
as long as it lives; the label `role` says which part it has.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

import prometheus_client.openmetrics.exposition as openmetrics
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST, CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MOST_KEYS = 1000
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

Change = Literal["loaded", "trial", "promoted", "dropped", "rolled_back", "refused"]
CHANGES: tuple[Change, ...] = get_args(Change)

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


class Format(NamedTuple):
    """How metrics are written."""

    content_type: str
    write: Callable[[Collector], bytes]

    @classmethod
    def of(cls, accepted: Iterable[tuple[str, str | None]]) -> "Format":
        """The first that there is of media types with versions; the oldest where there is none."""
        return next((_FORMATS[one] for one in accepted if one in _FORMATS), _TEXT)


_TEXT = Format(CONTENT_TYPE_PLAIN_0_0_4, generate_latest)
_OPEN_METRICS = Format(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest)
# By media type and version: what writes it. Both versions of the text are the same for names like ours.
_FORMATS: dict[tuple[str, str | None], Format] = {
    ("*/*", None): _TEXT,
    ("text/*", None): _TEXT,
    ("text/plain", None): _TEXT,
    ("text/plain", "0.0.4"): _TEXT,
    ("text/plain", "1.0.0"): Format(CONTENT_TYPE_LATEST, generate_latest),
    ("application/openmetrics-text", None): _OPEN_METRICS,
    ("application/openmetrics-text", "1.0.0"): _OPEN_METRICS,
}

M = TypeVar("M", Counter, Histogram)


class _Bound(dict[tuple[object, ...], M], Generic[M]):
    """The series of a metric by their labels, each looked up once: what every request does should be cheap."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, labels: tuple[object, ...]) -> M:
        series = self[labels] = self._metric.labels(*labels)
        return series


class _Stage:
    """A context manager of its own: one made of a generator costs several times as much, for every request."""

    __slots__ = ("_seconds", "_start")

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds.observe(time.perf_counter() - self._start)


class _Versions(Collector):
    """What is measured of each version; what it shows is looked up when Prometheus asks.

    Gauge.set_function would make a reference cycle, in which the engine of a version that has gone would stay.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shown: list[VersionMetrics] = []
        registry.register(self)
        self.stage_seconds = Histogram(
            "lathe_stage_seconds", "Time in one stage: tokenize, queue (a text), infer (a batch).",
            [*_BY_VERSION, "stage"], buckets=_SECONDS, registry=registry,
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

    def __init__(self, versions: _Versions, model: str) -> None:
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


class Telemetry:
    """Counters, gauges and histograms of one service process."""

    def __init__(self) -> None:
        # BentoML asks for values in files that processes share. Here each process answers for itself, and memory is
        # a third of the price.
        values.ValueClass = values.MutexValue
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = _Bound(
            Counter("lathe_requests", "Answered requests.", ["route", "status", "code"], registry=registry)
        )
        self._request_seconds = _Bound(
            Histogram(
                "lathe_request_seconds", "Time from a request's arrival to its answer.", ["route"],
                buckets=_SECONDS, registry=registry,
            )
        )  # fmt: skip
        self._key_requests = _Bound(
            Counter("lathe_key_requests", "Requests of a key that asked models.", ["key"], registry=registry)
        )
        self._key_tokens = _Bound(
            Counter(
                "lathe_key_tokens", "Tokens that the texts of a key had for the models.", ["key"], registry=registry
            )
        )
        self._limits_unavailable = Counter(
            "lathe_limits_unavailable", "Times that the store of the limits could not be asked.", registry=registry
        )
        self._connections = Gauge(
            "lathe_connections", "Open connections by what they are doing: idle, or which part of a request or answer.",
            ["state"], registry=registry,
        )  # fmt: skip
        self._connections_closed = Counter(
            "lathe_connections_closed",
            "Connections that have ended: by the client; asked, after its one answer; idle; full, to make room; "
            "timeout, in another state; refused, not understood or too large; unread, a body too long to be worth it; "
            "failed; stopping.",
            ["reason"],
            registry=registry,
        )  # fmt: skip
        self._keys_readable = Gauge(
            "lathe_keys_file_readable",
            "Whether the keys file can be read, or there is none; if not, its last keys are in force, for an hour.",
            registry=registry,
        )
        self._keys_readable.set(1)
        self._keys_expire = Gauge(
            "lathe_keys_next_expiry_timestamp_seconds",
            "When the first of the API keys in force expires, in seconds since 1970; +Inf where none does.",
            registry=registry,
        )
        self._keys_expire.set(math.inf)
        self._versions = _Versions(registry)
        self._held_text = Gauge(
            "lathe_text_bytes", "Texts of requests that are not answered yet, in bytes.", registry=registry
        )
        self._cache_bytes = Gauge("lathe_cache_bytes", "What the cache holds.", registry=registry)
        self._version_changes = Counter(
            "lathe_version_changes", "Calls to change a model's version: what they did, or that they were refused.",
            ["model", "change"], registry=registry,
        )  # fmt: skip
        self._shadow = Counter(
            "lathe_shadow_texts", "Texts that a version in shadow mode was asked, too: whether its answer is the same.",
            ["model", "result"], registry=registry,
        )  # fmt: skip
        self._missing = Gauge(
            "lathe_missing_members", "Members that an ensemble is served without.", ["model"], registry=registry
        )
        self._ready = Gauge("lathe_ready", "1 while the service is ready.", registry=registry)

    def request(self, route: str, status: int, code: str, seconds: float) -> None:
        """One answered request; `code` is the error's, or `ok`."""
        self._requests[route, status, code].inc()
        self._request_seconds[(route,)].observe(seconds)

    def used(self, key: str, tokens: int) -> None:
        """A request of a key, which asked models; the first thousand keys have series of their own."""
        labels = (key,) if (key,) in self._key_requests or len(self._key_requests) < _MOST_KEYS else ("other keys",)
        self._key_requests[labels].inc()
        self._key_tokens[labels].inc(tokens)

    def limits_unavailable(self) -> None:
        """The limits of a key could not be looked up."""
        self._limits_unavailable.inc()

    def connections(self, states: Iterable[str], count: Callable[[str], float], reasons: Iterable[str]) -> None:
        """Where to look, when Prometheus asks, for how many connections are in a state; and why they may end."""
        for state in states:
            self._connections.labels(state).set_function(partial(count, state))
        for reason in reasons:
            self._connections_closed.labels(reason)

    def keys_file(self, readable: Callable[[], bool], next_expiry: Callable[[], float]) -> None:
        """Where to look, when Prometheus asks, whether the keys in force are those in the file, and when one ends."""
        self._keys_readable.set_function(readable)
        self._keys_expire.set_function(next_expiry)

    def connection_closed(self, reason: str) -> None:
        """A connection has ended."""
        self._connections_closed.labels(reason).inc()

    def version(self, model: str) -> VersionMetrics:
        """Measures one version of a model, or one member of it; the live one until another role is set."""
        return VersionMetrics(self._versions, model)

    def held_text(self, size_bytes: Callable[[], float]) -> None:
        """Shows what requests hold that are not answered yet."""
        self._held_text.set_function(size_bytes)

    def cache(self, size_bytes: Callable[[], float]) -> None:
        """Where to look, when Prometheus asks, for what the cache holds."""
        self._cache_bytes.set_function(size_bytes)

    def versions(self, name: str, missing: int) -> None:
        """A name whose versions can change; `missing` members of its ensemble could not be loaded."""
        for change in CHANGES:
            self._version_changes.labels(name, change)
        for result in ("agree", "disagree", "failed"):
            self._shadow.labels(name, result)
        self._missing.labels(name).set(missing)

    def version_change(self, name: str, change: Change) -> None:
        """A call that changed which version answers, or did not."""
        self._version_changes.labels(name, change).inc()

    def shadow(self, name: str, result: Literal["agree", "disagree", "failed"], texts: int) -> None:
        """Texts that a version in shadow mode was asked, too."""
        self._shadow.labels(name, result).inc(texts)

    def ready(self, ready: bool) -> None:
        """Whether the service is ready."""
        self._ready.set(int(ready))

    def collect(self) -> Iterator[Metric]:
        """Every metric with its help; the reference is written from it."""
        return iter(self._registry.collect())

    def exposition(self, form: Format = _TEXT) -> bytes:
        """What Prometheus scrapes."""
        return form.write(self._registry)
