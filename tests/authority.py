"""An issuer of tokens: private keys, and a real server that has the public ones."""

import base64
import contextlib
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://login.example/realms/shop"
AUDIENCE = "lathe"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@cache
def _private_key(kid: str, algorithm: str) -> PrivateKey:
    return MAKERS[algorithm]()


def private_key(kid: str, algorithm: str = "RS256") -> PrivateKey:
    """The key of that name and algorithm."""
    return _private_key(kid, algorithm)


def public_jwk(kid: str, algorithm: str = "RS256", key: PrivateKey | None = None) -> dict[str, Any]:
    """The public half, as a JWKS has it."""
    public = (key or private_key(kid, algorithm)).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        found = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        found = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(public, as_dict=True)
    found.pop("key_ops", None)
    return {**found, "kid": kid, "alg": algorithm, "use": "sig"}


def jwks(*kids: str) -> dict[str, Any]:
    """The public halves of RSA keys."""
    return {"keys": [public_jwk(kid) for kid in kids]}


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a token that is let in, for `shop`, but for the changes; None leaves one out."""
    now = int(time.time())
    usual = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "scope": "openid predict", "iat": now, "nbf": now,
        "exp": now + 600,
    }  # fmt: skip
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def token(
    kid: str | None = "one", algorithm: str = "RS256", header: dict[str, Any] | None = None, **changes: Any
) -> str:
    """A token, signed by the key of that name."""
    headers = {**({} if kid is None else {"kid": kid}), **(header or {})}
    return jwt.encode(claims(**changes), private_key(kid or "one", algorithm), algorithm, headers)


def token_by_hand(header: dict[str, Any], secret: bytes | None, **changes: Any) -> str:
    """A token that no library makes: signed by HMAC with any secret, or not at all."""
    signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims(**changes)))
    signature = b"" if secret is None else _base64(hmac.digest(secret, signed, hashlib.sha256))
    return b".".join((signed, signature)).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


class Authority:
    """What its server has at `url`, and how often it was asked.

    Attributes:
        answer: (status, headers, body) of what it answers; a body that is a function writes by itself.
    """

    def __init__(self, origin: str) -> None:
        self.url = f"{origin}/jwks"
        self.asked: list[str] = []
        self.publish("one")

    def publish(self, *kids: str) -> None:
        """Has the public halves of these keys."""
        self.answer(200, json.dumps(jwks(*kids)).encode())

    def answer(self, status: int, body: bytes | Iterator[bytes], **headers: str) -> None:
        """Answers this from now on."""
        self.given = status, body, headers


@contextlib.contextmanager
def authority(certificate: Path | None = None) -> Iterator[Authority]:
    """Runs until it is left; with a certificate, over TLS."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one.asked.append(self.path)
            status, body, headers = one.given
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked may have heard enough
                for part in (body,) if isinstance(body, bytes) else body:
                    self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        origin = f"127.0.0.1:{server.server_address[1]}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        one = Authority(f"{'http' if certificate is None else 'https'}://{origin}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield one
        finally:
            server.shutdown()
            thread.join()


def until(happened: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    for _ in range(2000):
        if happened():
            return
        time.sleep(0.005)
    pytest.fail("it did not happen within ten seconds")
