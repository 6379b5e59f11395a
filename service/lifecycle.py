"""The service's life: what it serves, and which state it is in.

starting ──every model loaded, verified and warm──▶ ready ──SIGTERM──▶ draining ──▶ stopped
    └──────────a model cannot be loaded──────────▶ failed
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from compression.bundle import Bundle, Encoded, open_bundle
from service.auth import Authenticator
from service.batching import Batcher, BatchLimits
from service.engine import Engine, require_device
from service.errors import ConfigurationError, ModelNotFound, NotReady
from service.privacy import describe_exception
from service.settings import Settings
from service.telemetry import Telemetry
from service.triage import Triage

logger = logging.getLogger(__name__)

Locate = Callable[[str], Path]


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Model:
    """One model as it is served."""

    name: str
    bundle: Bundle
    engine: Engine
    batcher: Batcher[Encoded]


class Serving:
    """Everything that lives as long as the service does.

    Args:
        settings: checked settings.
        locate: finds the directory of a model's location; knows the model store.
        telemetry: where measurements go.

    Raises:
        ConfigurationError: the keys file cannot be read.
    """

    def __init__(self, settings: Settings, locate: Locate, telemetry: Telemetry) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.state = State.STARTING
        self.authenticator = Authenticator(settings.keys_file) if settings.keys_file is not None else None
        self._locate = locate
        self._models: dict[str, Model] = {}
        self._triage: Triage | None = None

    @property
    def models(self) -> Mapping[str, Model]:
        """What is served, by name; empty until every model is ready."""
        return self._models

    @property
    def ready(self) -> bool:
        """Whether requests are taken: every model of the settings is loaded, warm and running."""
        return self.state is State.READY and set(self._models) == set(self.settings.models) and self._batchers_alive()

    @property
    def alive(self) -> bool:
        """Whether this process can still do its work; if not, it wants to be replaced."""
        return self.state is not State.FAILED and (self.state is not State.READY or self._batchers_alive())

    def model(self, name: str) -> Model:
        """The model of that name.

        Raises:
            NotReady: starting or stopping.
            ModelNotFound: there is none.
        """
        self._require_ready()
        if name not in self._models:
            raise ModelNotFound(f"no model named {name[:64]!r}; there is {', '.join(sorted(self._models))}")
        return self._models[name]

    @property
    def triage(self) -> Triage:
        """The triage rules.

        Raises:
            NotReady: starting or stopping.
            ModelNotFound: the models that triage asks are not served.
        """
        self._require_ready()
        if self._triage is None:
            raise ModelNotFound(
                f"triage needs the models {self.settings.triage_sentiment!r} and {self.settings.triage_intent!r}, "
                "which are not both served here"
            )
        return self._triage

    async def start(self) -> None:
        """Loads, verifies and warms every model; any failure leaves the state at failed, with the reason logged."""
        try:
            require_device(self.settings.device)
            models = [
                await asyncio.to_thread(self._load, name, location) for name, location in self.settings.models.items()
            ]
            triage = triage_rules(self.settings, {model.name: model.bundle for model in models})
        except Exception as error:
            self.state = State.FAILED
            logger.error("cannot serve: %s (%s)", error, describe_exception(error))
            return
        for model in models:
            model.batcher.start()
            manifest = model.bundle.manifest
            self.telemetry.model(
                model.name, model.bundle.version, str(manifest.recipe.get("name")), manifest.runtime.batch_exact
            )
        self._models = {model.name: model for model in models}
        self._triage = triage
        self.state = State.READY
        logger.info("ready: %s", ", ".join(f"{model.name} {model.bundle.version}" for model in models))

    async def stop(self) -> None:
        """Takes nothing new and finishes what was accepted, within the drain timeout."""
        self.state = State.DRAINING
        closing = asyncio.gather(*(model.batcher.close() for model in self._models.values()))
        try:
            await asyncio.wait_for(closing, self.settings.drain_timeout_ms / 1e3)
        except TimeoutError:
            logger.warning("stopped with requests unfinished after %d ms", self.settings.drain_timeout_ms)
        self.state = State.STOPPED

    def _load(self, name: str, location: str) -> Model:
        bundle = open_bundle(self._locate(location))
        engine = Engine(bundle, self.settings.device)
        engine.warm_up()
        exact = bundle.manifest.runtime.batch_exact
        limits = BatchLimits(
            streams=self.settings.streams,
            batch_texts=self.settings.batch_tokens if exact else 1,  # an answer must not depend on its neighbours
            batch_tokens=self.settings.batch_tokens,
            batch_ms=self.settings.batch_ms,
            window=self.settings.batch_window,
            queue_texts=self.settings.queue_texts,
            queue_tokens=self.settings.queue_tokens,
        )
        return Model(name, bundle, engine, Batcher(name, engine.infer, limits, self.telemetry))

    def _require_ready(self) -> None:
        if not self.ready:
            raise NotReady(f"the service is {self.state}")

    def _batchers_alive(self) -> bool:
        return all(model.batcher.alive for model in self._models.values())


def check(settings: Settings, locate: Locate) -> None:
    """What can be known before any process is started: keys, device, every bundle's digests, triage's labels.

    Raises:
        ConfigurationError, BundleError: the service could not become ready.
    """
    if settings.keys_file is not None:
        Authenticator(settings.keys_file)
    require_device(settings.device)
    triage_rules(settings, {name: open_bundle(locate(location)) for name, location in settings.models.items()})


def triage_rules(settings: Settings, bundles: Mapping[str, Bundle]) -> Triage | None:
    """The triage rules where both of its models are served; a service without them has no triage.

    Raises:
        ConfigurationError: the models' labels do not fit triage.
    """
    sentiment, intent = bundles.get(settings.triage_sentiment), bundles.get(settings.triage_intent)
    if sentiment is None or intent is None:
        return None
    return Triage(settings, sentiment.manifest.labels, intent.manifest.labels)


def require_private_or_keys(host: str, settings: Settings) -> None:
    """Refuses to listen where strangers can reach it without asking them for a key.

    Raises:
        ConfigurationError: names the address and both remedies.
    """
    import ipaddress

    if settings.keys_file is None and not ipaddress.ip_address(host).is_loopback:
        raise ConfigurationError(
            f"the address {host} can be reached from other machines and there are no keys; "
            "listen on --host 127.0.0.1, or set LATHE_KEYS_FILE to a file made by lathe keys add"
        )
