"""All connections of a process: the states of one, how long each may last, how many there may be, and who is closed."""

import asyncio
import ipaddress
import logging
import os
import resource
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Protocol, Self

from cachetools import TTLCache
from uvicorn.protocols.utils import get_remote_addr

from service.errors import ServiceError
from service.http.http1 import Bounds
from service.http.messages import Headers, Response
from service.settings import Settings
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

_WARN_S = 10.0
_WRONG_KEYS = 10  # one after another from an address
_FORGOTTEN_S = 60.0  # after the last of them
_LONGEST = 10  # times as long as others is the answer to them held back
_ADDRESSES = 10_000  # of which wrong keys are counted
_OTHER_DESCRIPTORS = 32  # models that are loaded, the keys file


class State(StrEnum):
    HANDSHAKE = "handshake"  # of TLS
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    WAITING = "waiting"
    ANSWERING = "answering"
    WRITING = "writing"
    CLOSING = "closing"


class Reason(StrEnum):
    """Why a connection was closed."""

    CLIENT = "client"  # by the client, or the network
    FULL = "full"  # there was no room for another one
    ASKED = "asked"  # the client wanted one answer
    IDLE = "idle"
    TIMEOUT = "timeout"  # a deadline of another state
    REFUSED = "refused"  # what came cannot be understood, or is too large
    UNREAD = "unread"  # it was answered before the end of its body, which was not worth waiting for
    FAILED = "failed"  # an answer could not be finished
    STOPPING = "stopping"  # the service is


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a connection may be in a state."""

    handshake: float = 10.0
    idle: float = 75.0  # nginx, and AWS's load balancers, reuse a connection that was idle for 60 seconds
    head: float = 10.0
    body: float = 10.0
    waiting: float = 600.0  # requests have a deadline of their own; to load a version takes its time
    answering: float = 600.0
    writing: float = 30.0
    closing: float = 5.0


@dataclass(frozen=True)
class Limits:
    """What a connection may take.

    Attributes:
        dropped_bytes: of a body that nobody reads any more.
        arriving_bytes: of all bodies whose end has not come.
        connections: open at the same time; fewer where the process may not have so many descriptors.
        hold_s: how long the answer to a request is held back that is rejected for lack of capacity or for its
            key, or refused with a large body; up to ten times as long for wrong keys that come one after another.
        held: so many such answers at the same time; those beyond are sent at once.
    """

    bounds: Bounds = field(default_factory=Bounds)
    deadlines: Deadlines = field(default_factory=Deadlines)
    dropped_bytes: int = 1048576
    arriving_bytes: int = 67108864
    connections: int = 10000
    hold_s: float = 0.1
    held: int = 1000

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the settings."""
        deadlines = Deadlines(
            handshake=settings.head_timeout_ms / 1e3,
            idle=settings.idle_timeout_ms / 1e3,
            head=settings.head_timeout_ms / 1e3,
            body=settings.request_timeout_ms / 1e3,
            writing=settings.write_timeout_ms / 1e3,
            closing=min(Deadlines.closing, settings.write_timeout_ms / 1e3),
        )
        bounds = Bounds(settings.max_head_bytes, settings.max_headers, settings.max_target_bytes)
        return cls(bounds, deadlines, settings.max_body_bytes, settings.queue_bytes, settings.max_connections)


class Door(Protocol):
    """What a connection asks of the gate behind it."""

    def enter(self, method: str, path: str, headers: Headers) -> object:
        """A Response: the answer to a request that is not served; else what goes with it to the app, as ENTRY."""

    def reject(self, error: ServiceError, method: str, path: str) -> Response:
        """The answer to what is no request.

        Args:
            method, path: what it began with, in the shape of whose errors it is answered; empty where nothing is known.
        """


class Connection(Protocol):
    """What all of them together know of one.

    Attributes:
        address: see `address_of`.
        due: the loop's time at which its state has taken too long.
    """

    address: str
    loop: asyncio.AbstractEventLoop
    state: State
    due: float

    def expire(self) -> None:
        """Its state has taken too long."""

    def end(self, reason: Reason) -> None:
        """Ends it at once."""

    def give_up_body(self) -> None:
        """There is no room for the rest of its body."""


class Connections:
    """All connections of a process, and the clock that holds them to their deadlines."""

    def __init__(self, door: Door, telemetry: Telemetry, limits: Limits) -> None:
        self.door = door
        self.limits = limits
        self.seconds: Mapping[State, float] = {state: getattr(limits.deadlines, state) for state in State}
        self._tick_s = min(0.5, min(self.seconds.values()) / 4)
        self.draining = False
        self._open: set[Connection] = set()
        self._of: Counter[str] = Counter()  # how many are open, by address
        # By address, the longest first; and the addresses, none of them empty.
        self._without_request: dict[str, dict[Connection, None]] = {}
        self._wrong_keys: TTLCache[str, int] = TTLCache(_ADDRESSES, _FORGOTTEN_S)
        self._arriving: OrderedDict[Connection, int] = OrderedDict()  # bytes of each; the longest on its way first
        self._arriving_bytes = 0
        self._held = 0
        self._most: int | None = None
        self._warned = -_WARN_S
        self._telemetry = telemetry
        telemetry.connections(State, self.count, Reason)
        self._clock: asyncio.TimerHandle | None = None

    def drain(self) -> None:
        """The service is about to stop: from now on an answer is the last of its connection."""
        self.draining = True

    def count(self, state: str) -> int:
        """How many are in a state."""
        return sum(connection.state == state for connection in self._open)

    def add(self, connection: Connection) -> None:
        """One has opened. If there is no room for it, one is ended that is without a request: of the address that has
        most, so that nobody takes the places of others, the one that is so for the longest."""
        if self._most is None:
            self._most = min(self.limits.connections, _spare_descriptors())
        self._open.add(connection)
        self._of[connection.address] += 1
        if len(self._open) > self._most:
            self._warn(connection.loop.time())
            last = self._gives_way() or connection
            self.leave(last)
            last.end(Reason.FULL)
        if self._clock is None:
            self._clock = connection.loop.call_later(self._tick_s, self._tick, connection.loop)

    def remove(self, connection: Connection, reason: Reason) -> None:
        """One has ended."""
        self.leave(connection)
        self._telemetry.connection_closed(reason)

    def leave(self, connection: Connection) -> None:
        """One is not among them any more: it has ended, or another follows on the same socket."""
        if connection in self._open:
            self._open.discard(connection)
            self._of[connection.address] -= 1
            if not self._of[connection.address]:
                del self._of[connection.address]
        self.begin(connection)
        self.arrived(connection)

    def wait(self, connection: Connection) -> None:
        """One is without a request."""
        self._without_request.setdefault(connection.address, {})[connection] = None

    def begin(self, connection: Connection) -> None:
        """One has a request."""
        waiting = self._without_request.get(connection.address, {})
        waiting.pop(connection, None)
        if not waiting:
            self._without_request.pop(connection.address, None)

    def arrive(self, connection: Connection, size: int) -> None:
        """So much of a body has come, and not its end.

        If there is no room for it, the body that is on its way for the longest is given up: many that never end would
        hold a body's largest size each.
        """
        self._arriving[connection] = self._arriving.get(connection, 0) + size
        self._arriving_bytes += size
        if self._arriving_bytes > self.limits.arriving_bytes:
            oldest = next(iter(self._arriving))
            self.arrived(oldest)
            oldest.give_up_body()

    def arrived(self, connection: Connection) -> None:
        """A body has ended, or is not kept any more."""
        self._arriving_bytes -= self._arriving.pop(connection, 0)

    def hold(self) -> bool:
        """Whether one may hold back its answer; it says `let_go` when it has sent it."""
        room = self._held < self.limits.held
        self._held += room
        return room

    def hold_s(self, address: str, status: int) -> float:
        """How long an answer to that address is held back; ten wrong keys in a row make it longer."""
        if status != HTTPStatus.UNAUTHORIZED:
            return self.limits.hold_s
        wrong = self._wrong_keys[address] = self._wrong_keys.get(address, 0) + 1
        return self.limits.hold_s * min(max(1, wrong // _WRONG_KEYS), _LONGEST)

    def let_go(self) -> None:
        """One holds nothing back any more."""
        self._held -= 1

    def _gives_way(self) -> Connection | None:
        """One of those without a request, see `add`; None where there is none."""
        address = max(self._without_request, key=self._of.__getitem__, default=None)
        return None if address is None else next(iter(self._without_request[address]))

    def _warn(self, now: float) -> None:
        if now - self._warned >= _WARN_S:
            self._warned = now
            logger.warning(
                "there is no room for more than %d connections (LATHE_MAX_CONNECTIONS, or descriptors: ulimit -n); for "
                "each new one, one without a request is closed, of the address that has most",
                self._most,
            )

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._clock = loop.call_later(self._tick_s, self._tick, loop) if self._open else None
        for connection in [connection for connection in self._open if connection.due <= now]:
            connection.expire()


def address_of(transport: asyncio.Transport) -> str:
    """Where a connection comes from, as `network_of` counts it; empty where that is not known."""
    client = get_remote_addr(transport)
    return "" if client is None else network_of(client[0])


def network_of(address: str) -> str:
    """What is counted as one address: of IPv6 the first 64 bits, of which a client may have as many as it likes."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


def _spare_descriptors() -> int:
    """How many connections this process can have, besides the files that it has open and will open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/dev/fd"))
    return max(allowed - taken - _OTHER_DESCRIPTORS, 1) if allowed != resource.RLIM_INFINITY else sys.maxsize
