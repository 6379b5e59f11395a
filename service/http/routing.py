"""Who answers what: the endpoints, and the table that finds one by its path."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from service.errors import ServiceError
from service.http.messages import Parameters, Request, Response

Admit = Callable[[str, str | None], None]  # of the key of that name, with that X-Request-Timeout-Ms
Handler = Callable[[Request], Awaitable[Response]]
ErrorBody = Callable[[ServiceError, str], Mapping[str, object]]  # of the request with that id

_NO_PARAMETERS: Parameters = {}


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
