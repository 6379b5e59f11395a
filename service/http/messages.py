"""What goes through the gate: a request on its way in, a response on its way out.

Plain objects in place of a framework's: in front of a small model, those cost more than the model does.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson

from service.access.caller import Caller
from service.http.turns import Turns

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Parameters = Mapping[str, str]
Headers = Sequence[tuple[bytes, bytes]]
Gone = asyncio.Future[None]  # done when a client's connection has ended
GONE = "lathe.gone"  # where it is in an ASGI scope
ENTRY = "lathe.entry"  # where what the entrance decided is there
ANSWER = "lathe.answer"  # where what sends a Response is there, in place of the messages of `send`

_JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class Request:
    """One HTTP request behind the gate.

    Attributes:
        id: the X-Request-Id of its answer.
        headers: by lower-case name; of equal ones the first.
        caller: who asks.
        parameters: what stands in the path for `{name}`, by name.
        client: address that it comes from; None where the server does not know.
        gone: done when the client leaves; None where the server does not tell.
        deadline: on the clock of time.monotonic(); there is no answer after it.
        turns: of large bodies; None: they take none.
        tokens: that its texts had for the models; who asks them counts them.
        asked: models that answered, with their versions.
        bundle: that it asked to load.
    """

    id: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    caller: Caller
    parameters: Parameters
    client: str | None = None
    gone: Gone | None = None
    deadline: float = math.inf
    turns: Turns | None = None
    tokens: int = 0
    asked: Sequence[tuple[str, str]] = ()
    bundle: str = ""

    def header(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(slots=True)
class Response:
    """A complete answer.

    Attributes:
        headers: with lower-case names; the gate adds Content-Length and X-Request-Id.
    """

    status: int
    headers: Headers
    body: bytes

    @classmethod
    def json(cls, content: object, status: int = 200, headers: Headers = ()) -> Self:
        """One whose body is JSON."""
        return cls(status, (_JSON, *headers), orjson.dumps(content))
