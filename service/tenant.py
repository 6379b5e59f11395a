"""Who asks, to the queue."""

from typing import Literal, NamedTuple, get_args

Priority = Literal["interactive", "batch"]
"""interactive: somebody waits for the answer. batch: nobody does; it gives way where texts wait, and never starves."""

PRIORITIES: tuple[Priority, ...] = get_args(Priority)


class Tenant(NamedTuple):
    """A key, or the name in a token; tenants of one priority share the queue equally.

    Attributes:
        name: empty where none is needed.
    """

    name: str = ""
    priority: Priority = "interactive"


ANYONE = Tenant()
"""Where there are no keys."""
