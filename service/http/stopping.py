"""How the server ends.

    signal ──▶ drain ───────────────pause──▶ nothing listens ──▶ idle ones close ──all answered, or timeout──▶ ended
               /readyz is 503, answers                           the rest is finished
               say Connection: close

The signal is SIGTERM, or SIGINT, which Ctrl-C sends to every process of a terminal: to this one and to BentoML's, which
then sends SIGTERM to this one.

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


def drain_on_stop(drain: Callable[[], None], pause_s: float, timeout_s: float, alone: bool) -> None:
    """Puts this before what uvicorn does at SIGTERM and SIGINT; call it in the event loop, which serves by now.

    Args:
        drain: is called at the first signal.
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

    begun = False

    def end() -> None:
        if isinstance(server, uvicorn.Server) and alone:
            stop_listening(server)
        close(signal.SIGTERM, None)

    def begin() -> None:
        nonlocal begun
        if not begun:
            begun = True
            drain()
            loop.call_later(pause_s, end)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(begin))


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
