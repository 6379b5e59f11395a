"""What a load test must reach, and what it reached.

Knows nothing of locust: the front end, which must not import it, takes the same options from here.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Thresholds:
    """The bounds; each field is also a command-line option."""

    max_failure_ratio: float = field(default=0.0, metadata={"help": "failed requests / requests, without 429 answers"})
    max_later_ratio: float = field(default=0.0, metadata={"help": "429 answers / requests"})
    max_p95_ms: float = field(default=1000.0, metadata={"help": "95th percentile, of each kind of request by itself"})
    min_requests_per_s: float = field(default=1.0, metadata={"help": "requests that were answered well, per second"})

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Thresholds":
        """The thresholds among parsed options."""
        return cls(**{bound.name: getattr(options, bound.name) for bound in fields(cls)})

    def arguments(self) -> list[str]:
        """The same thresholds as command-line arguments."""
        return [f"{_option(bound.name)}={getattr(self, bound.name)}" for bound in fields(self)]


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    requests: int
    failures: int  # without the 429 answers
    later: int  # 429 answers
    requests_per_s: float  # that were answered well
    p95_ms: Mapping[str, float]  # by kind of request

    def __str__(self) -> str:
        slowest_ms = max(self.p95_ms.values(), default=0.0)
        return (
            f"{self.requests} requests, {self.failures} failed, {self.later} told to come later (429), "
            f"{self.requests_per_s:.1f} answered per second, p95 of the slowest kind {slowest_ms:g} ms"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds one option for each threshold."""
    for bound in fields(Thresholds):
        parser.add_argument(
            _option(bound.name),
            type=float,
            default=bound.default,
            metavar="NUMBER",
            help=f"{bound.metadata['help']} (default: {bound.default})",
        )


def missed(thresholds: Thresholds, figures: Figures) -> list[str]:
    """One line for each threshold that was not reached: its name, the number and the bound."""
    if figures.requests == 0:
        return ["no request was made"]
    failure_ratio = figures.failures / figures.requests
    later_ratio = figures.later / figures.requests
    lines = []
    if failure_ratio > thresholds.max_failure_ratio:
        lines.append(f"max_failure_ratio: {failure_ratio:.4f} is above {thresholds.max_failure_ratio:g}")
    if later_ratio > thresholds.max_later_ratio:
        lines.append(f"max_later_ratio: {later_ratio:.4f} is above {thresholds.max_later_ratio:g}")
    lines += [
        f"max_p95_ms: {p95_ms:g} is above {thresholds.max_p95_ms:g} ({kind})"
        for kind, p95_ms in figures.p95_ms.items()
        if p95_ms > thresholds.max_p95_ms
    ]
    if figures.requests_per_s < thresholds.min_requests_per_s:
        lines.append(f"min_requests_per_s: {figures.requests_per_s:.2f} is below {thresholds.min_requests_per_s:g}")
    return lines


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
