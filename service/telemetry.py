"""The service's metrics: every name is here, and every measurement is made by a call into here.

Each Telemetry has a registry of its own, so that a test has one too. Labels take their values from closed sets (routes,
models, codes); nothing that a client sends becomes a label.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Generic, Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

Change = Literal["loaded", "trial", "promoted", "dropped", "rolled_back", "refused"]
CHANGES: tuple[Change, ...] = get_args(Change)


M = TypeVar("M", Counter, Histogram)


class _Bound(dict[tuple[object, ...], M], Generic[M]):
    """The series of a metric by their labels, each looked up once: what every request does should be cheap."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, labels: tuple[object, ...]) -> M:
        series = self[labels] = self._metric.labels(*labels)
        return series


class _Asked:
    """A gauge that is asked for its value of each model, by name, when Prometheus asks.

    Gauge.set_function would make a reference cycle, in which the engine of a version that has gone would stay.

    Attributes:
        values: what to ask, by model.
    """

    def __init__(self, name: str, help: str, registry: CollectorRegistry) -> None:
        self.values: dict[str, Callable[[], float]] = {}
        self._family = partial(GaugeMetricFamily, name, help, labels=["model"])
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metric, as a registry asks for it."""
        family = self._family()
        for model, value in self.values.items():
            family.add_metric([model], value())
        yield family


class _Stage:
    """A context manager of its own: one made of a generator costs several times as much, for every request."""

    __slots__ = ("_seconds", "_start")

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds.observe(time.perf_counter() - self._start)


class Telemetry:
    """Counters, gauges and histograms of one service process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # BentoML asks for values in files that processes share. Here each process answers for itself, and memory is
        # a third of the price.
        values.ValueClass = values.MutexValue
        self._registry = registry = CollectorRegistry()
        self._models: set[tuple[str, str, str, str]] = set()
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
        self._stage_seconds = _Bound(
            Histogram(
                "lathe_stage_seconds", "Time in one stage: tokenize, queue (a text), infer (a batch).",
                ["model", "stage"], buckets=_SECONDS, registry=registry,
            )
        )  # fmt: skip
        self._queue_texts = _Asked("lathe_queue_texts", "Texts waiting for a batch.", registry)
        self._queue_tokens = _Asked("lathe_queue_tokens", "Tokens waiting for a batch.", registry)
        self._queue_seconds = _Asked(
            "lathe_queue_seconds", "Expected seconds until what waits and is being computed is done.", registry
        )
        self._batch_limit = _Asked(
            "lathe_batch_limit_tokens", "Tokens a batch may have now, so that it keeps its time.", registry
        )
        self._held_text = Gauge(
            "lathe_text_bytes", "Texts of requests that are not answered yet, in bytes.", registry=registry
        )
        self._batch_texts = _Bound(
            Histogram("lathe_batch_texts", "Texts in a batch.", ["model"], buckets=_TEXTS, registry=registry)
        )
        self._batch_tokens = _Bound(
            Histogram(
                "lathe_batch_tokens", "Tokens in a batch, padding counted.", ["model"],
                buckets=_TOKENS, registry=registry,
            )
        )  # fmt: skip
        self._tokens = _Bound(
            Counter("lathe_tokens", "Tokens computed: text, or padding.", ["model", "kind"], registry=registry)
        )
        self._truncated = Counter(
            "lathe_truncated_texts", "Texts cut to the model's window.", ["model"], registry=registry
        )
        self._shed = Counter(
            "lathe_shed_texts",
            "Texts not computed: overloaded (429; one text for a request that was refused before its body was read), "
            "deadline, client gone, or given up because another model of the request could not answer.",
            ["model", "reason"],
            registry=registry,
        )  # fmt: skip
        self._failed = Counter(
            "lathe_failed_texts", "Texts that the model could not compute.", ["model", "code"], registry=registry
        )
        self._cached = Counter(
            "lathe_cache_texts",
            "Texts asked of the cache: hit, shared (equal to one being computed) or miss.", ["model", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._cache_bytes = Gauge("lathe_cache_bytes", "What the cache holds.", registry=registry)
        self._model = Gauge(
            "lathe_model_info", "1 for each model that is served.", ["model", "version", "recipe", "batch_exact"],
            registry=registry,
        )  # fmt: skip
        self._version_changes = Counter(
            "lathe_version_changes", "Calls to change a model's version: what they did, or that they were refused.",
            ["model", "change"], registry=registry,
        )  # fmt: skip
        self._shadow = Counter(
            "lathe_shadow_texts", "Texts that a version in shadow mode was asked, too: whether its label is the same.",
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

    def connections(self, states: Iterable[str], count: Callable[[str], float], reasons: Iterable[str]) -> None:
        """Where to look, when Prometheus asks, for how many connections are in a state; and why they may end."""
        for state in states:
            self._connections.labels(state).set_function(partial(count, state))
        for reason in reasons:
            self._connections_closed.labels(reason)

    def connection_closed(self, reason: str) -> None:
        """A connection has ended."""
        self._connections_closed.labels(reason).inc()

    def stage(self, model: str, stage: str) -> "_Stage":
        """Times the block that it is the context of."""
        return _Stage(self._stage_seconds[model, stage])

    def inferred(self, model: str, seconds: float) -> None:
        """A batch was computed, in so long on its thread."""
        self._stage_seconds[model, "infer"].observe(seconds)

    def queue(
        self,
        model: str,
        texts: Callable[[], float],
        tokens: Callable[[], float],
        seconds: Callable[[], float],
        batch_tokens: Callable[[], float],
    ) -> None:
        """Where to look, when Prometheus asks, for what waits, how long that will take, and how large a batch is."""
        self._queue_texts.values[model] = texts
        self._queue_tokens.values[model] = tokens
        self._queue_seconds.values[model] = seconds
        self._batch_limit.values[model] = batch_tokens

    def batch(self, model: str, lengths: list[int], waited: list[float]) -> None:
        """A batch about to be computed, from the lengths of its texts in tokens and their seconds in the queue."""
        padded, text = max(lengths) * len(lengths), sum(lengths)
        self._batch_texts[(model,)].observe(len(lengths))
        self._batch_tokens[(model,)].observe(padded)
        self._tokens[model, "text"].inc(text)
        self._tokens[model, "padding"].inc(padded - text)
        queue = self._stage_seconds[model, "queue"]
        for seconds in waited:
            queue.observe(seconds)

    def truncated(self, model: str, texts: int) -> None:
        """Texts that were cut."""
        self._truncated.labels(model).inc(texts)

    def shed(self, model: str, reason: str, texts: int = 1) -> None:
        """Texts turned away or given up: `overloaded`, `deadline`, `client_gone`, `given_up`."""
        self._shed.labels(model, reason).inc(texts)

    def failed(self, model: str, code: str) -> None:
        """A text that the model could not compute."""
        self._failed.labels(model, code).inc()

    def cached(self, model: str, hits: int = 0, shared: int = 0, misses: int = 0) -> None:
        """Texts that the cache was asked for; the hit ratio is hits and shared over all."""
        for outcome, texts in (("hit", hits), ("shared", shared), ("miss", misses)):
            self._cached.labels(model, outcome).inc(texts)

    def held_text(self, size_bytes: Callable[[], float]) -> None:
        """Shows what requests hold that are not answered yet."""
        self._held_text.set_function(size_bytes)

    def cache(self, size_bytes: Callable[[], float]) -> None:
        """Where to look, when Prometheus asks, for what the cache holds."""
        self._cache_bytes.set_function(size_bytes)

    def model(self, name: str, version: str, recipe: str, batch_exact: bool) -> None:
        """A model that is served; its series exist from now on, so that a rate over them is 0 and not absent."""
        labels = (name, version, recipe, str(batch_exact).lower())
        self._models.add(labels)
        self._model.labels(*labels).set(1)
        for reason in ("overloaded", "deadline", "client_gone", "given_up"):
            self._shed.labels(name, reason)
        for kind in ("text", "padding"):
            self._tokens[name, kind]
        for code in ("inference_failed", "not_a_number"):
            self._failed.labels(name, code)
        self._truncated.labels(name)
        self.cached(name)

    def model_gone(self, name: str) -> None:
        """Nothing is served under this name any more: what said how things stand is forgotten, what counted is not."""
        for gauge in (self._queue_texts, self._queue_tokens, self._queue_seconds, self._batch_limit):
            gauge.values.pop(name, None)
        for labels in [labels for labels in self._models if labels[0] == name]:
            self._model.remove(*labels)
            self._models.discard(labels)

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

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
