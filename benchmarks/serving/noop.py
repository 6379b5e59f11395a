"""What a request costs the server besides the model: CPU of the service in front of an engine that does nothing.

    python -m benchmarks.serving.noop

Beside it, a no-op `@bentoml.api` that takes and gives the same, both as `bentoml serve` starts them. Clients on
keep-alive connections ask again as soon as they are answered. Each line is the median and the spread of interleaved
rounds, in CPU time of the server's processes, threads included: a busy machine changes it little. Needs the default
bundles (`make bundles`), or LATHE_MODELS with a model named `sentiment`; of them only the labels are used.
"""

import contextlib
import statistics
import tempfile
from pathlib import Path

import click
import orjson
import uvloop

from benchmarks.serving.client import closed_loop
from benchmarks.serving.servers import served

TARGETS = {
    "lathe": "benchmarks.serving.noop_lathe:Lathe",
    "@bentoml.api": "benchmarks.serving.noop_bentoml:Noop",
}
BODY = orjson.dumps({"model": "sentiment", "inputs": "the card that you sent has still not arrived"})


@click.command()
@click.option("--requests", default=4000, show_default=True, help="Requests of a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--connections", default="1,32", show_default=True, help="At the same time, with commas.")
def main(requests: int, rounds: int, connections: str) -> None:
    """Prints the server's CPU microseconds per request."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            name: stack.enter_context(served(target, folder / f"{number}.log"))
            for number, (name, target) in enumerate(TARGETS.items())
        }
        click.echo("| server | connections | CPU us per request | lowest | highest |\n| --- | --- | --- | --- | --- |")
        for count in map(int, connections.split(",")):
            measured: dict[str, list[float]] = {name: [] for name in servers}
            for number in range(rounds + 1):  # the first warms up
                for name, server in servers.items():
                    before = server.cpu_seconds()
                    uvloop.run(closed_loop(f"{server.url}/v1/classify", [BODY], requests, count))
                    if number:
                        measured[name].append((server.cpu_seconds() - before) / requests * 1e6)
            for name, values in measured.items():
                figures = f"{statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f}"
                click.echo(f"| {name} | {count} | {figures} |")


if __name__ == "__main__":
    main()
