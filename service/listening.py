"""Where the service listens: what is refused before it does."""

import ipaddress
import socket

from service.errors import ConfigurationError
from service.settings import Settings


def resolve(host: str) -> str:
    """The address of a host's name, or the address itself; an IPv4 one where there are both.

    Raises:
        ConfigurationError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the host {host!r} has no address ({error}); listen on --host 127.0.0.1") from error
    return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])


def require_private_or_keys(host: str, settings: Settings) -> None:
    """Refuses to listen where strangers can reach it without asking them for a key.

    Raises:
        ConfigurationError: names the address and both remedies; or it is no address.
    """
    if not settings.asks_who and not _address(host).is_loopback:
        raise ConfigurationError(
            f"the address {host} can be reached from other machines and there are no keys; "
            "listen on --host 127.0.0.1, or set LATHE_KEYS_FILE to a file made by lathe keys add, or LATHE_JWT_ISSUER"
        )


def require_free(host: str, port: int) -> None:
    """Refuses an address that cannot be listened on now.

    Raises:
        ConfigurationError: names it and what is in the way.
    """
    family = socket.AF_INET if _address(host).version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: not what is closing
            trial.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --port"
        ) from error


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        raise ConfigurationError(
            f"{host!r} is no IP address; listen on --host 127.0.0.1, or start with lathe serve, which takes names"
        ) from None
