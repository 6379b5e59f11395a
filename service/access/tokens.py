"""Checks tokens (JWT, RFC 7519) that an issuer of the operator's has signed.

Which key a token is checked with, only its `kid` and `alg` say, and both only choose among the issuer's keys; nothing
that a token names elsewhere (`jku`, `x5u`, `jwk`) is looked at, and no address in it is asked.
"""

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jwt
from cachetools import LRUCache

from service.access.authenticator import bearer
from service.access.caller import Caller, Limits, Scope
from service.access.issuer import Issuer
from service.access.jwks import ALGORITHMS, KeySet, PublicKey
from service.errors import Forbidden, InvalidToken

_MOST_CHARACTERS = 8192
_NAME_CHARACTERS = 100
_CHECKED = 1000  # tokens; looked up in 2 us, where a check takes 100 (RS256) to 190 (EdDSA)


@dataclass(frozen=True)
class TokenRules:
    """Which tokens are let in, and what they may.

    Attributes:
        scopes: what words in the scope claim mean here.
        leeway_s: by how much the issuer's clock may differ.
        name_claim: has the name that a caller gets.
        scope_claim: has what it may do.
        models_claim: has the models that it may ask; None: all.
        limits: of each name; None: it has none.
    """

    issuer: str
    audience: str
    scopes: Mapping[str, Collection[Scope]]
    leeway_s: float = 30.0
    name_claim: str = "sub"
    scope_claim: str = "scope"
    models_claim: str | None = None
    limits: Limits | None = None


class _Checked(NamedTuple):
    caller: Caller
    until: float  # on the clock of time.time()
    keys: KeySet  # that were in force


class Tokens:
    """Checks the Authorization header. A token that was let in is, until it ends or the issuer's keys change, known."""

    def __init__(self, rules: TokenRules, issuer: Issuer) -> None:
        self._rules = rules
        self._issuer = issuer
        self._checked: LRUCache[bytes, _Checked] = LRUCache(_CHECKED)

    def authenticate(self, authorization: str | None) -> Caller:
        """Who has the token in the header.

        Raises:
            Unauthorized: see `check`; or there is none.
        """
        return self.check(bearer(authorization, "TOKEN"))

    def check(self, token: str) -> Caller:
        """Who has it.

        Raises:
            InvalidToken: it is none, not of the issuer, for somebody else, not yet or no longer valid; says which.
            Forbidden: nothing that it may do is anything here.
        """
        if len(token) > _MOST_CHARACTERS:
            raise InvalidToken(f"the token has more than {_MOST_CHARACTERS} characters")
        keys, digest = self._issuer.keys, hashlib.sha256(token.encode()).digest()
        known = self._checked.get(digest)
        if known is not None and known.keys is keys and time.time() < known.until:
            return known.caller
        claims = self._claims(token, keys)
        caller = self._caller(claims)
        self._checked[digest] = _Checked(caller, int(claims["exp"]) + self._rules.leeway_s, keys)
        return caller

    def _claims(self, token: str, keys: KeySet) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            key, algorithm = self._key(header.get("kid"), header.get("alg"), keys)
            return jwt.decode(
                token,
                key,
                [algorithm],
                {"require": ["exp", "iss", "aud"]},
                issuer=self._rules.issuer,
                audience=self._rules.audience,
                leeway=self._rules.leeway_s,
            )
        except jwt.ExpiredSignatureError:
            fault = "the token has expired"
        except jwt.ImmatureSignatureError:
            fault = "the token is not valid yet: its nbf or iat is in the future"
        except jwt.InvalidIssuerError:
            fault = f"the token's iss is not {self._rules.issuer!r}"
        except jwt.InvalidAudienceError:
            fault = f"the token's aud is not {self._rules.audience!r}"
        except jwt.MissingRequiredClaimError as error:
            fault = f"the token has no claim {error.claim}"
        except jwt.InvalidSignatureError:
            fault = "the token's signature is not that of its key"
        except jwt.PyJWTError:
            fault = "this is no token that can be read: a signed JWT has three parts"
        raise InvalidToken(fault)

    def _key(self, kid: Any, algorithm: Any, keys: KeySet) -> tuple[PublicKey, str]:
        if algorithm not in ALGORITHMS:
            raise InvalidToken(f"the token's alg is none of {', '.join(ALGORITHMS)}")
        if kid is None:  # then there must be only one that it can be
            found = [key for (_, one), key in keys.items() if one == algorithm]
            if len(found) != 1:
                raise InvalidToken("the token has no kid, which says with which of the issuer's keys it is checked")
            return found[0], algorithm
        key = keys.get((kid, algorithm))
        if key is None:
            self._issuer.ask_again()
            raise InvalidToken("the token's kid is none of the issuer's keys; they are read again")
        return key, algorithm

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        rules = self._rules
        name = _claim(claims, rules.name_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _NAME_CHARACTERS:
            raise InvalidToken(f"the token's {rules.name_claim} is no name of 1 to {_NAME_CHARACTERS} characters")
        given = _words(_claim(claims, rules.scope_claim))
        scopes = tuple(dict.fromkeys(scope for word in given for scope in rules.scopes.get(word, ())))
        if not scopes:
            raise Forbidden(
                f"the token may do nothing here: its {rules.scope_claim} has none of {', '.join(rules.scopes)}"
            )
        models = None if rules.models_claim is None else _words(_claim(claims, rules.models_claim))
        if models is not None and not models:
            raise InvalidToken(f"the token's {rules.models_claim} names no model")
        return Caller(name, scopes, models, rules.limits, "token")


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim, or with dots, as in `realm_access.roles`, a member of one; None where there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _words(value: Any) -> tuple[str, ...]:
    """`a b`, or a list of texts."""
    words: Iterable[Any] = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(word for word in words if isinstance(word, str))
