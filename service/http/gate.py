"""The gate in front of everything, BentoML's own pages included: who may enter, what is measured, how errors look.

    request ──key──▶ its endpoint ──▶ handler ──▶ answer
                         └─ no handler, or no endpoint ──▶ the app behind ──▶ answer, its error pages replaced

Every answer carries X-Request-Id. Whatever fails behind the gate leaves it in the one shape of service/errors.py, or in
that of the protocol whose route it is; a traceback never reaches uvicorn's log, because it may quote a client's text.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from service.access.keys import Authenticator
from service.errors import InternalError, Overloaded, ServiceError, for_status
from service.http.body import TIMEOUT, ClientGone
from service.http.messages import GONE, App, Headers, Message, Receive, Request, Response, Send
from service.http.routing import OWN_ERRORS, ErrorShape, Routes
from service.redaction import describe_exception
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

_CLIENT_CLOSED = 499  # nginx's number for a client that left before its answer


class Gate:
    """An ASGI app.

    Args:
        app: answers what has no handler.
        authenticator: None where no key is needed.
    """

    def __init__(self, app: App, routes: Routes, telemetry: Telemetry, authenticator: Authenticator | None) -> None:
        self._app = app
        self._routes = routes
        self._telemetry = telemetry
        self._authenticator = authenticator
        self._prefix = secrets.token_hex(10)  # as unique as a random id for each request, for less
        self._numbers = itertools.count()

    def refuse(self, method: str, path: str, headers: Headers) -> Response | None:
        """The answer to a request that would be refused for want of room, before its body is there and a task is made
        for it; None where it may go on, if only to another error."""
        endpoint, _ = self._routes.find(method, path)
        if endpoint is None or endpoint.admit is None:
            return None
        start = time.perf_counter()
        found = dict(reversed(headers))
        timeout = found.get(TIMEOUT)
        try:
            endpoint.admit(self._tenant(found), None if timeout is None else timeout.decode("latin-1"))
        except Overloaded as error:
            self._telemetry.request(endpoint.path, error.status, error.code, time.perf_counter() - start)
            request_id = self._new_id()
            return _completed(_of_error(error, request_id, endpoint.errors), request_id)
        except Exception:  # no key, or worse: it comes to the same when the request is served, and is told there
            return None
        return None

    def reject(self, error: ServiceError) -> Response:
        """The answer to what came on a connection and is no request."""
        self._telemetry.request("other", error.status, error.code, 0.0)
        request_id = self._new_id()
        return _completed(_of_error(error, request_id, OWN_ERRORS), request_id)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = self._new_id()
        endpoint, parameters = self._routes.find(scope["method"], scope["path"])
        reply = _Reply(request_id, send, OWN_ERRORS if endpoint is None else endpoint.errors)
        try:
            headers = dict(reversed(scope["headers"]))
            tenant = "" if endpoint is not None and endpoint.public else self._tenant(headers)
            if endpoint is None or endpoint.handler is None:
                scope["lathe.tenant"] = tenant
                await self._app(scope, receive, reply.pass_on)
            else:
                client = scope.get("client")
                address = client[0] if client else None
                request = Request(request_id, headers, receive, tenant, parameters, address, scope.get(GONE))
                await reply.send(await endpoint.handler(request))
        except ClientGone:
            reply.code, reply.status = "client_gone", _CLIENT_CLOSED
        except ServiceError as error:
            await reply.fail(error)
        except Exception as error:
            logger.error("request %s failed: %s", request_id, describe_exception(error))
            await reply.fail(InternalError("the service failed; its log has the reason under this request_id"))
        finally:
            name = "other" if endpoint is None else endpoint.path
            self._telemetry.request(name, reply.status, reply.code, time.perf_counter() - start)

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._numbers):012x}"

    def _tenant(self, headers: Mapping[bytes, bytes]) -> str:
        """The name of the key that asks; empty where none is needed."""
        if self._authenticator is None:
            return ""
        value = headers.get(b"authorization")
        return self._authenticator.authenticate(None if value is None else value.decode("latin-1"))


class _Reply:
    """The answer on its way out: adds the request's id, and replaces error pages that are not in our shape."""

    def __init__(self, request_id: str, send: Send, errors: ErrorShape) -> None:
        self._id = request_id
        self._send = send
        self._errors = errors
        self._started = False
        self._replaced = False
        self.status = 500
        self.code = "ok"

    async def send(self, response: Response) -> None:
        """Sends what a handler gave."""
        response = _completed(response, self._id)
        self._started = True
        self.status = response.status
        await self._send({"type": "http.response.start", "status": response.status, "headers": response.headers})
        await self._send({"type": "http.response.body", "body": response.body})

    async def pass_on(self, message: Message) -> None:
        """Sends a message of the app behind."""
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            if message["status"] >= 400 and headers.get(b"content-type") != b"application/json":
                self._replaced = True
                await self.fail(for_status(message["status"], headers.get(b"allow", b"").decode("latin-1")))
                return
            self._started = True
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id.encode())]
        if not self._replaced:
            await self._send(message)

    async def fail(self, error: ServiceError) -> None:
        """Answers with an error, unless an answer is already under way."""
        self.code = error.code
        if not self._started:
            await self.send(_of_error(error, self._id, self._errors))


def _of_error(error: ServiceError, request_id: str, errors: ErrorShape) -> Response:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    return Response.json(errors.body(error, request_id), int(error.status), headers)


def _completed(response: Response, request_id: str) -> Response:
    """With the headers that every answer has."""
    length = (b"content-length", b"%d" % len(response.body))
    return Response(response.status, (*response.headers, length, (b"x-request-id", request_id.encode())), response.body)
