"""Who may ask where there are no keys: programs on this machine, and not what a browser on it is made to send.

A page that somebody visits can have their browser send requests to this machine. Under a name of its own that it has
resolve to 127.0.0.1 it can read the answers, too (DNS rebinding); the Host header then has that name.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from service.access.caller import Caller
from service.errors import Forbidden

# What a browser says of the page that it sends a POST for, and what a proxy says of a client elsewhere.
_NOT_FROM_HERE = (b"origin", b"sec-fetch-site", b"forwarded", b"x-forwarded-for", b"x-real-ip")


class LocalOnly:
    """Refuses what does not come from a program on this machine.

    Args:
        hosts: further names that Host headers may have, such as those of a proxy on this machine.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = frozenset(map(str.lower, hosts))
        self._is_allowed = lru_cache(256)(self._allows)

    def require_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuses a request that was sent to another name than this machine's.

        Raises:
            Forbidden: it was.
        """
        host = headers.get(b"host")
        if host is not None and not self._is_allowed(host):
            raise Forbidden(
                "the Host header does not name this machine, and there are no keys; ask 127.0.0.1, add the name to "
                "LATHE_ALLOWED_HOSTS, or set LATHE_KEYS_FILE"
            )

    def require_program(self, client: str | None, headers: Mapping[bytes, bytes]) -> None:
        """Refuses a call that was not made by a program here.

        Raises:
            Forbidden: it came from another machine, through a proxy, or from a page in a browser.
        """
        if not _is_loopback(client or "") or any(name in headers for name in _NOT_FROM_HERE):
            raise Forbidden(
                "without keys, versions can be changed only by a program on this machine, not through a proxy or a "
                "browser; set LATHE_KEYS_FILE"
            )

    def _allows(self, host: bytes) -> bool:
        name, _, port = host.decode("latin-1").lower().rpartition(":")
        if not port.isdecimal():  # none: what follows the last colon is a part of the name
            name = f"{name}:{port}" if name else port
        name = name.removesuffix(".")
        if name == "localhost" or name in self._hosts:
            return True
        return _is_loopback(name.strip("[]"))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name, or what a proxy wrote in place of an address
        return False


class Credentials(Protocol):
    """What decides by the Authorization header: keys, tokens, or both."""

    def authenticate(self, authorization: str | None) -> Caller:
        """Who asks.

        Raises:
            Unauthorized: nobody who is let in.
            Forbidden: somebody who may do nothing.
        """


Access = Credentials | LocalOnly
"""Who may ask: whoever has a key or a token, or where there are none, programs on this machine."""
