"""How many users there are while a test runs.

    steady                    steps                     spike
        ┌────────────                     ┌─────                ┌───┐
      ┌─┘                           ┌─────┘                     │   │
    ┌─┘                       ──────┘                     ──────┘   └──────

A shape maps the progress of the test, from 0 at its start to 1 at its end, and the largest number of users to the
number of users at that moment. Knows nothing of locust, so that the front end can list the names.
"""

import math
from collections.abc import Callable, Mapping

Shape = Callable[[float, int], int]

_RAMP = 0.2  # part of the test in which a steady load grows
_MOST_STEPS = 5
_SPIKE = (0.4, 0.6)


def steady(progress: float, users: int) -> int:
    """Ramps up, then holds: what a release is compared with."""
    return max(1, math.ceil(users * min(1.0, progress / _RAMP)))


def steps(progress: float, users: int) -> int:
    """Doubles at each stage up to `users`: shows at which load the service stops keeping up."""
    stages = min(_MOST_STEPS, users.bit_length())
    stage = min(int(progress * stages), stages - 1)
    return users >> (stages - 1 - stage)


def spike(progress: float, users: int) -> int:
    """A tenth of the users, then all at once, then a tenth again: shows whether the service recovers."""
    start, end = _SPIKE
    return users if start <= progress < end else max(1, users // 10)


SHAPES: Mapping[str, Shape] = {"steady": steady, "steps": steps, "spike": spike}
