"""The files of TLS: what is refused of them, and when they are read again."""

import logging
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from service.environment import load_settings
from service.errors import ConfigurationError
from service.http.tls import Tls
from tests.certificates import self_signed


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def encrypted(folder: Path, pem: Path) -> Path:
    key = load_pem_private_key(pem.read_bytes(), None)
    return write(
        folder / "encrypted.pem",
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"certificate": "missing.pem"}, "LATHE_TLS_CERTIFICATE='.*missing.pem': cannot be read: No such file"),
        ({"certificate": "text.pem"}, "LATHE_TLS_CERTIFICATE='.*text.pem': not a certificate in PEM"),
        ({"certificate": "."}, "cannot be read: Is a directory"),
        ({"key": "missing.pem"}, "LATHE_TLS_KEY='.*missing.pem': cannot be read"),
        ({"key": "text.pem"}, "LATHE_TLS_KEY='.*text.pem': not the private key, in PEM, of "),
        ({"key": "other.pem"}, "LATHE_TLS_KEY='.*other.pem': not the private key, .*mismatch"),
        ({"key": "encrypted.pem"}, "LATHE_TLS_KEY='.*encrypted.pem': the key is encrypted"),
        ({"client_ca": "missing.pem"}, "LATHE_TLS_CLIENT_CA='.*missing.pem': cannot be read"),
        ({"client_ca": "text.pem"}, "LATHE_TLS_CLIENT_CA='.*text.pem': no certificates in PEM"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, wrong: dict[str, str], says: str) -> None:
    certificate = self_signed(tmp_path)
    self_signed(tmp_path, "other")
    encrypted(tmp_path, certificate)
    write(tmp_path / "text.pem", b"no certificate")
    given = {name: tmp_path / file for name, file in wrong.items()}
    with pytest.raises(ConfigurationError, match=says):
        Tls(given.get("certificate", certificate), given.get("key"), given.get("client_ca"))


@pytest.mark.parametrize("name", ["LATHE_TLS_KEY", "LATHE_TLS_CLIENT_CA"])
def test_a_part_of_tls_is_refused_without_the_certificate(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is set, and TLS needs LATHE_TLS_CERTIFICATE too"):
        load_settings({name: "file.pem"})


def test_a_renewed_certificate_is_taken_and_one_that_cannot_be_used_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    path = self_signed(tmp_path)
    tls = Tls(path, None, None, lambda: now[0])
    first, expires = tls.context, tls.expires
    assert expires == x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    assert tls.context is first

    renewed = self_signed(tmp_path, "renewed", days=90)
    os.replace(renewed, path)
    assert tls.context is first  # looked at not so often
    now[0] += 11
    second = tls.context
    assert second is not first
    assert tls.expires > expires + 80 * 86400

    write(path, b"half a certific")
    now[0] += 11
    with caplog.at_level(logging.ERROR):
        assert tls.context is second
    assert "not a certificate in PEM; the certificate that was read before stays in force" in caplog.text
    path.unlink()
    now[0] += 11
    assert tls.context is second
    self_signed(tmp_path, days=30)
    now[0] += 11
    assert tls.context is not second


def test_old_versions_of_the_protocol_are_not_spoken(tmp_path: Path) -> None:
    assert Tls(self_signed(tmp_path), None, None).context.minimum_version == ssl.TLSVersion.TLSv1_2
