"""The BentoML service, started by `lathe serve` or `bentoml serve`. The only file of the service that imports bentoml.

BentoML gives the process tree, the model store, packaging and probes. A gate in front of its app answers
the HTTP API itself, because BentoML's batching and error handling cannot do what this service needs, and because its
middlewares cost more than the rest of a request: one of them makes a task and a timer for each, and the timers, which
nobody cancels, are kept until they are due.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
import click
import uvicorn.config
from _bentoml_impl.server.allocator import ResourceAllocator
from bentoml._internal.utils import circus
from bentoml._internal.utils.analytics import usage_stats
from bentoml.exceptions import BentoMLConfigException, BentoMLException

from compression.bundle import BundleError
from service.access.limits import Limiter
from service.api.routes import create_routes
from service.api.triage import check_fit, why_no_triage
from service.audit import AuditLog, require_writable
from service.credentials import check_credentials, create_access
from service.environment import bentoml_misconfigured, load_settings, remember_directory, tokenize_in_one_thread
from service.errors import ConfigurationError
from service.http.connection import HttpProtocol
from service.http.connections import Connections, Limits
from service.http.cors import CrossOrigin, cors_options
from service.http.entrance import Entrance
from service.http.gate import Gate
from service.http.stopping import drain_on_stop
from service.http.tls import Handshake, Tls
from service.listening import require_free, require_private_or_keys
from service.models.registry import Serving, State, check
from service.settings import Settings
from service.supervision import close_to_others, end_with_parent
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

# A thread that has computed a batch waits so long for the event loop to let go of the interpreter; 5 ms by default.
_SWITCH_S = 0.0002

# `bentoml serve` asks, and remembers, whether it may report its use before our package, which says no, is imported.
usage_stats.do_not_track.cache_clear()

# What holds the package `service`: workers start there, where no file of the user's can stand in for it.
_ROOT = Path(__file__).resolve().parent.parent


def locate(directory: Path, location: str) -> Path:
    """The directory of a model: as it is written, or of that tag in the model store.

    Args:
        directory: what a relative path starts from.

    Raises:
        ConfigurationError: it is neither.
    """
    path = directory / location
    if path.is_dir():
        return path
    try:
        return Path(bentoml.models.get(location).path)
    except (BentoMLException, ValueError) as error:
        raise ConfigurationError(
            f"{location!r} is neither a directory below {directory} nor a tag in the model store; name a "
            "bundle (lathe serve DIRECTORY, or LATHE_MODELS), or make one with lathe compress"
        ) from error


def _settings() -> Settings:
    """The settings; a bento serves the models that it was built with, unless LATHE_MODELS says otherwise."""
    bento = Lathe.bento  # type: ignore[attr-defined]  # the decorator makes it a Service
    models = {model.tag.name: str(model.tag) for model in bento.info.all_models} if bento is not None else None
    return load_settings(default_models=models)


def _audit_log(settings: Settings, telemetry: Telemetry) -> AuditLog | None:
    if settings.audit_file is None:
        return None
    return AuditLog(settings.audit_file, settings.audit_bytes, settings.audit_files, telemetry.audit_lost)


def _workers() -> int:
    """How many processes BentoML starts: the decorator's, unless its own configuration file says otherwise."""
    workers, _ = ResourceAllocator().get_worker_env(Lathe)
    return int(workers)


def _address() -> tuple[str, int]:
    """Where `bentoml serve` was told to listen, by option, variable or default."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    context = click.get_current_context(silent=True)
    given = context.params if context is not None else {}
    host, port = given.get("host"), given.get("port")
    return host or BentoMLContainer.http.host.get(), BentoMLContainer.http.port.get() if port is None else port


def _cors() -> dict[str, Any] | None:
    """Which pages of other origins may ask, by BentoML's configuration; None where none may."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    enabled = BentoMLContainer.http.cors.enabled.get()
    return cors_options(BentoMLContainer.access_control_options.get()) if enabled else None


def _check(host: str, port: int) -> None:
    """Runs once, before any worker is started.

    Raises:
        ConfigurationError, BundleError: the service could not become ready.
    """
    remember_directory()
    close_to_others(circus)
    settings = _settings()
    require_private_or_keys(host, settings)
    require_free(host, port)
    check_credentials(settings)
    Tls.of(settings)
    if settings.audit_file is not None:
        require_writable(settings.audit_file, _workers())
    _cors()
    check(settings, partial(locate, settings.directory), partial(check_fit, settings))


def _drain() -> None:
    Lathe.serving.drain()  # type: ignore[misc]  # the decorator makes it a Service
    Lathe.connections.drain()  # type: ignore[attr-defined]  # as above


class _Gated(bentoml.Service[Any]):  # type: ignore[misc]  # BentoML's names are loaded late, and have no types
    """A service whose app stands behind the gate."""

    address: tuple[str, int] | None = None  # where `serve_http` listens; `bentoml serve` does not call it

    def serve_http(self, *, host: str | None = None, port: int | None = None, **options: Any) -> Any:
        """Serves until it is told to stop; with `threaded=True` until the server that it returns is stopped.

        Raises:
            ConfigurationError, BundleError: the service could not become ready.
        """
        default_host, default_port = _address()
        self.address = host, port = host or default_host, default_port if port is None else port
        self.working_dir = str(_ROOT)
        try:
            return super().serve_http(host=host, port=port, **options)
        except BentoMLConfigException as error:
            raise bentoml_misconfigured(error) or error from None

    def to_asgi(self, is_main: bool = True) -> Gate | CrossOrigin:
        """The app that a worker serves; uvicorn, which BentoML starts with it, takes its protocol from this table."""
        app = super().to_asgi(is_main)
        settings, telemetry = _settings(), Telemetry()
        access, self.issuer = create_access(settings, telemetry)
        places, fit = partial(locate, settings.directory), partial(check_fit, settings)
        self.serving = Serving(settings, places, telemetry, fit, _workers())
        store, without = settings.limits_store, settings.limits_without_store
        limiter = self.limiter = Limiter(store, without, telemetry.limits_unavailable)
        routes = create_routes(self.serving, access, limiter)
        entrance = Entrance(routes, access, settings.request_timeout_ms)
        audit = self.audit = _audit_log(settings, telemetry)
        gate, cors = Gate(app, entrance, telemetry, limiter, audit), _cors()
        front = gate if cors is None else CrossOrigin(gate, entrance, cors)
        self.connections = Connections(front, telemetry, Limits.of(settings))
        protocol = self._protocol(settings, telemetry)
        uvicorn.config.HTTP_PROTOCOLS["auto"] = protocol  # type: ignore[assignment]  # a name, or what it names
        return front

    def _protocol(self, settings: Settings, telemetry: Telemetry) -> Callable[..., asyncio.Protocol]:
        """What makes a connection."""
        http, tls = partial(HttpProtocol, connections=self.connections), Tls.of(settings)
        if tls is None:
            return http
        telemetry.certificate(partial(getattr, tls, "expires"))
        return partial(Handshake, tls=tls, connections=self.connections, then=http)


@bentoml.service(
    name="lathe",
    service_class=_Gated,
    workers=1,  # streams share one process, one copy of the weights and one queue
    http={"host": "127.0.0.1", "port": 3000},
    metrics={"enabled": False},  # BentoML labels the raw path: a new series for each path that anyone tries
    logging={"access": {"enabled": False}},
)
class Lathe:
    """Serves the bundles that LATHE_MODELS names."""

    def __init__(self) -> None:
        logging.getLogger("service").setLevel(logging.INFO)  # BentoML's root logger shows warnings only
        sys.setswitchinterval(_SWITCH_S)
        tokenize_in_one_thread()
        self.serving: Serving = Lathe.serving  # type: ignore[misc]  # the decorator makes it a Service

    @bentoml.on_deployment
    def check() -> None:
        """What cannot become ready is refused here, in one line."""
        address = Lathe.address  # type: ignore[attr-defined]  # the decorator makes it a Service
        if address is not None:
            return _check(*address)
        try:
            return _check(*_address())
        except (ConfigurationError, BundleError) as error:
            raise click.ClickException(str(error)) from error

    @bentoml.on_startup
    async def start(self) -> None:
        """Loads the models."""
        # What was imported stays for ever: a full collection that looks through it stops every request for some 60 ms.
        gc.collect()
        gc.freeze()
        end_with_parent()
        await self.serving.start()
        if self.serving.state is State.READY:
            settings = self.serving.settings
            drain_on_stop(_drain, settings.drain_pause_ms / 1e3, settings.drain_timeout_ms / 1e3, _workers() == 1)
        no_triage = why_no_triage(self.serving.settings)
        if no_triage is not None:
            logger.info("%s", no_triage)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Answers what was accepted."""
        await self.serving.stop()
        if Lathe.issuer is not None:  # type: ignore[attr-defined]  # the decorator makes it a Service
            Lathe.issuer.close()  # type: ignore[attr-defined]  # as above
        if Lathe.audit is not None:  # type: ignore[attr-defined]  # as above
            await asyncio.to_thread(Lathe.audit.close)  # type: ignore[attr-defined]  # as above
        await Lathe.limiter.close()  # type: ignore[attr-defined]  # the decorator makes it a Service

    def __is_alive__(self) -> bool:
        return self.serving.alive

    def __is_ready__(self) -> bool:
        return self.serving.ready
