"""The gate in front of everything, BentoML's own pages included: who may enter, what is measured, how errors look.

    headers ──entrance──▶ its endpoint ──▶ handler ──▶ answer
                  │            └─ no handler, or no endpoint ──▶ the app behind ──▶ answer, its error pages replaced
                  └─ not served ──▶ answer, at once

Every answer carries X-Request-Id. Whatever fails behind the gate leaves it in the one shape of service/errors.py, or in
that of the protocol whose route it is; a traceback never reaches uvicorn's log, because it may quote a client's text.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from service.access.limits import Limiter
from service.audit import AuditLog, Record
from service.errors import InternalError, ServiceError, for_status
from service.http.body import ClientGone
from service.http.entrance import Entrance, Entry
from service.http.messages import ANSWER, ENTRY, GONE, App, Headers, Message, Receive, Request, Response, Send
from service.http.routing import OTHER, OWN_ERRORS, ErrorShape, Handler
from service.http.turns import Turns
from service.redaction import describe_exception
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

# Version 00, and a later one, which may say more behind it.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_CLIENT_CLOSED = 499  # nginx's number for a client that left before its answer


class Gate:
    """An ASGI app.

    Args:
        app: answers what has no handler.
        entrance: decides who enters.
        limiter: counts what keys ask models for; None: nobody does.
        audit: is told of every request; None: there is none.
    """

    def __init__(
        self,
        app: App,
        entrance: Entrance,
        telemetry: Telemetry,
        limiter: Limiter | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._audit = audit
        self._app = app
        self._limiter = limiter
        self._turns = Turns()
        self._entrance = entrance
        self._telemetry = telemetry

    def enter(self, method: str, path: str, headers: Headers) -> Entry | Response:
        """What a connection asks when a request's headers are there, and hands over with the request as ENTRY.

        Where they say that it is not served, the answer, before its body is there and a task is made for it: in
        overload most requests are such, and what they cost is taken from the others (benchmarks/serving/overload.py).
        """
        entry = self._entrance.enter(method, path, headers)
        if entry.error is None:
            return entry
        self._done(entry, int(entry.error.status), entry.error.code)
        return _completed(_of_error(entry.error, entry.id, _errors(entry)), entry.id)

    def reject(self, error: ServiceError, method: str, path: str) -> Response:
        """The answer to what came on a connection and is no request; see Door."""
        self._telemetry.request(OTHER, error.status, error.code, 0.0)
        request_id = self._entrance.new_id()
        if self._audit is not None:
            self._audit.note(Record(request_id, "", OTHER, int(error.status), error.code, 0.0))
        return _completed(_of_error(error, request_id, self._entrance.errors(method, path)), request_id)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry: Entry | None = scope.get(ENTRY)
        if entry is None:  # of a server with other connections
            entry = self._entrance.enter(scope["method"], scope["path"], scope["headers"])
        request: Request | None = None
        reply = _Reply(entry.id, send, scope.get(ANSWER), _errors(entry))
        try:
            if entry.error is not None:
                await reply.fail(entry.error)
            elif entry.endpoint is None or entry.endpoint.handler is None:
                await self._app(scope, receive, reply.pass_on)
            else:
                client = scope.get("client")
                request = Request(
                    entry.id,
                    entry.headers,
                    receive,
                    entry.caller,
                    entry.parameters,
                    client[0] if client else None,
                    scope.get(GONE),
                    entry.deadline,
                    self._turns,
                )
                await reply.send(await self._answer(entry, entry.endpoint.handler, request))
        except ClientGone:
            reply.code, reply.status = "client_gone", _CLIENT_CLOSED
        except ServiceError as error:
            # Its traceback holds the frames, and they the body; and the connection may hold the error.
            await reply.fail(error.with_traceback(None))
        except Exception as error:
            logger.error("request %s failed: %s", entry.id, describe_exception(error))
            await reply.fail(InternalError("the service failed; its log has the reason under this request_id"))
        finally:
            self._done(entry, reply.status, reply.code, request)

    def _done(self, entry: Entry, status: int, code: str, request: Request | None = None) -> None:
        """Measures and records a request that has its answer."""
        name = OTHER if entry.endpoint is None else entry.endpoint.path
        seconds = time.monotonic() - entry.since
        self._telemetry.request(name, status, code, seconds)
        if self._audit is None or (status < 400 and entry.endpoint is not None and entry.endpoint.public):
            return  # a probe that asks again and again, or a page that holds nothing
        of_admin = entry.endpoint is not None and entry.endpoint.scope == "admin"
        self._audit.note(
            Record(
                entry.id,
                entry.caller.name,
                name,
                status,
                code,
                seconds,
                asked=() if request is None else request.asked,
                tokens=0 if request is None else request.tokens,
                model=entry.parameters.get("name", "") if of_admin else "",
                bundle="" if request is None else request.bundle,
                trace=_trace_id(entry.headers),
            )
        )

    async def _answer(self, entry: Entry, handler: Handler, request: Request) -> Response:
        """The handler's, within the limits of the key."""
        asks = entry.endpoint is not None and entry.endpoint.scope == "predict"
        if self._limiter is None or not asks or not entry.caller.name:
            return await handler(request)
        await self._limiter.enter(entry.caller)
        try:
            return await handler(request)
        finally:
            await self._limiter.leave(entry.caller, request.tokens)
            self._telemetry.used(entry.caller.name, request.tokens)


def _trace_id(headers: Mapping[bytes, bytes]) -> str:
    """Of W3C Trace Context's `traceparent`; empty where there is none, or it is not as that says."""
    found = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return "" if found is None else found[1].decode()


def _errors(entry: Entry) -> ErrorShape:
    """How errors look where the request goes."""
    return OWN_ERRORS if entry.endpoint is None else entry.endpoint.errors


class _Reply:
    """The answer on its way out: adds the request's id, and replaces error pages that are not in our shape."""

    def __init__(
        self, request_id: str, send: Send, answer: Callable[[Response], None] | None, errors: ErrorShape
    ) -> None:
        self._id = request_id
        self._send = send
        self._answer = answer  # None: a server with other connections
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
        if self._answer is not None:
            self._answer(response)
            return
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
