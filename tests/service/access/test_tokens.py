"""Which tokens are let in, and what a refused one is told."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_decode, base64url_encode

from service.access.authenticator import Authenticator
from service.access.caller import Limits
from service.access.either import KeysOrTokens
from service.access.issuer import Issuer
from service.access.keys import add_key
from service.access.tokens import TokenRules, Tokens
from service.errors import Forbidden, InvalidToken, Unauthorized
from tests.authority import AUDIENCE, ISSUER, authority, claims, jwks, private_key, public_jwk, token, token_by_hand

SCOPES: Mapping[str, Any] = {"predict": ("predict",), "metrics": ("metrics",), "ops": ("metrics", "admin")}


def tokens(folder: Path, keys: dict[str, Any] | None = None, **rules: Any) -> Tokens:
    """What checks those of an issuer with these keys; the issuer has a file."""
    (folder / "jwks.json").write_text(json.dumps(keys or jwks("one")))
    return Tokens(TokenRules(ISSUER, AUDIENCE, SCOPES, **rules), Issuer(folder / "jwks.json"))


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_token_opens_under_the_name_in_it(tmp_path: Path, algorithm: str) -> None:
    checks = tokens(tmp_path, {"keys": [public_jwk("one", algorithm), public_jwk("two", algorithm)]})
    for _ in range(2):  # the second time it is known
        caller = checks.authenticate(f"Bearer {token('one', algorithm)}")
        assert (caller.name, caller.scopes, caller.models, caller.credential) == ("shop", ("predict",), None, "token")


def test_a_key_without_an_algorithm_checks_what_its_kind_can(tmp_path: Path) -> None:
    key = {name: value for name, value in public_jwk("one").items() if name not in ("alg", "use")}
    checks = tokens(tmp_path, {"keys": [key]})
    for algorithm in ("RS256", "PS256"):
        signed = jwt.encode(claims(), private_key("one"), algorithm)
        assert checks.check(signed).name == "shop"  # it has no kid, and the issuer one key


def raw_public_key() -> bytes:
    return private_key("one").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def tampered() -> str:
    head, body, signature = token().split(".")
    changed = json.loads(base64url_decode(body)) | {"scope": "ops"}
    return ".".join((head, base64url_encode(json.dumps(changed).encode()).decode(), signature))


def now() -> int:
    return int(time.time())


REFUSED: dict[str, tuple[Any, str]] = {
    "expired": (lambda: token(exp=now() - 31), "has expired"),
    "without an end": (lambda: token(exp=None), "has no claim exp"),
    "an end that is no number": (lambda: token(exp="soon"), "no token that can be read"),
    "an end that is infinite": (lambda: token(exp=float("inf")), "no token that can be read"),
    "not yet": (lambda: token(nbf=now() + 60), "not valid yet"),
    "made in the future": (lambda: token(iat=now() + 60), "not valid yet"),
    "of another issuer": (lambda: token(iss="https://login.example"), f"iss is not '{ISSUER}'"),
    "of nobody": (lambda: token(iss=None), "has no claim iss"),
    "for another": (lambda: token(aud=["shop", "lathe2"]), "aud is not 'lathe'"),
    "for nobody": (lambda: token(aud=None), "has no claim aud"),
    "not signed": (lambda: token_by_hand({"alg": "none", "kid": "one"}, None), "alg is none of RS256, PS256"),
    "not signed, in capitals": (lambda: token_by_hand({"alg": "NONE", "kid": "one"}, None), "alg is none of"),
    "no algorithm": (lambda: token_by_hand({"kid": "one"}, b""), "alg is none of|no token that can be read"),
    "by the public key": (lambda: token_by_hand({"alg": "HS256", "kid": "one"}, raw_public_key()), "alg is none of"),
    "by it, under its name": (
        lambda: token_by_hand({"alg": "RS256", "kid": "one"}, raw_public_key()), "signature is not that of its key"
    ),
    "of an unknown key": (lambda: token("other"), "kid is none of the issuer's keys"),
    "of another algorithm's key": (lambda: token("one", "ES256"), "kid is none of the issuer's keys"),
    "under another's kid": (lambda: token("other", header={"kid": "one"}), "signature is not that of its key"),
    "by a key that it brings": (
        lambda: token("other", header={"kid": "one", "jwk": public_jwk("other")}), "signature is not that of its key"
    ),
    "changed": (tampered, "signature is not that of its key"),
    "cut short": (lambda: token()[:-2], "signature is not that of its key|no token that can be read"),
    "too long": (lambda: token(text="x" * 7000), "more than 8192 characters"),
    "without its text": (lambda: token(header={"crit": ["b64"], "b64": False}), "no token that can be read"),
    "what must be understood, and is not": (
        lambda: token(header={"crit": ["places"], "places": 1}), "no token that can be read"
    ),
    "a kid that is none": (lambda: token_by_hand({"alg": "RS256", "kid": ["one"]}, b""), "no token that can be read"),
    "nested": (lambda: f"{base64url_encode(b'[' * 6000).decode()}.e30.e30", "no token that can be read"),
    "a name that is none": (lambda: token(sub=None), "sub is no name"),
    "a name that is a line": (lambda: token(sub="a\nb"), "sub is no name"),
    "a name that is too long": (lambda: token(sub="a" * 101), "sub is no name"),
    "a key of the service's own": (lambda: "lathe_1234_secret", "no token that can be read"),
    "nothing": (lambda: "...", "no token that can be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_token_is_refused_and_told_why(tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    given_token = make()
    with pytest.raises(InvalidToken, match=reason) as refusal:
        tokens(tmp_path).check(given_token)
    assert refusal.value.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert refusal.value.status == 401
    for part in filter(None, given_token.split(".")):
        assert part not in refusal.value.message


@given(st.one_of(st.text(max_size=200), st.lists(st.text("eyJ0-_=", max_size=60), max_size=5).map(".".join)))
def test_nothing_that_is_sent_as_a_token_fails_otherwise(folder_of_one: Path, text: str) -> None:
    checks = Tokens(TokenRules(ISSUER, AUDIENCE, SCOPES), Issuer(folder_of_one / "jwks.json"))
    with pytest.raises(InvalidToken):
        checks.check(text)


@pytest.fixture(scope="module")
def folder_of_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of an issuer."""
    folder = tmp_path_factory.mktemp("issuer")
    tokens(folder)
    return folder


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic x"])
def test_without_a_token_one_is_asked_for(tmp_path: Path, header: str | None) -> None:
    with pytest.raises(Unauthorized, match="Bearer TOKEN") as refusal:
        tokens(tmp_path).authenticate(header)
    assert refusal.value.headers == {"WWW-Authenticate": "Bearer"}


def test_a_token_must_say_with_which_of_several_keys_it_is_signed(tmp_path: Path) -> None:
    unnamed = jwt.encode(claims(), private_key("one"), "RS256")
    assert tokens(tmp_path, jwks("one")).check(unnamed).name == "shop"
    with pytest.raises(InvalidToken, match="has no kid"):
        tokens(tmp_path, jwks("one", "two")).check(unnamed)


def test_clocks_may_differ_by_the_leeway(tmp_path: Path) -> None:
    late, early = token(exp=now() - 20), token(nbf=now() + 20)
    for checked in (late, early):
        assert tokens(tmp_path).check(checked).name == "shop"
        with pytest.raises(InvalidToken):
            tokens(tmp_path, leeway_s=5).check(checked)


def test_a_known_token_ends_when_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, ends = tokens(tmp_path), now() + 600
    given_token = token(exp=ends)
    assert checks.check(given_token).name == "shop"
    monkeypatch.setattr(time, "time", lambda: ends + 29.0)
    assert checks.check(given_token).name == "shop"
    monkeypatch.setattr(time, "time", lambda: ends + 30.0)
    monkeypatch.setattr(checks, "_claims", refuse)
    with pytest.raises(InvalidToken):
        checks.check(given_token)


def refuse(*_: object) -> None:
    raise InvalidToken("checked anew")


@pytest.mark.parametrize(
    ("given_claims", "scopes"),
    [
        ({"scope": "openid predict"}, ("predict",)),
        ({"scope": ["metrics", 7, "predict"]}, ("metrics", "predict")),
        ({"scope": "ops metrics"}, ("metrics", "admin")),
        ({"scope": ""}, None),
        ({"scope": "openid predicts"}, None),
        ({"scope": None}, None),
        ({"scope": {"predict": True}}, None),
    ],
)
def test_words_of_a_claim_are_what_it_may_do(tmp_path: Path, given_claims: Any, scopes: tuple[str, ...] | None) -> None:
    if scopes is not None:
        caller = tokens(tmp_path).check(token(**given_claims))
        assert caller.scopes == scopes
        missing = next(scope for scope in ("predict", "metrics", "admin") if scope not in caller.scopes)
        with pytest.raises(Forbidden, match=f"this token may not do this; .* LATHE_JWT_SCOPES takes for {missing}"):
            caller.require_scope(missing)  # type: ignore[arg-type]
        return
    with pytest.raises(Forbidden, match="may do nothing here: its scope has none of predict, metrics, ops"):
        tokens(tmp_path).check(token(**given_claims))


def test_other_claims_can_be_chosen(tmp_path: Path) -> None:
    rules: dict[str, Any] = {
        "name_claim": "azp",
        "scope_claim": "realm_access.roles",
        "models_claim": "https://lathe.example/models",
    }
    checks = tokens(tmp_path, limits=Limits(requests_per_s=5), **rules)
    roles: dict[str, Any] = {"realm_access": {"roles": ["predict"]}, "azp": "till-7"}
    models: dict[str, Any] = {"https://lathe.example/models": ["sentiment"]}
    caller = checks.check(token(**roles, **models))
    assert (caller.name, caller.scopes, caller.limits) == ("till-7", ("predict",), Limits(requests_per_s=5))
    caller.require_model("sentiment")
    with pytest.raises(Forbidden, match=r"this token may not ask 'banking'; it may ask sentiment$"):
        caller.require_model("banking")
    with pytest.raises(InvalidToken, match="names no model"):
        checks.check(token(**roles))
    with pytest.raises(Forbidden):
        checks.check(token(azp="till-7"))


def test_no_address_in_a_token_is_asked(tmp_path: Path) -> None:
    with authority() as evil:
        evil.publish("evil")
        for member in ("jku", "x5u"):
            with pytest.raises(InvalidToken):
                tokens(tmp_path).check(token("evil", header={member: evil.url}))
        with pytest.raises(InvalidToken):
            tokens(tmp_path).check(token("evil", iss=evil.url))
        assert evil.asked == []


def test_keys_and_tokens_are_let_in_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "prometheus", ["metrics"])
    both = KeysOrTokens(Authenticator(file), tokens(tmp_path))
    assert both.authenticate(f"Bearer {key}").credential == "key"
    assert both.authenticate(f"Bearer {token()}").name == "shop"
    with pytest.raises(InvalidToken, match="has the name of a key"):
        both.authenticate(f"Bearer {token(sub='prometheus')}")
    for nobody in (f"Bearer {key}x", "Bearer x", None):
        with pytest.raises(Unauthorized):
            both.authenticate(nobody)
