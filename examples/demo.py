"""`make demo`: starts the service, asks it one thing, and stays up until Ctrl-C or SIGTERM."""

import argparse
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from typing import IO

from service.errors import ConfigurationError
from service.listening import require_free

MESSAGE = "I have been waiting three weeks for my card and nobody answers. This is ridiculous!"
HOST = "127.0.0.1"
START_SECONDS = 120
READY = " ready: "  # in the service's log: its own word, where another server on the port could give a probe's answer
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy has a way to this machine's loopback


def main() -> int:
    """Runs the demo; the service's exit code is this one's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3000)
    port: int = parser.parse_args().port
    try:
        require_free(HOST, port)
    except ConfigurationError as error:
        print(f"error: {error}, or make demo PORT=NUMBER", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of `finally` below
    service = subprocess.Popen(
        [sys.executable, "-m", "lathe", "serve", "--host", HOST, "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        if not _ready(service):
            print("The service did not become ready; its output above says why.", file=sys.stderr)
            return service.poll() or 1
        _show(f"http://{HOST}:{port}")
        return service.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        service.terminate()
        service.wait()


def _ready(service: "subprocess.Popen[str]") -> bool:
    """Passes on what the service says, until it is ready and from then on."""
    assert service.stdout is not None
    timer = threading.Timer(START_SECONDS, service.terminate)
    timer.start()
    try:
        for line in service.stdout:
            print(line, end="", flush=True)
            if READY in line:
                threading.Thread(target=_pass_on, args=(service.stdout,), daemon=True).start()
                return True
    finally:
        timer.cancel()
    service.wait()
    return False


def _pass_on(lines: IO[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)


def _show(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/v1/triage", json.dumps({"inputs": MESSAGE}).encode(), {"Content-Type": "application/json"}
    )
    with _DIRECT.open(request, timeout=30) as response:
        answer = json.load(response)
    print(f"\nQuestion: POST {url}/v1/triage\n{json.dumps({'inputs': MESSAGE}, indent=2)}")
    print(f"\nAnswer:\n{json.dumps(answer, indent=2)}")
    print(f"\nServing at {url} (a page to try it; /docs, /v1/models, /metrics). Ctrl-C stops it.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
