"""Front end of the load test: `python -m loadtests.run`, from the root of the repository.

    start the service (or take --host) ──/readyz──▶ locust, headless ──▶ report, exit code
                                            └──▶ whatever happens: stop the service

Does not import locust, which replaces the standard library's sockets and threads on import; locust runs as a process
of its own.

Exit code: locust's (0 thresholds reached, 1 missed), or 2 when the test could not run.
"""

import argparse
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from loadtests.shapes import SHAPES
from loadtests.thresholds import Thresholds, add_options

BUNDLES = (Path("bundles/sentiment"), Path("bundles/banking-intents"))  # what the service serves by default
START_S = 60
START_TRIES = 3
PORT_TAKEN = "Address already in use"  # BentoML looks for free ports and opens them later: another may be quicker
STOP_S = 20
FINISH_S = 10  # for requests under way when the test ends
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy, as locust does without one


class CannotRun(Exception):
    """The load test could not run; the message says why and what to do."""


def main() -> int:
    """Runs one load test and returns its exit code."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the service is stopped, too
    report = Path(options.report)
    report.mkdir(parents=True, exist_ok=True)
    try:
        if options.host is not None:
            if reason := not_ready(options.host):
                raise CannotRun(f"no service is ready at {options.host}: {reason}")
            return load(options.host, options, report)
        with service(report / "service.log") as url:
            return load(url, options, report)
    except CannotRun as error:
        print(f"load test not run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def load(url: str, options: argparse.Namespace, report: Path) -> int:
    """Runs locust against a ready service and returns its exit code."""
    html = report / "loadtest.html"
    html.unlink(missing_ok=True)  # a report of an earlier run must not be taken for this one's
    command = [
        sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("locustfile.py")),
        "--headless", "--only-summary", "--host", url, "--users", str(options.users), "--shape", options.shape,
        "--run-time", f"{options.seconds}s", "--stop-timeout", str(FINISH_S),
        "--html", str(html), "--csv", str(report / "loadtest"),
        *Thresholds.of(options).arguments(),
    ]  # fmt: skip
    locust = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches locust, which then ends with a report and a verdict
    try:
        code = locust.wait()
    finally:
        stop(locust)
    if html.exists():
        print(f"report: {html}")
    return code


@contextlib.contextmanager
def service(log: Path) -> Iterator[str]:
    """Runs the real service on a free port of this machine, and yields its address once it is ready.

    Raises:
        CannotRun: a bundle is missing, or the service did not become ready.
    """
    missing = [str(bundle) for bundle in BUNDLES if not (bundle / "bundle.json").is_file()]
    if missing and not os.environ.get("LATHE_MODELS"):
        raise CannotRun(f"no bundle in {' and '.join(missing)}; run make demo or lathe compress first")
    url, process = start(log, os.environ)
    try:
        yield url
    finally:
        stop(process)


def start(
    log: Path,
    environment: Mapping[str, str],
    target: str = "service.app:Lathe",
    cwd: Path | None = None,
    python: str = sys.executable,
) -> "tuple[str, subprocess.Popen[bytes]]":
    """Starts the service on a free port and waits until it is ready; tries again where a port was taken meanwhile.

    Args:
        python: the interpreter whose environment has BentoML.

    Returns:
        its address and its process, which `stop` ends.

    Raises:
        CannotRun: it did not become ready; with the end of its log.
    """
    for attempt in range(1, START_TRIES + 1):
        port = free_port()
        command = [
            python, "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd,
                start_new_session=True,  # Ctrl-C is for the one who started it, and stops it afterwards
            )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, process, log)
        except BaseException as error:
            stop(process)
            taken = PORT_TAKEN in log.read_text(encoding="utf-8", errors="replace")
            if not isinstance(error, CannotRun) or not taken or attempt == START_TRIES:
                raise
        else:
            return url, process
    raise AssertionError("unreachable: the last try returns or raises")


def not_ready(url: str) -> str | None:
    """Why no service is ready at an address; None when one is."""
    try:
        with _DIRECT.open(f"{url}/readyz", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return f"/readyz answers {error.code}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__} {error}".strip()


def stop(process: "subprocess.Popen[Any]") -> None:
    """Ends a process and its descendants: SIGTERM, and SIGKILL for what is still there after STOP_S."""
    try:
        # BentoML's workers lead sessions of their own, so that a signal to the group would not reach them.
        descendants = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for descendant in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendant.kill()


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Asks /readyz until it says yes.

    Raises:
        CannotRun: the service ended, or took too long; with the end of its log.
    """
    deadline = time.monotonic() + START_S
    reason: str | None = "it was not asked"
    while time.monotonic() < deadline and process.poll() is None:
        reason = not_ready(url)
        if reason is None:
            return
        time.sleep(0.2)
    ended = process.poll()
    what = f"was not ready after {START_S} s ({reason})" if ended is None else f"ended with exit code {ended}"
    last_lines = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    raise CannotRun(f"the service {what}; its log, {log}, ends with:\n{last_lines}")


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description="Load test of the service.")
    parser.add_argument("--users", type=_at_least_one, default=10, help="largest number of users (default: 10)")
    parser.add_argument("--seconds", type=_at_least_one, default=30, help="length of the test (default: 30)")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="steady", help="how users come (default: steady)")
    parser.add_argument("--report", default="reports", metavar="DIR", help="where reports go (default: reports)")
    parser.add_argument("--host", type=_url, metavar="URL", help="test this service (default: start one)")
    add_options(parser)
    return parser


def _at_least_one(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{value!r} does not start with http:// or https://")
    return value.rstrip("/")


if __name__ == "__main__":
    sys.exit(main())
