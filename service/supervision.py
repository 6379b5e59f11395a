"""The process that BentoML starts workers from: it takes orders from nobody else, and no worker outlives it.

BentoML starts workers through circus, and has it take commands from a TCP port of the loopback, without a key. One of
these starts a program: whoever can reach that port, another user of the machine or a sidecar in the pod, can act as the
service's user. Here the commands come from a socket in a directory that only this user can enter.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from types import ModuleType
from typing import Any

_CHECK_S = 1.0  # how often circus looks for a worker that has died; BentoML says 10


def close_to_others(circus: ModuleType) -> None:
    """Has BentoML make process managers that no other user can reach, from now on.

    Args:
        circus: BentoML's module that makes them, which looks its classes up there when it does.
    """
    for name in ("Arbiter", "ThreadedArbiter"):
        if not getattr(circus, name).__dict__.get("private"):
            setattr(circus, name, _private(getattr(circus, name)))


def end_with_parent() -> None:
    """Ends this process as SIGTERM does when the one that started it is gone, however that ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _private(arbiter: type[Any]) -> type[Any]:
    class Private(arbiter):  # type: ignore[misc]  # known only when it runs
        private = True

        def __init__(self, watchers: list[Any], **options: Any) -> None:
            folder = tempfile.mkdtemp(prefix="lathe-")  # mode 0700
            addresses = {"endpoint": f"ipc://{folder}/commands", "pubsub_endpoint": f"ipc://{folder}/events"}
            super().__init__(watchers, **options | addresses | {"check_delay": _CHECK_S})
            self.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)

    return Private
