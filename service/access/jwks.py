"""A set of public keys (JWKS, RFC 7517): had from a file or an issuer, and what of it is of use here.

What a key is for is decided by its kind and not by the tokens: an RSA key checks RS256 and PS256, one of P-256 ES256,
one of Ed25519 EdDSA. There is no place for `none`, and none for a secret: whoever can check tokens with one can make
them, and a public key would be taken for one.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.access.secret_file import read_secret_file
from service.errors import ConfigurationError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
KeySet = Mapping[tuple[str | None, str], PublicKey]
"""Keys by `kid` and algorithm."""

_MOST_BYTES = 1 << 20
_MOST_KEYS = 100
_TIMEOUT_S = 5.0
_RSA_BITS = range(2048, 8193)  # smaller ones are weak, larger ones slow
# By kind and curve: the members that a public key is made of, and the algorithms that it is for.
_KINDS: Mapping[tuple[str, str | None], tuple[set[str], tuple[str, ...]]] = {
    ("RSA", None): ({"kty", "n", "e"}, ("RS256", "PS256")),
    ("EC", "P-256"): ({"kty", "crv", "x", "y"}, ("ES256",)),
    ("OKP", "Ed25519"): ({"kty", "crv", "x"}, ("EdDSA",)),
}
ALGORITHMS = tuple(algorithm for _, algorithms in _KINDS.values() for algorithm in algorithms)


class _Jwk(BaseModel):
    model_config = ConfigDict(frozen=True)  # it may have further members

    kty: str
    crv: str | None = None
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""
    d: Any = None  # of private keys


class _Jwks(BaseModel):
    keys: tuple[_Jwk, ...] = Field(max_length=_MOST_KEYS)


def read_jwks(source: Path | str) -> bytes:
    """What a file or a URL has.

    Raises:
        ConfigurationError: it cannot be had, or not in time.
    """
    try:
        content = read_secret_file(source, "a JWKS") if isinstance(source, Path) else _fetch(source)
    except OSError as error:
        raise ConfigurationError(f"{source}: cannot be read: {error.strerror or error}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:  # the last two: of proxies
        raise ConfigurationError(f"{source}: cannot be fetched: {error or type(error).__name__}") from error
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{source}: not a JWKS: it has more than {_MOST_BYTES} bytes")
    return content


def parse_jwks(content: bytes, source: Path | str) -> KeySet:
    """The keys that tokens can be checked with; those for something else are left out.

    Args:
        source: where it comes from, for messages.

    Raises:
        ConfigurationError: it is no JWKS, has no such key, or one that must not be used.
    """
    try:
        given = _Jwks.model_validate_json(content).keys
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the document"
        raise ConfigurationError(f"{source}: not a JWKS: {where}: {fault['msg']}") from None
    found = dict(pair for number, one in enumerate(given) for pair in _of_use(one, f"{source}: keys.{number}"))
    if not found:
        raise ConfigurationError(f"{source}: has no key for {', '.join(ALGORITHMS)}")
    return found


def _of_use(given: _Jwk, where: str) -> Iterator[tuple[tuple[str | None, str], PublicKey]]:
    members, all_algorithms = _KINDS.get((given.kty, given.crv), (set(), ()))
    algorithms = [one for one in all_algorithms if given.alg in (None, one)]
    if not algorithms or given.use not in (None, "sig"):
        return
    if given.d is not None:
        raise ConfigurationError(f"{where} is a private key, and whoever reads it can make tokens; replace it")
    try:
        key = jwt.PyJWK(given.model_dump(include=members), algorithms[0]).key
    except (jwt.PyJWTError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{where} is no key: {error}") from None
    if isinstance(key, RSAPublicKey) and key.key_size not in _RSA_BITS:
        raise ConfigurationError(f"{where} has {key.key_size} bits; RSA keys of 2048 to 8192 are taken")
    for algorithm in algorithms:
        yield (given.kid, algorithm), key


def _fetch(url: str) -> bytes:
    """No redirect is followed, and nothing is unpacked: neither can lead to more than was asked for.

    Proxies and certificates are as the environment says, but for this machine, which alone is asked without TLS.
    """
    ends = time.monotonic() + 2 * _TIMEOUT_S
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    with (
        httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=url.startswith("https:")) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            redirect = "; no redirect is followed: name the URL that it leads to" if answer.is_redirect else ""
            raise ConfigurationError(f"{url}: cannot be fetched: the answer is {answer.status_code}{redirect}")
        content = bytearray()
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) > _MOST_BYTES:
                break
            if time.monotonic() > ends:
                raise httpx.ReadTimeout("the answer takes too long")
    return bytes(content)
