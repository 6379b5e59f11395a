"""Without keys: what a browser is made to send is refused, and what programs on this machine send is not."""

import pytest

from service.access.local import LocalOnly
from service.errors import Forbidden

HERE = LocalOnly(("Lathe.example",))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:3000", "LOCALHOST:1", "localhost.:1", "127.0.0.1", "127.0.0.1:3000", "127.9.9.9", "[::1]",
     "[::1]:3000", "lathe.example", "LATHE.example:443"],
)  # fmt: skip
def test_names_of_this_machine(host: str) -> None:
    HERE.require_host({b"host": host.encode()})


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:3000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0:80",
     "[::2]:1", "", ":80", "evil:localhost", "lathe.example.evil", "é"],
)  # fmt: skip
def test_names_of_another(host: str) -> None:
    with pytest.raises(Forbidden, match="LATHE_ALLOWED_HOSTS"):
        HERE.require_host({b"host": host.encode("latin-1")})


def test_a_request_of_http_1_0_may_name_none() -> None:
    HERE.require_host({})


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "127.3.2.1"])
def test_a_program_here(client: str) -> None:
    HERE.require_program(client, {b"host": b"localhost", b"user-agent": b"curl/8"})


@pytest.mark.parametrize(
    ("client", "header"),
    [
        ("10.0.0.1", b"accept"),
        (None, b"accept"),
        ("unknown", b"accept"),
        ("127.0.0.1", b"origin"),
        ("127.0.0.1", b"sec-fetch-site"),
        ("127.0.0.1", b"x-forwarded-for"),
        ("127.0.0.1", b"x-real-ip"),
        ("127.0.0.1", b"forwarded"),
    ],
)
def test_anything_else(client: str | None, header: bytes) -> None:
    with pytest.raises(Forbidden, match="only by a program on this machine"):
        HERE.require_program(client, {header: b"null"})
