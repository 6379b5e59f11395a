"""A client's connection, which uvicorn makes for each.

    ┌────────────────────────────────── all sent ─────────────────────────────────────┐
    ▼    first byte         empty line        last byte          first byte           │
    idle ─────────▶ head ─────────────▶ body ──────────▶ waiting ──────────▶ answering ──▶ writing
      │               └──────────────────┴──────────────────┴───────────────────┴────────────┤
      └────────────▶ closing ◀── a fault, a bound, "close", or the service stops ────────────┘

A state is passed over when what ends it is already there. Each has a deadline (connections.Deadlines), and each part of
a request a bound (http1.Bounds). `body` is also where the rest of a body is dropped whose request was answered early:
so much as any request may have, and no more. `writing` is an answer that the client does not fetch. `closing` has told
the client that nothing more will be answered, and drops what still comes, for a while: a socket that is closed with
something unread takes the answer away from its client.

What comes after a request is not looked at before that one's answer is sent, and not read beyond the piece that it came
in; of many requests that came so, some are served, and then others have their turn. What an app does not ask for of a
body is not read, either. An answer is sent in one piece where it is in one. The answer to a request that is rejected
for lack of capacity, or for its key, or refused with a large body, is held back for a moment: a client that asks again
at once, whatever Retry-After says, would otherwise be rejected thousands of times a second, in place of answers to
others, or try as many keys.
"""

import asyncio
import urllib.parse
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from service.errors import BodyTimeout, HeadTimeout, Overloaded, ServiceError
from service.http.connections import Connections, Reason, State, address_of
from service.http.exchange import CLOSE, Exchange, answer_head
from service.http.http1 import Head
from service.http.incoming import Incoming
from service.http.messages import ANSWER, ENTRY, GONE, Gone, Headers, Response
from service.http.turns import LARGE_BYTES

_LAST_WORD_S = 0.5  # when the service stops, for a request that is on its way
_UNREAD_BYTES = 65536  # of a body that came and was not asked for
_IN_A_ROW = 4  # requests that came before the answer to the one before them
_REST_S = 0.005  # after so many
_HELD = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNAUTHORIZED)  # answers


class HttpProtocol(asyncio.Protocol):
    """One connection.

    Args:
        connections: those of this process.

    Attributes:
        address: see `address_of`.
        state: see above.
        due: the loop's time at which that has taken too long.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.address = ""
        self.state = State.IDLE
        self.due = float("inf")
        self._config = config
        self._server = server_state
        self._app_state = app_state
        self._all = connections
        self._transport: asyncio.Transport
        self._gone: Gone = self.loop.create_future()
        self._reason: Reason | None = None
        self._incoming = Incoming()
        self._dropped = 0  # bytes of a body that nobody reads, or that came after the last answer
        self._advancing = False
        self._in_a_row = 0
        self._resting = False
        self._reading = True
        self._sent: asyncio.Future[None] | None = None  # while what was written is not
        # Of the request under way:
        self._head: Head | None = None
        self._exchange: Exchange | None = None
        self._answered = False
        self._keep_alive = True
        self._held: asyncio.TimerHandle | None = None  # its answer, which is sent a little later

    # What the event loop calls:

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        """A client has connected."""
        transport.set_write_buffer_limits(high=0)  # so that we hear whether all of an answer was sent
        self._transport = transport
        self._addresses = {
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "scheme": "https" if is_ssl(transport) else "http",
        }
        self.address = address_of(transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # it wants no more of one than `shutdown`
        self._enter(State.IDLE)
        self._all.add(self)
        self._all.wait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._server.connections.discard(self)
        self._all.remove(self, self._reason or Reason.CLIENT)
        self.state = State.CLOSING
        self._let_go()
        if self._exchange is not None:
            self._exchange.leave()
            self._exchange = None
        self.resume_writing()
        self._incoming.clear()
        self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """A part of what the client sends is there."""
        if self.state is State.CLOSING:
            self._drop(len(data))
            return
        self._incoming.add(data)
        self._advance()

    def pause_writing(self) -> None:
        """Not all was sent."""
        if self._sent is None:
            self._sent = self.loop.create_future()

    def resume_writing(self) -> None:
        """All was sent."""
        if self._sent is not None:
            self._sent.set_result(None)
            self._sent = None
            if self.state is State.WRITING:
                self._next()
                self._advance()

    # What uvicorn and the clock call:

    def shutdown(self) -> None:
        """The service stops: what is under way is finished."""
        self._all.drain()
        self.loop.call_later(_LAST_WORD_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.state is State.IDLE and not self._transport.is_closing():
            self._close(Reason.STOPPING)

    def expire(self) -> None:
        """This state has taken too long."""
        if self.state is State.IDLE:
            self._close(Reason.IDLE)
        elif self.state is State.HEAD:
            seconds = self._all.limits.deadlines.head
            self._reject(HeadTimeout(f"the head was not complete after {seconds:g} s; send it faster"), Reason.TIMEOUT)
        elif self.state is State.BODY and self._answered:
            self._close(Reason.UNREAD, linger=True)
        elif self.state is State.BODY:
            seconds = self._all.limits.deadlines.body
            self._reject(BodyTimeout(f"the body was not complete after {seconds:g} s; send it faster"), Reason.TIMEOUT)
        else:
            self.end(Reason.TIMEOUT)

    def give_up_body(self) -> None:
        """There is no room for the rest of the body."""
        error = Overloaded("too many bodies are on their way, and this one for the longest; send it in one piece", 1)
        self._reject(error, Reason.FULL)

    def end(self, reason: Reason) -> None:
        """Ends it at once."""
        self._reason = self._reason or reason
        self._incoming.clear()
        self.state = State.CLOSING
        self._let_go()
        self._transport.abort()

    # What comes in:

    def _advance(self) -> None:
        """Goes on in what has come, as far as that can be understood now."""
        if self._advancing or self._resting:  # an answer was sent from below, or others have their turn
            return
        self._advancing = True
        try:
            while self._incoming and self._step() and not self._resting:
                pass
        except ServiceError as error:
            self._reject(error, Reason.REFUSED)
        finally:
            self._advancing = False

    def _step(self) -> bool:
        """Whether there may be more to do."""
        match self.state:
            case State.IDLE | State.HEAD:
                return self._read_head()
            case State.BODY:
                return self._read_body()
            case State.CLOSING:
                self._drop(len(self._incoming))
                self._incoming.clear()
            case _:  # of the next request; this one first
                self._read(False)
        return False

    def _read_head(self) -> bool:
        if self.state is State.IDLE and not self._incoming.skip_empty_lines():
            return False
        head = self._incoming.take_head(self._all.limits.bounds)
        if head is not None:
            self._begin(head)
        elif self.state is State.IDLE:
            self._enter(State.HEAD)
        return head is not None

    def _begin(self, head: Head) -> None:
        self._all.begin(self)
        self._head = head
        self._keep_alive = head.keep_alive
        self._answered = False
        self._dropped = 0
        self._enter(State.WAITING if head.body is None else State.BODY)
        path, _, query = head.target.partition(b"?")
        text = self._text(path)
        entry = self._all.door.enter(head.method, text, head.headers)
        if isinstance(entry, Response):
            self.answer(entry)
            return
        exchange = self._exchange = Exchange(head, self)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1" if head.latest else "1.0",
            "method": head.method,
            "path": text,
            "raw_path": path,
            "query_string": query,
            "root_path": self._config.root_path,
            "headers": head.headers,
            "state": self._app_state.copy(),
            GONE: self._gone,
            ENTRY: entry,
            ANSWER: exchange.answer,
            **self._addresses,
        }
        self._start(exchange.run(self._config.loaded_app, scope))

    def _text(self, path: bytes) -> str:
        text = path.decode()
        return self._config.root_path + (urllib.parse.unquote(text) if "%" in text else text)

    def _start(self, answering: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(answering)
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _read_body(self) -> bool:
        assert self._head is not None
        body = self._head.body
        assert body is not None
        content = self._incoming.take_content(body)
        if self._exchange is None or self._answered:
            self._drop(len(content))
        elif content or body.ended:
            self._exchange.feed(content)
            if not body.ended:
                self._all.arrive(self, len(content))
                if self._exchange is not None and self._exchange.unread > _UNREAD_BYTES:
                    self._read(False)
        if body.ended:
            self._all.arrived(self)
        if body.ended and self.state is State.BODY:
            self._settle()
            return True
        return False

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > self._all.limits.dropped_bytes:
            self.end(Reason.UNREAD)

    # What goes out; an exchange calls the next seven:

    def write(self, data: bytes) -> None:
        """Sends it."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Waits until what was written is sent, or the connection has ended."""
        if self._sent is not None:
            await asyncio.shield(self._sent)

    def answer(self, response: Response, body_bytes: int = 0, keep_alive: bool = True) -> None:
        """Sends a complete answer; one that is held back, in a moment, if there is room for that."""
        refused = response.status >= HTTPStatus.BAD_REQUEST and body_bytes > LARGE_BYTES
        if (refused or response.status in _HELD) and self._all.hold():
            self._read(False)
            self._held = self.loop.call_later(
                self._all.hold_s(self.address, response.status), self._release, response, keep_alive
            )
        else:
            self._answer(response, keep_alive)

    def _release(self, response: Response, keep_alive: bool) -> None:
        self._let_go()
        self._answer(response, keep_alive)

    def _let_go(self) -> None:
        """Holds nothing back any more."""
        if self._held is not None:
            self._held.cancel()
            self._held = None
            self._all.let_go()

    def want_body(self, ask: bool) -> None:
        """Reads on in the body."""
        assert self._head is not None
        if ask and self.state is State.BODY:
            self._head.expects_continue = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._read(True)

    def begin_answer(self, keep_alive: bool) -> tuple[Headers, bool]:
        """See Wire."""
        self._keep_alive = keep_alive and self._keep_alive and not self._all.draining and self._is_worth_reading()
        if self.state is State.WAITING:
            self._enter(State.ANSWERING)
        return self._server.default_headers, self._keep_alive

    def end_answer(self) -> None:
        """The answer is written."""
        self._answered = True
        self._exchange = None
        self._all.arrived(self)
        self._server.total_requests += 1
        self._settle()
        self._advance()

    def fail(self) -> None:
        """The answer cannot be finished."""
        self.end(Reason.FAILED)

    def _answer(self, response: Response, keep_alive: bool) -> None:
        assert self._head is not None
        always, keep_alive = self.begin_answer(keep_alive)
        head = answer_head(response.status, always, response.headers, () if keep_alive else (CLOSE,))
        self.write(head if self._head.method == "HEAD" else head + response.body)
        self.end_answer()

    def _reject(self, error: ServiceError, reason: Reason) -> None:
        """What has come, or has not, makes an end of the connection."""
        self._keep_alive = False
        method, path = self._incoming.guess_request()
        self._incoming.clear()
        if self._exchange is not None and not self._exchange.started:
            self._reason = reason
            self._enter(State.WAITING)
            self._read(False)
            self._exchange.refuse(error)  # whose answer closes it
        elif self._head is not None:
            self.end(reason)
        else:
            response = self._all.door.reject(error, method, self._text(path))
            head = answer_head(response.status, self._server.default_headers, response.headers, (CLOSE,))
            self.write(head + response.body)
            self._close(reason, linger=True)

    # From state to state:

    def _settle(self) -> None:
        """The body or the answer has ended."""
        assert self._head is not None
        if self.state is State.CLOSING:
            return
        body = self._head.body
        ended = body is None or body.ended
        if not self._answered:
            started = self._exchange is not None and self._exchange.started
            self._enter(State.ANSWERING if started else State.WAITING)
        elif not self._keep_alive:
            asked = Reason.STOPPING if self._all.draining else Reason.ASKED
            self._close(asked if ended else Reason.UNREAD, linger=not ended)
        elif not ended:
            self._enter(State.BODY, State.CLOSING)
            self._read(True)
        elif self._sent is not None:
            self._enter(State.WRITING)
        else:
            self._next()

    def _next(self) -> None:
        self._head = None
        self._enter(State.IDLE)
        self._all.wait(self)
        self._in_a_row = self._in_a_row + 1 if self._incoming else 0
        if self._in_a_row < _IN_A_ROW:
            self._read(True)
        else:
            self._resting = True
            self._read(False)
            self.loop.call_later(_REST_S, self._go_on)

    def _go_on(self) -> None:
        self._in_a_row = 0
        self._resting = False
        self._read(True)
        self._advance()

    def _enter(self, state: State, like: State | None = None) -> None:
        """Begins a state; `like`: for as long as that one may be."""
        self.state = state
        self.due = self.loop.time() + self._all.seconds[like or state]

    def _read(self, reading: bool) -> None:
        if reading is not self._reading and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _close(self, reason: Reason, linger: bool = False) -> None:
        """Ends it after what was written; `linger`: the client may be sending, and shall get to read that."""
        self._reason = self._reason or reason
        self._incoming.clear()
        self._dropped = 0
        self._enter(State.CLOSING, None if self._sent is None else State.WRITING)
        if linger and self._transport.can_write_eof():
            self._read(True)
            self._transport.write_eof()
        else:
            self._transport.close()

    def _is_worth_reading(self) -> bool:
        """Whether the rest of the body will be read, so that another request can follow."""
        assert self._head is not None
        body = self._head.body
        if body is None or body.ended:
            return True
        if self._head.expects_continue:  # nobody knows whether it will come
            return False
        return body.left is None or body.left <= self._all.limits.dropped_bytes
