"""The service's metrics: every name is in this folder, and every measurement is made by a call into it.

Each Telemetry has a registry of its own, so that a test has one too. Labels take their values from closed sets (routes,
models, codes); nothing that a client sends becomes a label. A version of a model is measured under the model's name for
as long as it lives; the label `role` says which part it has.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, values
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.formats import TEXT, Format
from service.telemetry.series import SECONDS, Bound
from service.telemetry.versions import VersionMetrics, Versions

_MOST_KEYS = 1000

Change = Literal["loaded", "trial", "promoted", "dropped", "rolled_back", "refused"]
CHANGES: tuple[Change, ...] = get_args(Change)


class Telemetry:
    """Counters, gauges and histograms of one service process."""

    def __init__(self) -> None:
        # BentoML asks for values in files that processes share. Here each process answers for itself, and memory is
        # a third of the price.
        values.ValueClass = values.MutexValue
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Bound(
            Counter("lathe_requests", "Answered requests.", ["route", "status", "code"], registry=registry)
        )
        self._request_seconds = Bound(
            Histogram(
                "lathe_request_seconds", "Time from a request's arrival to its answer.", ["route"],
                buckets=SECONDS, registry=registry,
            )
        )  # fmt: skip
        self._key_requests = Bound(
            Counter("lathe_key_requests", "Requests of a key that asked models.", ["key"], registry=registry)
        )
        self._key_tokens = Bound(
            Counter(
                "lathe_key_tokens", "Tokens that the texts of a key had for the models.", ["key"], registry=registry
            )
        )
        self._limits_unavailable = Counter(
            "lathe_limits_unavailable", "Times that the store of the limits could not be asked.", registry=registry
        )
        self._audit_lost = Counter(
            "lathe_audit_lost_records", "Records of the audit log that were lost, because too many waited or its file "
            "could not be written.", registry=registry,
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
        self._certificate_expires = Gauge(
            "lathe_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of LATHE_TLS_CERTIFICATE expires, in seconds since 1970; +Inf where there is none.",
            registry=registry,
        )
        self._certificate_expires.set(math.inf)
        self._issuer_readable = Gauge(
            "lathe_issuer_readable",
            "Whether the keys of the tokens' issuer can be read, or there is none; if not, its last ones are in force, "
            "for an hour.",
            registry=registry,
        )
        self._issuer_readable.set(1)
        self._versions = Versions(registry)
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

    def audit_lost(self, records: int) -> None:
        """Records of the audit log that could not be written."""
        self._audit_lost.inc(records)

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

    def issuer(self, readable: Callable[[], bool]) -> None:
        """Where to look, when Prometheus asks, whether the keys in force are the issuer's."""
        self._issuer_readable.set_function(readable)

    def certificate(self, expires: Callable[[], float]) -> None:
        """Where to look, when Prometheus asks, for when the certificate of TLS expires."""
        self._certificate_expires.set_function(expires)

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

    def exposition(self, form: Format = TEXT) -> bytes:
        """What Prometheus scrapes."""
        return form.write(self._registry)
