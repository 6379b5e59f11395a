"""The issuer's keys: had from a real server, changed, and gone."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import pytest

from service.access import jwks as module
from service.access.caller import Scope
from service.access.issuer import Issuer
from service.access.jwks import parse_jwks, read_jwks
from service.access.tokens import TokenRules, Tokens
from service.errors import ConfigurationError, InvalidToken
from tests.authority import (
    AUDIENCE,
    ISSUER,
    Authority,
    authority,
    jwks,
    private_key,
    public_jwk,
    token,
    until,
)
from tests.certificates import self_signed

SCOPES: Mapping[str, tuple[Scope, ...]] = {"predict": ("predict",)}
RULES = TokenRules(ISSUER, AUDIENCE, SCOPES)


@pytest.fixture
def server() -> Iterator[Authority]:
    """An issuer."""
    with authority() as one:
        yield one


@pytest.fixture
def clock() -> list[float]:
    """What a clock says."""
    return [1000.0]


def is_let_in(tokens: Tokens, given_token: str) -> bool:
    try:
        return tokens.check(given_token).name == "shop"
    except InvalidToken:
        return False


def test_a_new_key_is_found_and_strangers_cannot_have_the_issuer_asked_again_and_again(
    server: Authority, clock: list[float]
) -> None:
    issuer = Issuer(server.url, clock=lambda: clock[0])
    tokens = Tokens(RULES, issuer)
    issuer.start()
    try:
        old, new = token("one"), token("two")
        assert is_let_in(tokens, old)
        server.publish("two")
        assert not is_let_in(tokens, new)
        until(lambda: is_let_in(tokens, new))
        assert not is_let_in(tokens, old)  # the key is not in force any more, known or not
        assert len(server.asked) == 2
        for number in range(200):
            assert not is_let_in(tokens, token("one", header={"kid": f"stranger {number}"}))
        clock[0] += 29
        assert not is_let_in(tokens, old)
        clock[0] += 1
        assert not is_let_in(tokens, old)
        until(lambda: len(server.asked) > 2)
        assert len(server.asked) == 3
    finally:
        issuer.close()


BREAKS: dict[str, tuple[Callable[[Authority], None], str]] = {
    "an error": (lambda server: server.answer(500, b""), "the answer is 500"),
    "a redirect": (lambda server: server.answer(302, b"", Location="/other"), "302; no redirect is followed"),
    "a page": (lambda server: server.answer(200, b"<html>"), "not a JWKS: the document"),
    "nested": (lambda server: server.answer(200, b'{"keys":' + b"[" * 90000), "not a JWKS"),
    "without an end": (lambda server: server.answer(200, repeat(b" " * 65536)), "more than 1048576 bytes"),
    "of secrets": (lambda server: server.answer(200, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'), "has no key for"),
    "too many": (lambda server: server.publish(*("one",) * 101), "at most 100"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_while_the_issuer_cannot_be_asked_its_last_keys_stay_in_force_for_an_hour(
    server: Authority, clock: list[float], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    issuer = Issuer(server.url, clock=lambda: clock[0])
    tokens, given_token = Tokens(RULES, issuer), token("one")
    assert is_let_in(tokens, given_token)
    break_it, fault = BREAKS[name]
    break_it(server)
    for seconds in (300, 3000, 300):
        clock[0] += seconds
        issuer.read()
        assert is_let_in(tokens, given_token)
        assert not issuer.readable
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert fault in caplog.text
    assert server.url in caplog.text
    assert set(server.asked) == {"/jwks"}
    clock[0] += 1
    assert not is_let_in(tokens, given_token)  # also where the thread that reads is held up
    issuer.read()
    assert "the hour is over, and no token is let in" in caplog.text
    server.publish("one")
    issuer.read()
    assert issuer.readable
    assert is_let_in(tokens, given_token)


def test_a_thread_that_is_held_up_is_seen(server: Authority, clock: list[float]) -> None:
    issuer = Issuer(server.url, clock=lambda: clock[0])
    clock[0] += 600
    assert issuer.readable
    clock[0] += 300
    assert not issuer.readable


def test_an_answer_that_drips_is_given_up(server: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)

    def drip() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.05)

    server.answer(200, drip())
    with pytest.raises(ConfigurationError, match="the answer takes too long"):
        read_jwks(server.url)


def test_an_issuer_that_is_not_there_is_named(server: Authority) -> None:
    with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:1/jwks: cannot be fetched: "):
        read_jwks("http://127.0.0.1:1/jwks")


def test_an_issuer_is_asked_over_tls_and_its_certificate_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    with authority(certificate) as server:
        assert server.url.startswith("https://")
        with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
            read_jwks(server.url)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert json.loads(read_jwks(server.url)) == jwks("one")


def test_this_machine_is_asked_without_a_proxy(server: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert json.loads(read_jwks(server.url)) == jwks("one")


def test_a_file_that_changes_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(jwks("one")))
    issuer = Issuer(file)
    tokens = Tokens(RULES, issuer)
    issuer.start()
    try:
        assert is_let_in(tokens, token("one"))
        before = issuer.keys
        issuer.read()
        assert issuer.keys is before  # what is known stays so
        file.unlink()
        until(lambda: not issuer.readable)
        assert f"{file}: cannot be read: No such file" in caplog.text
        file.write_text(json.dumps(jwks("two")))
        until(lambda: is_let_in(tokens, token("two")))
    finally:
        issuer.close()


def test_keys_for_something_else_are_left_out_and_bad_ones_refuse_the_set() -> None:
    good = public_jwk("one")
    others = [
        {**public_jwk("encrypts"), "use": "enc"},
        {**public_jwk("longer"), "alg": "RS512"},
        {"kty": "EC", "crv": "P-521", "kid": "curve", "x": "AA", "y": "AA"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"},
    ]
    keys = parse_jwks(json.dumps({"keys": [good, *others]}).encode(), "x")
    assert list(keys) == [("one", "RS256")]
    for bad, fault in (
        ({**good, "n": "!"}, r"keys\.1 is no key"),
        ({**good, "n": ""}, r"keys\.1 is no key"),
        ({**good, "n": good["n"][:170]}, "RSA keys of 2048 to 8192 are taken"),
        ({**good, "d": "AQAB"}, "is a private key"),
        ({**good, "kid": 7}, r"keys\.1\.kid"),
        ("one", r"keys\.1"),
    ):
        with pytest.raises(ConfigurationError, match=fault):
            parse_jwks(json.dumps({"keys": [good, bad]}).encode(), "x")
    assert private_key("one").public_key() == keys["one", "RS256"]
