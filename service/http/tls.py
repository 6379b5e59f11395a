"""TLS, ended by the service itself: a connection begins with a handshake, and is then HttpProtocol's.

What listens is a plain socket: so TLS is a setting, whichever command starts the service, its handshakes have a
deadline and count among the connections, and files that are replaced are taken without a restart.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from uvicorn.server import ServerState

from service.access.secret_file import read_secret_file, stamp_of
from service.errors import ConfigurationError
from service.http.connection import HttpProtocol
from service.http.connections import Connections, Reason, State, address_of
from service.redaction import describe_exception
from service.settings import Settings

logger = logging.getLogger(__name__)

_RELOAD_S = 10.0
_NEVER_S = 3600.0  # the deadline is that of the state


class Tls:
    """How connections are encrypted. The files are read again when they change, as they do when a certificate is
    renewed; what cannot be read is an error in the log, and what was read last stays in force.

    Args:
        certificate: PEM: the server's, and those between it and a root.
        key: PEM, its private key; None: it is in the same file.
        client_ca: PEM, the authorities of one of which a client must have a certificate; None: none is asked for.

    Raises:
        ConfigurationError: they cannot be read, or do not belong together.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None,
        client_ca: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._clock = clock
        self._seen = self._stamps()
        self._looked_at = clock()
        self._context, self._expires = self._read()

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """That of the settings; None where there is no certificate."""
        if settings.tls_certificate is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        self._reload()
        return self._context

    @property
    def expires(self) -> float:
        """When the certificate does, in seconds since 1970."""
        self._reload()
        return self._expires

    def _reload(self) -> None:
        now = self._clock()
        if now - self._looked_at < _RELOAD_S:
            return
        self._looked_at = now
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._context, self._expires = self._read()
        except ConfigurationError as error:
            logger.error("%s; the certificate that was read before stays in force", error)
        else:
            logger.info("%s was read again", self._certificate)

    def _stamps(self) -> list[tuple[int, ...] | None]:
        return [stamp_of(path) for path in (self._certificate, self._key, self._client_ca) if path is not None]

    def _read(self) -> tuple[ssl.SSLContext, float]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        expires = _expiry(self._certificate)
        key = self._key or self._certificate
        _read_pem(key, "LATHE_TLS_KEY")
        try:
            context.load_cert_chain(self._certificate, key, password=_no_password)
        except _Encrypted:
            raise ConfigurationError(
                f"LATHE_TLS_KEY={str(key)!r}: the key is encrypted; give it decrypted, readable for the service alone"
            ) from None
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"LATHE_TLS_KEY={str(key)!r}: not the private key, in PEM, of {self._certificate} ({_reason(error)})"
            ) from None
        if self._client_ca is not None:
            _read_pem(self._client_ca, "LATHE_TLS_CLIENT_CA")
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                raise ConfigurationError(
                    f"LATHE_TLS_CLIENT_CA={str(self._client_ca)!r}: no certificates in PEM ({_reason(error)})"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context, expires


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted  # OpenSSL would ask for it on the terminal


def _read_pem(path: Path, setting: str) -> bytes:
    try:
        return read_secret_file(path, "a file in PEM")
    except OSError as error:
        raise ConfigurationError(f"{setting}={str(path)!r}: cannot be read: {error.strerror}") from None


def _expiry(path: Path) -> float:
    content = _read_pem(path, "LATHE_TLS_CERTIFICATE")
    try:
        return x509.load_pem_x509_certificate(content).not_valid_after_utc.timestamp()
    except ValueError:
        raise ConfigurationError(f"LATHE_TLS_CERTIFICATE={str(path)!r}: not a certificate in PEM") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")


class Handshake(asyncio.Protocol):
    """A connection whose handshake is not done: made by uvicorn in place of an HttpProtocol, and followed by one.

    Its socket goes on under a transport of its own. `start_tls` on this one would lose what the client has sent before
    that is called: uvloop reads, whatever `connection_made` says.

    Args:
        then: makes that.
    """

    def __init__(
        self,
        server_state: ServerState,
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        tls: Tls,
        connections: Connections,
        then: Callable[..., HttpProtocol],
        **arguments: Any,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.state = State.HANDSHAKE
        self.due = self.loop.time() + connections.seconds[self.state]
        self._tls = tls
        self._all = connections
        self._server = server_state
        self._http = then(server_state=server_state, _loop=_loop, **arguments)
        self._task: asyncio.Task[None]
        self.address = ""
        self._socket: socket.socket
        self._reason: Reason | None = None
        self._stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        """A client has connected."""
        self.address = address_of(transport)
        try:
            self._socket = transport.get_extra_info("socket").dup()
        except OSError:  # there is no descriptor left
            return
        finally:
            transport.close()
        self._task = self.loop.create_task(self._shake_hands())
        self._task.add_done_callback(self._done)
        self._server.tasks.add(self._task)
        self._server.connections.add(self)  # type: ignore[arg-type]  # it wants no more of one than `shutdown`
        self._all.add(self)
        self._all.wait(self)

    def shutdown(self) -> None:
        """The service stops: a handshake that is under way is finished."""
        self._stopping = True

    def expire(self) -> None:
        """It has taken too long."""
        self.end(Reason.TIMEOUT)

    def give_up_body(self) -> None:
        """There is none."""

    def end(self, reason: Reason) -> None:
        """Ends it at once."""
        self._reason = self._reason or reason
        self._task.cancel()

    async def _shake_hands(self) -> None:
        """Ends when HttpProtocol has its connection."""
        await self.loop.connect_accepted_socket(
            lambda: self._http, self._socket, ssl=self._tls.context, ssl_handshake_timeout=_NEVER_S
        )

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._server.tasks.discard(task)
        self._server.connections.discard(self)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._socket.close()
            self._all.remove(self, self._reason or Reason.REFUSED)
        else:
            self._all.leave(self)
            if self._stopping:
                self._http.shutdown()
        if error is not None and not isinstance(error, OSError):  # what a client does wrong is nothing for a log
            logger.error("a handshake failed: %s", describe_exception(error))
