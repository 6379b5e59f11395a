"""Who calls the service in a load test, and the joints to locust: the only file here that imports it.

Users wait for their answer, think, and ask again; they do not repeat what was answered with 429. Which texts a user
sends and how long it thinks follow from a seed and the user's number.
"""

import argparse
import csv
import itertools
import os
import random
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, events, log, task
from locust.env import Environment
from locust.exception import CatchResponseError
from locust.runners import WorkerRunner
from locust.stats import StatsError

from loadtests.answers import LATER, UNREACHED, problem
from loadtests.shapes import SHAPES
from loadtests.thresholds import Figures, Thresholds, add_options, missed

MESSAGES = Path(__file__).resolve().parent.parent / "examples" / "customer_messages.csv"
MODELS = ("sentiment", "banking-intents")
CHAT_WORDS = 30  # the longest message of a chat
BATCH_TEXTS = (8, 64)
SEED = 20240

_user_numbers = itertools.count()


def read_messages(path: Path) -> list[str]:
    """The texts of a csv file with a column `text`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


class Caller(FastHttpUser):  # type: ignore[misc]  # locust is not followed by the type checker
    """What all users share: texts, a seeded choice, the key, and the check of each answer."""

    abstract = True
    connection_timeout = 5.0  # seconds
    network_timeout = 60.0  # seconds
    think_s = (0.2, 1.0)
    messages: Sequence[str] = read_messages(MESSAGES)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.choose = random.Random(f"{SEED} {next(_user_numbers)}")
        key = os.environ.get("LOADTEST_KEY")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def wait_time(self) -> float:
        """Seconds between an answer and the next request."""
        return self.choose.uniform(*self.think_s)

    def ask(self, path: str, kind: str, body: dict[str, Any], labels: Sequence[str]) -> None:
        """Sends a request and counts it under its kind."""
        inputs = 1 if isinstance(body["inputs"], str) else len(body["inputs"])
        with self.client.post(path, name=kind, json=body, headers=self.headers, catch_response=True) as response:
            wrong = problem(response.status_code, response.content, inputs, labels)
            if wrong is None:
                response.success()
            elif response.status_code == UNREACHED:
                response.failure(f"{wrong}: {type(response.error).__name__}")
            else:
                response.failure(wrong)


class ChatUser(Caller):
    """A person who writes one short message at a time."""

    weight = 4
    messages = tuple(message for message in Caller.messages if len(message.split()) <= CHAT_WORDS)

    @task(2)  # type: ignore[untyped-decorator]
    def classify(self) -> None:
        """One message, for one of the models."""
        body = {"model": self.choose.choice(MODELS), "inputs": self.choose.choice(self.messages)}
        self.ask("/v1/classify", "/v1/classify one", body, ["label"])

    @task(1)  # type: ignore[untyped-decorator]
    def triage(self) -> None:
        """One message, for both models."""
        self.ask("/v1/triage", "/v1/triage", {"inputs": self.choose.choice(self.messages)}, ["sentiment", "intent"])


class BatchUser(Caller):
    """A job that sends lists of messages of all lengths."""

    weight = 1
    think_s = (1.0, 3.0)

    @task  # type: ignore[untyped-decorator]
    def classify(self) -> None:
        """A list of messages, for one of the models."""
        texts = self.choose.choices(self.messages, k=self.choose.randint(*BATCH_TEXTS))
        body = {"model": self.choose.choice(MODELS), "inputs": texts}
        self.ask("/v1/classify", "/v1/classify many", body, ["label"])


class NamedShape(LoadTestShape):  # type: ignore[misc]
    """The shape that --shape names, over --run-time, with at most --users."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users now, and how many may start per second; None at the end. Called about once a second."""
        options = self.runner.environment.parsed_options
        progress = self.get_run_time() / (options.run_time or 60)
        most = options.num_users or 1
        return (SHAPES[options.shape](progress, most), float(most)) if progress < 1 else None


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def options(parser: argparse.ArgumentParser) -> None:
    """Adds our options to locust's."""
    parser.add_argument("--shape", choices=sorted(SHAPES), default="steady", help="how the number of users changes")
    add_options(parser)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge(environment: Environment, **_: Any) -> None:
    """Sets the exit code from the thresholds; locust's own would be 1 for any failure, allowed or not."""
    if isinstance(environment.runner, WorkerRunner):
        return  # the master sees everything
    figures = measured(environment)
    lines = [f"threshold missed: {line}" for line in missed(Thresholds.of(environment.parsed_options), figures)]
    if environment.runner.exceptions or log.unhandled_greenlet_exception:
        lines.append("the load test itself is broken: it raised an exception, logged above")
    environment.process_exit_code = 1 if lines else 0

    verdict = f"load test {'missed' if lines else 'reached'} its thresholds: {figures}"
    if html := environment.parsed_options.html_file:  # which locust has written by now
        show_verdict(Path(html), verdict, lines)

    @environment.events.quit.add_listener  # type: ignore[untyped-decorator]
    def tell(**_: Any) -> None:  # fired after locust's tables, so that the verdict is the last thing to be read
        print("\n".join([*lines, verdict]), flush=True)


def show_verdict(page: Path, verdict: str, lines: Sequence[str]) -> None:
    """Puts the verdict, and what was missed, on top of locust's page."""
    colour = "#8f1d14" if lines else "#14532d"
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    style = f"padding: 1rem; background: {colour}; color: #fff; font: 1rem system-ui, sans-serif"
    banner = f'<section id="verdict" style="{style}"><strong>{escape(verdict)}</strong><ul>{items}</ul></section>'
    html = page.read_text("utf-8")
    page.write_text(html.replace("<body>", f"<body>{banner}", 1), "utf-8")


def measured(environment: Environment) -> Figures:
    """The figures of a run, from locust's statistics."""
    total = environment.stats.total
    later_error = StatsError.parse_error(CatchResponseError(LATER))
    later = sum(
        error.occurrences
        for error in environment.stats.errors.values()
        if StatsError.parse_error(error.error) == later_error
    )
    return Figures(
        requests=total.num_requests,
        failures=total.num_failures - later,
        later=later,
        requests_per_s=total.total_rps * (1 - total.fail_ratio),
        p95_ms={
            f"{entry.method} {entry.name}": entry.get_response_time_percentile(0.95)
            for entry in environment.stats.entries.values()
        },
    )
