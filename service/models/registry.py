"""The service's life: what it serves, and which state it is in.

loading ──▶ verifying ──▶ warming ──▶ ready ──SIGTERM──▶ draining ──pause──▶ socket closes ──all answered──▶ stopped
   └────────────┴────────────┴──a model cannot be served──▶ failed

loading:   digests compared, sessions made
verifying: this machine gives the bundles' golden answers
draining:  /readyz is 503; whatever still arrives is answered
"""

import asyncio
import logging
import signal
from collections.abc import Mapping
from enum import StrEnum

from service.access.keys import Authenticator
from service.api.triage import Triage
from service.engine.devices import try_out
from service.errors import ConfigurationError, ModelNotFound, NotReady
from service.models.loading import Loader, Locate, open_members
from service.models.model import Model
from service.redaction import describe_exception
from service.settings import Settings
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)


class State(StrEnum):
    LOADING = "loading"
    VERIFYING = "verifying"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Serving:
    """Everything that lives as long as the service does.

    Args:
        settings: checked settings.
        locate: finds the directory of a model's location; knows the model store.
        telemetry: where measurements go.
        workers: processes that serve these models, this one among them.

    Raises:
        ConfigurationError: the keys file cannot be read.
    """

    def __init__(self, settings: Settings, locate: Locate, telemetry: Telemetry, workers: int = 1) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.workers = workers
        self.state = State.LOADING
        self.authenticator = Authenticator(settings.keys_file) if settings.keys_file is not None else None
        self.loader = Loader(settings, telemetry)
        self._locate = locate
        self._models: dict[str, Model] = {}
        self._triage: Triage | None = None

    @property
    def models(self) -> Mapping[str, Model]:
        """What is served, by name; empty until every model is ready."""
        return self._models

    @property
    def ready(self) -> bool:
        """Whether more should be sent here: every model of the settings is loaded, warm and running."""
        return self.state is State.READY and self._complete()

    @property
    def alive(self) -> bool:
        """Whether this process can still do its work; if not, it wants to be replaced."""
        return self.state is not State.FAILED and (self.state is not State.READY or self._models_alive())

    def model(self, name: str) -> Model:
        """The model of that name.

        Raises:
            NotReady: starting or stopped.
            ModelNotFound: there is none.
        """
        self._require_taking()
        if name not in self._models:
            raise ModelNotFound(f"no model named {name[:64]!r}; there is {', '.join(sorted(self._models))}")
        return self._models[name]

    @property
    def triage(self) -> Triage:
        """The triage rules.

        Raises:
            NotReady: starting or stopped.
            ModelNotFound: triage is off; says why.
        """
        self._require_taking()
        if self._triage is None:
            raise ModelNotFound(_why_no_triage(self.settings))
        return self._triage

    def relabel(self, name: str, labels: tuple[str, ...]) -> None:
        """Makes triage fit for a model that is about to have these labels.

        Raises:
            ConfigurationError: they do not fit triage; nothing has changed.
        """
        labels_of = {model.name: model.labels for model in self._models.values()}
        self._triage = triage_rules(self.settings, {**labels_of, name: labels})

    async def start(self) -> None:
        """Loads, verifies and warms every model; any failure leaves the state at failed, with the reason logged."""
        named = self.settings.models.items()
        try:
            versions = {
                name: await asyncio.to_thread(
                    self.loader.load, name, location, self._locate, self.settings.ensemble_degraded
                )
                for name, location in named
            }
            triage = triage_rules(self.settings, {name: version.labels for name, version in versions.items()})
            self.state = State.VERIFYING
            for version in versions.values():
                await asyncio.to_thread(version.verify)
            self.state = State.WARMING
            for version in versions.values():
                await asyncio.to_thread(version.warm_up)
        except Exception as error:
            self.state = State.FAILED
            logger.error("cannot serve: %s (%s)", error, describe_exception(error))
            return
        self._models = {name: Model(name, version, self.telemetry) for name, version in versions.items()}
        self._triage = triage
        self._drain_on_sigterm()
        self.state = State.READY
        if triage is None:
            logger.info("%s", _why_no_triage(self.settings))
        logger.info("ready: %s", ", ".join(f"{name} {version.id}" for name, version in versions.items()))

    async def stop(self) -> None:
        """Finishes what was accepted, within the drain timeout; after that nothing is taken."""
        self.state = State.DRAINING
        closing = asyncio.gather(*(model.stop() for model in self._models.values()))
        try:
            await asyncio.wait_for(closing, self.settings.drain_timeout_ms / 1e3)
        except TimeoutError:
            logger.warning("stopped with requests unfinished after %d ms", self.settings.drain_timeout_ms)
        self.state = State.STOPPED

    def _drain_on_sigterm(self) -> None:
        """Holds the server's own handler of SIGTERM back, which closes the socket at once, for the drain pause."""
        loop = asyncio.get_running_loop()
        close = signal.getsignal(signal.SIGTERM)

        if not callable(close):  # there is no server in this process
            return

        def drain(number: int, _: object) -> None:
            self.state = State.DRAINING
            pause_s = self.settings.drain_pause_ms / 1e3
            loop.call_soon_threadsafe(lambda: loop.call_later(pause_s, close, number, None))

        signal.signal(signal.SIGTERM, drain)

    def not_ready(self) -> NotReady:
        """Why nothing more should be sent here."""
        if self.state is State.READY:
            return NotReady("a model computes no more; the service must be restarted")
        return NotReady(f"the service is {self.state}")

    def _require_taking(self) -> None:
        if self.state not in (State.READY, State.DRAINING) or not self._complete():
            raise self.not_ready()

    def _complete(self) -> bool:
        return set(self._models) == set(self.settings.models) and self._models_alive()

    def _models_alive(self) -> bool:
        return all(model.alive for model in self._models.values())


def check(settings: Settings, locate: Locate) -> None:
    """What can be known before any process is started: keys, device, every bundle's digests, triage's labels.

    Raises:
        ConfigurationError, BundleError: the service could not become ready.
    """
    if settings.keys_file is not None:
        Authenticator(settings.keys_file)
    opened = {
        name: open_members(location, locate, settings.ensemble_degraded) for name, location in settings.models.items()
    }
    triage_rules(settings, {name: members[0][0].manifest.labels for name, members in opened.items()})
    if settings.device.gpus:
        try_out([bundle for members in opened.values() for bundle, _ in members], settings.device)
    if settings.bundles_root is not None and not settings.bundles_root.is_dir():
        raise ConfigurationError(f"LATHE_BUNDLES_ROOT={str(settings.bundles_root)!r} is no directory; make it first")


def triage_rules(settings: Settings, labels: Mapping[str, tuple[str, ...]]) -> Triage | None:
    """The triage rules where both of its models are served and it is not off; otherwise there is no triage.

    Args:
        labels: of each model, by name.

    Raises:
        ConfigurationError: the models' labels do not fit triage.
    """
    sentiment, intent = labels.get(settings.triage_sentiment), labels.get(settings.triage_intent)
    if settings.triage == "off" or sentiment is None or intent is None:
        return None
    return Triage(settings, sentiment, intent)


def _why_no_triage(settings: Settings) -> str:
    if settings.triage == "off":
        return "triage is off here: LATHE_TRIAGE=off"
    return (
        f"triage is off here: it needs the models {settings.triage_sentiment!r} and {settings.triage_intent!r}, which "
        "are not both served; LATHE_TRIAGE_SENTIMENT and LATHE_TRIAGE_INTENT name others"
    )
