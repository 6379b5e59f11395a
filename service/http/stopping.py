"""How the server ends.

    SIGTERM ──▶ drain ───────────────pause──▶ nothing listens ──▶ idle ones close ──all answered, or timeout──▶ ended
                /readyz is 503, answers                           the rest is finished
                say Connection: close

The listening socket is BentoML's: its process has it, too, and keeps it open until this one has ended, so that closing
it here would leave it to accept connections which nobody serves. It is shut down, which holds for both; a worker that
is started anew listens on it again. Where there are several workers they would all lose it, and it is only closed.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn


def drain_on_sigterm(drain: Callable[[], None], pause_s: float, timeout_s: float, alone: bool) -> None:
    """Puts this before what uvicorn does at SIGTERM; call it in the event loop, which serves by now.

    Args:
        drain: is called at the signal.
        pause_s: until nothing listens any more.
        timeout_s: from then on, for what was accepted; in whole seconds.
        alone: whether no other process is to go on serving.
    """
    loop = asyncio.get_running_loop()
    close = signal.getsignal(signal.SIGTERM)
    if not callable(close):  # there is no server in this process
        return
    server = getattr(close, "__self__", None)
    if isinstance(server, uvicorn.Server):
        server.config.timeout_graceful_shutdown = math.ceil(timeout_s)  # it would wait for its clients without end

    def end(number: int) -> None:
        if isinstance(server, uvicorn.Server) and alone:
            stop_listening(server)
        close(number, None)

    def begin(number: int) -> None:
        drain()
        loop.call_later(pause_s, end, number)

    signal.signal(signal.SIGTERM, lambda number, _: loop.call_soon_threadsafe(begin, number))


def stop_listening(server: uvicorn.Server) -> None:
    """Takes what has connected, and then nothing more, in any process."""
    loop = asyncio.get_running_loop()
    config = server.config

    def make() -> asyncio.Protocol:
        return config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn does
            config=config, server_state=server.server_state, app_state=server.lifespan.state, _loop=loop
        )

    for listener in server.servers:
        listening = [socket.socket(fileno=os.dup(one.fileno())) for one in listener.sockets]
        listener.close()
        for one in listening:
            one.setblocking(False)
            with one:
                for connected in _waiting(one):
                    task = loop.create_task(loop.connect_accepted_socket(make, connected, ssl=config.ssl))
                    server.server_state.tasks.add(task)  # type: ignore[arg-type]  # whatever it gives
                    task.add_done_callback(server.server_state.tasks.discard)
                with contextlib.suppress(OSError):  # it listens no more
                    one.shutdown(socket.SHUT_RDWR)


def _waiting(listening: socket.socket) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):  # BlockingIOError where there are no more
        while True:
            connected, _ = listening.accept()
            connected.setblocking(False)
            yield connected
