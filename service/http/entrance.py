"""The way in: what a request's headers decide, each part of it once.

headers ──▶ endpoint ──▶ key, scope ──▶ deadline ──▶ is there capacity? ──▶ Entry
                           └──────────────┴──────────────┴──▶ Entry with the error that is its answer
"""

import itertools
import logging
import math
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from service.access.caller import ANYBODY, Caller
from service.access.local import Access, LocalOnly
from service.errors import InternalError, ServiceError
from service.http.body import TIMEOUT, timeout_ms
from service.http.messages import Headers, Parameters
from service.http.routing import OWN_ERRORS, Endpoint, ErrorShape, Routes
from service.redaction import describe_exception

logger = logging.getLogger(__name__)

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")  # what can do no harm in a log; others are replaced


@dataclass(slots=True)
class Entry:
    """What was decided about a request when its headers were there.

    Attributes:
        id: the X-Request-Id of its answer: the client's own, or one that no other request has.
        since: when that was, on the clock of time.monotonic().
        endpoint: who answers; None: the app behind the gate.
        parameters: what stands in the path for `{name}`, by name.
        headers: by lower-case name; of equal ones the first.
        caller: who asks.
        deadline: on the same clock; there is no answer after it. Requests that ask no model have none.
        error: why it is not served; None where it is.
    """

    id: str
    since: float
    endpoint: Endpoint | None
    parameters: Parameters
    headers: Mapping[bytes, bytes]
    caller: Caller = ANYBODY
    deadline: float = math.inf
    error: ServiceError | None = None


class Entrance:
    """Decides about every request.

    Args:
        timeout_ms: what a request has that asks for no less.
    """

    def __init__(self, routes: Routes, access: Access, timeout_ms: int) -> None:
        self._routes = routes
        self._access = access
        self._timeout_ms = timeout_ms
        self._prefix = secrets.token_hex(10)  # as unique as a random id for each request, for less
        self._numbers = itertools.count()

    def enter(self, method: str, path: str, headers: Headers) -> Entry:
        """Decides about a request; raises nothing."""
        endpoint, parameters = self._routes.find(method, path)
        found = dict(reversed(headers))
        entry = Entry(self._id(found), time.monotonic(), endpoint, parameters, found)
        try:
            if endpoint is None or not endpoint.public:
                entry.caller = self._caller(entry.headers)
            if endpoint is not None and endpoint.scope is not None:
                entry.caller.require_scope(endpoint.scope)
            if endpoint is not None and endpoint.admit is not None:
                timeout = entry.headers.get(TIMEOUT)
                asked = None if timeout is None else timeout.decode("latin-1")
                entry.deadline = entry.since + timeout_ms(asked, self._timeout_ms) / 1e3
                endpoint.admit(entry.caller.tenant, entry.deadline)
        except ServiceError as error:
            entry.error = error.with_traceback(None)  # which holds this frame, and that the entry
        except Exception as error:
            logger.error("request %s failed: %s", entry.id, describe_exception(error))
            entry.error = InternalError("the service failed; its log has the reason under this request_id")
        return entry

    def errors(self, method: str, path: str) -> ErrorShape:
        """How errors look there."""
        endpoint, _ = self._routes.find(method, path)
        return OWN_ERRORS if endpoint is None else endpoint.errors

    def new_id(self) -> str:
        """An id that no other request has."""
        return f"{self._prefix}{next(self._numbers):012x}"

    def _id(self, headers: Mapping[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        return self.new_id() if given is None or _GIVEN_ID.fullmatch(given) is None else given.decode()

    def _caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        if isinstance(self._access, LocalOnly):
            self._access.require_host(headers)
            return ANYBODY
        value = headers.get(b"authorization")
        return self._access.authenticate(None if value is None else value.decode("latin-1"))
