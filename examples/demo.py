"""`make demo`: starts the service, asks it one thing, and stays up until Ctrl-C."""

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

MESSAGE = "I have been waiting three weeks for my card and nobody answers. This is ridiculous!"
START_SECONDS = 120


def main() -> int:
    """Runs the demo; the service's exit code is this one's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3000)
    port: int = parser.parse_args().port
    url = f"http://127.0.0.1:{port}"
    service = subprocess.Popen(
        [sys.executable, "-m", "bentoml", "serve", "service.app:Lathe", "--host", "127.0.0.1", "--port", str(port)]
    )
    try:
        if not _ready(service, url):
            print("The service did not become ready; its output above says why.", file=sys.stderr)
            return service.poll() or 1
        print(f"\nQuestion: POST {url}/v1/triage\n{json.dumps({'inputs': MESSAGE}, indent=2)}")
        print(f"\nAnswer:\n{json.dumps(_triage(MESSAGE, url), indent=2)}")
        print(f"\nServing at {url} (GET /docs.json, /v1/models, /metrics). Ctrl-C stops it.", flush=True)
        return service.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        service.terminate()
        service.wait()


def _ready(service: "subprocess.Popen[bytes]", url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    return False


def _triage(message: str, url: str) -> object:
    request = urllib.request.Request(
        f"{url}/v1/triage", json.dumps({"inputs": message}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
