"""The service's life: what it serves, and which state it is in.

loading ──▶ verifying ──▶ warming ──▶ ready ──SIGTERM──▶ draining ──pause──▶ socket closes ──all answered──▶ stopped
   └────────────┴────────────┴──a model cannot be served──▶ failed

loading:   digests compared, sessions made
verifying: this machine gives the bundles' golden answers
draining:  /readyz is 503; whatever still arrives is answered
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from compression.bundle import Bundle
from service.engine.devices import try_out
from service.errors import ConfigurationError, ModelNotFound, NotReady
from service.models.intake import Intake
from service.models.loading import Loader, Locate, open_members, require_memory, signers_of
from service.models.model import Model
from service.redaction import describe_exception
from service.settings import Settings
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

_WORKER_BYTES = 120_000_000  # that a worker takes at least, without models

FitCheck = Callable[[Mapping[str, Bundle]], object]
"""Raises ConfigurationError where models of such bundles, by name, do not fit what they are for."""


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
        check_fit: asked before models are served, and before one's labels change.
        workers: processes that serve these models, this one among them.
    """

    def __init__(
        self, settings: Settings, locate: Locate, telemetry: Telemetry, check_fit: FitCheck, workers: int = 1
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.workers = workers
        self.state = State.LOADING
        self._stopped_by = math.inf
        self.loader = Loader(settings, telemetry)
        self.intake = Intake(settings, telemetry)
        self._locate = locate
        self._check_fit = check_fit
        self._models: dict[str, Model] = {}

    @property
    def models(self) -> Mapping[str, Model]:
        """What is served, by name; empty until every model is ready, and the same object for ever."""
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

    def require_fitting(self, name: str, bundle: Bundle) -> None:
        """Checks the bundle that a model is about to have.

        Raises:
            ConfigurationError: its labels do not fit what the model is for.
        """
        bundles = {model.name: model.live.bundle for model in self._models.values()}
        self._check_fit({**bundles, name: bundle})

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
            self._check_fit({name: version.bundle for name, version in versions.items()})
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
        self._models.update({name: Model(name, version, self.telemetry) for name, version in versions.items()})
        self.state = State.READY
        logger.info("ready: %s", ", ".join(f"{name} {version.id}" for name, version in versions.items()))

    async def stop(self) -> None:
        """Finishes what was accepted, within the drain timeout; after that nothing is taken."""
        if self.state is not State.DRAINING:
            self.drain()
        closing = asyncio.gather(*(model.stop() for model in self._models.values()))
        try:
            await asyncio.wait_for(closing, max(0.0, self._stopped_by - time.monotonic()))
        except TimeoutError:
            logger.warning("stopped with requests unfinished after %d ms", self.settings.drain_timeout_ms)
        self.intake.shut_down()
        self.state = State.STOPPED

    def drain(self) -> None:
        """The process is about to stop: nothing more should be sent here."""
        self.state = State.DRAINING
        total_ms = self.settings.drain_pause_ms + self.settings.drain_timeout_ms
        self._stopped_by = time.monotonic() + total_ms / 1e3

    def not_ready(self) -> NotReady:
        """Why nothing more should be sent here."""
        if self.state is State.READY:
            return NotReady("the worker of a model died; the service must be restarted")
        return NotReady(f"the service is {self.state}")

    def _require_taking(self) -> None:
        if self.state not in (State.READY, State.DRAINING) or not self._complete():
            raise self.not_ready()

    def _complete(self) -> bool:
        return self._models.keys() == self.settings.models.keys() and self._models_alive()

    def _models_alive(self) -> bool:
        return all(model.alive for model in self._models.values())


def check(settings: Settings, locate: Locate, check_fit: FitCheck) -> None:
    """What can be known of the models before any process is started: device, every bundle's digests, labels.

    Raises:
        ConfigurationError, BundleError: the service could not become ready.
    """
    signers = signers_of(settings)
    opened = {
        name: open_members(location, locate, signers, settings.ensemble_degraded)
        for name, location in settings.models.items()
    }
    check_fit({name: members[0][0] for name, members in opened.items()})
    if not settings.device.gpus:
        require_memory([bundle for members in opened.values() for bundle, _ in members], _WORKER_BYTES)
    else:
        try_out([bundle for members in opened.values() for bundle, _ in members], settings.device)
    if settings.bundles_root is not None and not settings.bundles_root.is_dir():
        raise ConfigurationError(f"LATHE_BUNDLES_ROOT={str(settings.bundles_root)!r} is no directory; make it first")
