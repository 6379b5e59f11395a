"""The gate in front of everything, BentoML's own pages included: who may enter, what is measured, how errors look.

Every answer carries X-Request-Id. Whatever fails behind the gate leaves it in the one shape of service/errors.py; a
traceback never reaches uvicorn's log, because it may quote a client's text.
"""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from service.errors import InternalError, ServiceError, for_status
from service.lifecycle import Serving
from service.limits import ClientGone, Receive
from service.privacy import describe_exception

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PROBES = frozenset({"/livez", "/readyz", "/healthz"})
ROUTES = frozenset({"/v1/classify", "/v1/triage", "/v1/models", "/metrics", "/docs.json", "/", *PROBES})
_CLIENT_CLOSED = 499  # nginx's number for a client that left before its answer


def error_response(request: Request, error: ServiceError) -> Response:
    """Renders an error, and leaves its code where the gate's metrics find it."""
    request.scope["lathe.code"] = error.code
    return Response(
        orjson.dumps(error.body(request.scope["lathe.request_id"])),
        error.status,
        headers={**error.headers, "content-type": "application/json"},
    )


class Gate:
    """ASGI middleware. `serving` gives the service's state, which does not exist yet when this is made."""

    def __init__(self, app: App, serving: Callable[[], Serving]) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        scope["lathe.request_id"] = request_id = uuid.uuid4().hex
        scope["lathe.code"] = "ok"
        answer = _Answer(scope, send)
        try:
            scope["lathe.tenant"] = self._authenticate(scope)
            await self._app(scope, receive, answer.send)
        except ClientGone:
            scope["lathe.code"], answer.status = "client_gone", _CLIENT_CLOSED
        except ServiceError as error:
            await answer.fail(error)
        except Exception as error:
            logger.error("request %s failed: %s", request_id, describe_exception(error))
            await answer.fail(InternalError("the service failed; its log has the reason under this request_id"))
        finally:
            route = scope["path"] if scope["path"] in ROUTES else scope.get("lathe.route", "other")
            seconds = time.perf_counter() - start
            self._serving().telemetry.request(route, answer.status, scope["lathe.code"], seconds)

    def _authenticate(self, scope: MutableMapping[str, Any]) -> str:
        """The name of the key that asks; empty where none is needed."""
        authenticator = self._serving().authenticator
        if authenticator is None or scope["path"] in PROBES:
            return ""
        return authenticator.authenticate(Headers(scope=scope).get("authorization"))


class _Answer:
    """The answer on its way out: adds the request's id, and replaces error bodies that are not in our shape."""

    def __init__(self, scope: MutableMapping[str, Any], send: Send) -> None:
        self._scope = scope
        self._send = send
        self._started = False
        self._replaced = False
        self.status = 500

    async def send(self, message: Message) -> None:
        """Passes a message on."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            if message["status"] >= 400 and headers.get("content-type") != "application/json":
                self._replaced = True
                await self.fail(for_status(message["status"]), allow=headers.get("allow"))
                return
            self._started = True
            self.status = message["status"]
            headers["X-Request-Id"] = self._scope["lathe.request_id"]
        if not self._replaced:
            await self._send(message)

    async def fail(self, error: ServiceError, allow: str | None = None) -> None:
        """Answers with an error, unless an answer is already under way; `allow` names the methods that a path takes."""
        if self._started:
            return
        self._started = True
        self.status = error.status
        response = error_response(Request(self._scope), error)
        response.headers["X-Request-Id"] = self._scope["lathe.request_id"]
        if allow is not None:
            response.headers["Allow"] = allow
        await self._send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self._send({"type": "http.response.body", "body": response.body})
