"""The gate for pages of other origins, where BentoML's configuration (`http.cors`) lets some of them ask."""

from collections.abc import Mapping
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from service.errors import ConfigurationError, ServiceError
from service.http.entrance import Entrance, Entry
from service.http.gate import Gate
from service.http.messages import ANSWER, Headers, Response

_LISTS = ("allow_origins", "allow_methods", "allow_headers", "expose_headers")


def cors_options(configured: Mapping[str, Any]) -> dict[str, Any]:
    """Options of starlette's middleware, in which a single name may stand for a list of one.

    Raises:
        ConfigurationError: they name no origin.
    """
    if "allow_origins" not in configured:
        raise ConfigurationError(
            "http.cors is enabled in BentoML's configuration and names no origin; set access_control_allow_origins"
        )
    return {name: [value] if name in _LISTS and isinstance(value, str) else value for name, value in configured.items()}


class CrossOrigin(CORSMiddleware):
    """A browser asks here before it sends such a request, without a key, and shows a page no answer, not even an
    error, that lacks its headers: so nothing is answered in front of this.

    Args:
        options: see `cors_options`.
    """

    def __init__(self, gate: Gate, entrance: Entrance, options: Mapping[str, Any]) -> None:
        super().__init__(gate, **options)
        self._gate = gate
        self._entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; an answer that goes past `send` would lack the headers."""
        scope.pop(ANSWER, None)
        await super().__call__(scope, receive, send)

    def enter(self, method: str, path: str, headers: Headers) -> Entry:
        """See Door."""
        return self._entrance.enter(method, path, headers)

    def reject(self, error: ServiceError, method: str, path: str) -> Response:
        """See Door."""
        return self._gate.reject(error, method, path)
