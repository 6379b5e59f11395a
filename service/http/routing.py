"""Who answers what: the endpoints, and the table that finds one by method and path."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel

from service.access.caller import Scope
from service.errors import ErrorResponse, MethodNotAllowed, NotFound, ServiceError
from service.http.messages import Parameters, Request, Response
from service.http.operation import Operation
from service.tenant import Tenant

Admit = Callable[[Tenant, float], None]  # of that tenant, with that deadline
Handler = Callable[[Request], Awaitable[Response]]

_NO_PARAMETERS: Parameters = {}


@dataclass(frozen=True)
class ErrorShape:
    """How a protocol writes an error.

    Attributes:
        model: its schema.
        body: its JSON, of an error and the request's id.
    """

    model: type[BaseModel]
    body: Callable[[ServiceError, str], Mapping[str, object]]


OTHER = "other"  # the name in the metrics of what is no endpoint
OWN_ERRORS = ErrorShape(ErrorResponse, ServiceError.body)


@dataclass(frozen=True)
class Endpoint:
    """Who answers a method of a path; HEAD is a GET whose body the server leaves out.

    Attributes:
        path: as in OpenAPI, `/a/{name}`; also its name in the metrics, which are thereby as many as the paths.
        handler: None: the app behind the gate.
        operation: what the OpenAPI document says of it; None: nothing.
        scope: what a key must have been made for; None: any key will do.
        public: whether it needs no key.
        errors: how its protocol writes them.
        admit: raises Overloaded where it is clear, before the body is there, that the request will be rejected.
    """

    method: str
    path: str
    handler: Handler | None
    operation: Operation | None = None
    public: bool = False
    errors: ErrorShape = OWN_ERRORS
    admit: Admit | None = None
    scope: Scope | None = None


@dataclass(frozen=True)
class Group:
    """Endpoints that a reader of the documents wants side by side.

    Attributes:
        about: what they are for, in Markdown.
        below: what begins with it and is unknown has the errors of these endpoints; None: no path.
    """

    title: str
    about: str
    endpoints: Sequence[Endpoint]
    below: str | None = None


class _Methods:
    """Who answers the methods of one path."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

        async def refuse(_: Request) -> Response:
            raise MethodNotAllowed(
                "this path does not take that method; see GET /docs.json", ", ".join(sorted(endpoints))
            )

        self._others = replace(next(iter(endpoints.values())), handler=refuse, operation=None, admit=None)

    def of(self, method: str) -> Endpoint:
        return self._endpoints.get("GET" if method == "HEAD" else method, self._others)


async def _refuse_unknown(_: Request) -> Response:
    raise NotFound("no such path; GET /docs.json lists them")


class Routes:
    """Finds the endpoint of a request.

    Args:
        below: how protocols write errors of paths that begin so, and that no endpoint has.
    """

    def __init__(self, endpoints: Iterable[Endpoint], below: Mapping[str, ErrorShape] | None = None) -> None:
        paths: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        methods = {path: _Methods(by_method) for path, by_method in paths.items()}
        self._unknown = {
            start: Endpoint("GET", OTHER, _refuse_unknown, errors=errors) for start, errors in (below or {}).items()
        }
        self._exact = {path: found for path, found in methods.items() if "{" not in path}
        self._templates = [(path.split("/"), found) for path, found in methods.items() if "{" in path]

    def find(self, method: str, path: str) -> tuple[Endpoint | None, Parameters]:
        """Who answers, and what the path's parameters are; None where the path is unknown, and no protocol's.

        A method that the path does not take has an endpoint, too: one that says so, with the key and the errors of the
        path's first.
        """
        found = self._exact.get(path)
        if found is not None:
            return found.of(method), _NO_PARAMETERS
        parts = path.split("/")
        for template, candidate in self._templates:
            if len(template) == len(parts):
                pairs = list(zip(template, parts, strict=True))
                if all(part and name[:1] == "{" if name != part else True for name, part in pairs):
                    return candidate.of(method), {name[1:-1]: part for name, part in pairs if name[:1] == "{"}
        return next((one for start, one in self._unknown.items() if path.startswith(start)), None), _NO_PARAMETERS
