"""What the gate and the handlers hand each other: a request, its answer, and the table of who answers what.

Plain objects in place of a framework's: in front of a small model, those cost more than the model does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.errors import ServiceError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Parameters = Mapping[str, str]
Gone = asyncio.Future[None]  # done when a client's connection has ended
GONE = "lathe.gone"  # where it is in an ASGI scope

_NO_PARAMETERS: Parameters = {}


@dataclass(slots=True)
class Request:
    """One HTTP request behind the gate.

    Attributes:
        id: the X-Request-Id of its answer.
        headers: by lower-case name; of equal ones the first.
        tenant: name of the key that asks; empty where none is needed.
        parameters: what stands in the path for `{name}`, by name.
        client: address that it comes from; None where the server does not know.
        gone: done when the client leaves; None where the server does not tell.
    """

    id: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    tenant: str
    parameters: Parameters
    client: str | None = None
    gone: Gone | None = None

    def header(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200, complete."""

    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


Headers = Sequence[tuple[bytes, bytes]]
Complete = tuple[int, Headers, bytes]  # status, headers and body of an answer
Admit = Callable[[str, str | None], None]  # of the key of that name, with that X-Request-Timeout-Ms
Handler = Callable[[Request], Awaitable[Answer]]
ErrorBody = Callable[[ServiceError, str], Mapping[str, object]]  # of the request with that id


def own_error_body(error: ServiceError, request_id: str) -> Mapping[str, object]:
    """The shape of errors everywhere but in another protocol's routes."""
    return error.body(request_id)


@dataclass(frozen=True)
class Endpoint:
    """Who answers a path.

    Attributes:
        path: as in OpenAPI, `/a/{name}`; also its name in the metrics, which are thereby as many as the endpoints.
        handlers: by method.
        public: whether it needs no key.
        shared: whether other methods are for the app behind the gate; otherwise they are refused.
        error_body: how its protocol writes an error.
        admit: raises Overloaded where it is clear, before the body of a POST is there, that it will be refused.
    """

    path: str
    handlers: Mapping[str, Handler]
    public: bool = False
    shared: bool = False
    error_body: ErrorBody = field(default=own_error_body)
    admit: Admit | None = None

    def handler(self, method: str) -> Handler | None:
        """Who answers a method; HEAD is a GET whose body the server leaves out."""
        return self.handlers.get("GET" if method == "HEAD" else method)


class Routes:
    """Finds the endpoint of a path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._exact: dict[str, Endpoint] = {}
        self._templates: list[tuple[list[str], Endpoint]] = []
        for endpoint in endpoints:
            if "{" in endpoint.path:
                self._templates.append((endpoint.path.split("/"), endpoint))
            else:
                self._exact[endpoint.path] = endpoint

    def find(self, path: str) -> tuple[Endpoint | None, Parameters]:
        """The endpoint of a path, and what its parameters are there."""
        endpoint = self._exact.get(path)
        if endpoint is not None:
            return endpoint, _NO_PARAMETERS
        parts = path.split("/")
        for template, candidate in self._templates:
            if len(template) == len(parts):
                pairs = list(zip(template, parts, strict=True))
                if all(part and name[:1] == "{" if name != part else True for name, part in pairs):
                    return candidate, {name[1:-1]: part for name, part in pairs if name[:1] == "{"}
        return None, _NO_PARAMETERS
