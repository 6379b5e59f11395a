"""Three times what the service can do, for a minute, from clients that do not wait for each other.

    python -m benchmarks.serving.overload bundles/sentiment-balanced

First the best rate: 32 clients that ask again as soon as they are answered. Then an open loop at three times that rate,
each request with a second to be answered in. Prints and keeps: goodput (answers within that second) beside the best
rate, the times of answers and of refusals, and the memory of the server. Client and server share the machine; the
client's own share of it, which grows with the refusals, is in the results.
"""

import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson
import uvloop

from benchmarks.serving.client import Sent, closed_loop, open_loop
from benchmarks.serving.servers import Server, served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "overload.json"
CLIENTS = 32


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--times", default=3.0, show_default=True, help="Of the best rate.")
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--timeout-ms", default=1000, show_default=True)
def main(bundle: Path, times: float, seconds: float, timeout_ms: int) -> None:
    """Writes results/overload.json."""
    bodies = [orjson.dumps({"model": "sentiment", "inputs": text}) for text in short_messages()]
    with tempfile.TemporaryDirectory() as folder:
        environment = {"LATHE_MODELS": f"sentiment={bundle.absolute()}"}
        with served("service.app:Lathe", Path(folder) / "log", environment) as server:
            url = f"{server.url}/v1/classify"
            best = _rate(url, bodies)
            memory = _Memory(server)
            cpu, client_cpu, start = server.cpu_seconds(), time.process_time(), time.perf_counter()
            sent = uvloop.run(open_loop(url, bodies, times * best, seconds, timeout_ms))
            passed = time.perf_counter() - start
            cpu, client_cpu = server.cpu_seconds() - cpu, time.process_time() - client_cpu
            samples = memory.stop()
            after = _rate(url, bodies)
    result: dict[str, Any] = {
        "machine": asdict(this_machine()),
        "best_per_s": round(max(best, after), 1),
        "sent_per_s": round(len(sent) / passed, 1),
        **summary(sent, seconds, timeout_ms / 1e3),
        "rss_mb": [round(value / 1e6, 1) for value in samples],
        "rss_growth": round(statistics.median(samples[-10:]) / statistics.median(samples[5:15]) - 1, 4),
        "server_cpu": round(cpu / passed, 3),
        "client_cpu": round(client_cpu / passed, 3),
    }
    result["goodput_of_best"] = round(result["goodput_per_s"] / result["best_per_s"], 3)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps({name: value for name, value in result.items() if name != "rss_mb"}, indent=1))


def summary(sent: list[Sent], seconds: float, deadline_s: float) -> dict[str, Any]:
    """What became of the requests, the first five seconds left out."""
    sent = [one for one in sent if one.at >= 5]
    answered = sorted(one.seconds for one in sent if one.status == 200)
    refused = sorted(one.seconds for one in sent if one.status == 429)
    return {
        "statuses": dict(Counter(str(one.status) for one in sent)),
        "goodput_per_s": round(sum(one <= deadline_s for one in answered) / (seconds - 5), 1),
        "answered_p50_ms": round(statistics.median(answered) * 1e3, 1),
        "answered_p99_ms": round(answered[int(0.99 * len(answered))] * 1e3, 1),
        "refused_p50_ms": round(statistics.median(refused) * 1e3, 2),
        "refused_p99_ms": round(refused[int(0.99 * len(refused))] * 1e3, 2),
    }


def _rate(url: str, bodies: list[bytes]) -> float:
    """Requests per second of the closed loop, after one that warms up."""
    uvloop.run(closed_loop(url, bodies, 1000, CLIENTS))
    start = time.perf_counter()
    uvloop.run(closed_loop(url, bodies, 8000, CLIENTS))
    return 8000 / (time.perf_counter() - start)


class _Memory:
    """Samples a server's memory each second, on a thread of its own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self._samples: list[int] = []
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> list[int]:
        """The samples, in bytes."""
        self._ended.set()
        self._thread.join()
        return self._samples

    def _sample(self) -> None:
        while not self._ended.wait(1):
            self._samples.append(self._server.rss_bytes())


if __name__ == "__main__":
    main()
