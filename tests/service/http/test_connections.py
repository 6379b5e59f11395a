"""All connections together: who gives way where there is no room, and how long wrong keys wait."""

import asyncio

import pytest

from service.http.connections import Connections, Limits, Reason, State, network_of
from service.telemetry import Telemetry
from tests.service.http.test_connection import Door


class Open:
    """A connection that does nothing."""

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.loop = loop
        self.state = State.IDLE
        self.due = float("inf")
        self.ended: Reason | None = None

    def expire(self) -> None: ...

    def give_up_body(self) -> None: ...

    def end(self, reason: Reason) -> None:
        self.ended = reason


def opened(connections: Connections, *addresses: str) -> list[Open]:
    """So many connections, each of which opens and waits for a request."""
    loop = asyncio.new_event_loop()
    found = []
    for address in addresses:
        one = Open(address, loop)
        connections.add(one)
        connections.wait(one)
        found.append(one)
    loop.close()
    return found


def created(most: int) -> Connections:
    return Connections(Door(), Telemetry(), Limits(connections=most))


def test_nobody_takes_the_places_of_other_addresses() -> None:
    connections = created(5)
    honest, *greedy = opened(connections, "honest", *["greedy"] * 4)
    more = opened(connections, *["greedy"] * 50, "third")
    assert honest.ended is None
    assert {one.ended for one in greedy} == {Reason.FULL}
    assert [one.ended for one in more] == [Reason.FULL] * 47 + [None] * 4
    for one in (honest, *more[-4:]):
        connections.remove(one, Reason.CLIENT)
    assert (connections._open, connections._of, connections._without_request) == (set(), {}, {})


def test_of_addresses_with_as_many_the_one_that_waits_for_the_longest_gives_way() -> None:
    connections = created(3)
    first, second, third = opened(connections, "a", "b", "c")
    connections.begin(first)
    connections.wait(first)
    opened(connections, "d")
    assert (first.ended, second.ended, third.ended) == (None, Reason.FULL, None)


def test_one_with_a_request_gives_way_to_nobody() -> None:
    connections = created(2)
    for one in (busy := opened(connections, "a", "a")):
        connections.begin(one)
    (late,) = opened(connections, "b")
    assert [one.ended for one in (*busy, late)] == [None, None, Reason.FULL]


def test_wrong_keys_one_after_another_wait_longer_and_other_answers_do_not() -> None:
    connections = Connections(Door(), Telemetry(), Limits(hold_s=0.1))
    waits = [connections.hold_s("guesser", 401) for _ in range(200)]
    assert waits[:19] == pytest.approx([0.1] * 19)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(1.0)
    assert connections.hold_s("guesser", 429) == pytest.approx(0.1)
    assert connections.hold_s("another", 401) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("/run/a:socket", "/run/a:socket"),
        ("", ""),
    ],
)
def test_addresses_of_one_client_are_one(address: str, network: str) -> None:
    assert network_of(address) == network
