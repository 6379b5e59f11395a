"""Signatures of bundles: by the commands, as a user gives them."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from compression.bundle import open_bundle
from compression.bundle.signature import SIGNATURE
from compression.bundle.storage import MANIFEST
from tests.commands import done, run, said
from tests.handmade import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle").path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    done("keys", "signing", "--out", tmp_path / "mine.key")
    return tmp_path / "mine.key"


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_a_signed_bundle_is_verified_by_one_of_the_keys(bundle: Path, key: Path, tmp_path: Path) -> None:
    assert oct(key.stat().st_mode & 0o777) == "0o600"
    assert "PRIVATE" not in public(key).read_text("utf-8")
    other = tmp_path / "others" / "other.key"
    done("keys", "signing", "--out", other)
    assert "is not signed, and a signature is asked for; sign it where it was made: lathe sign" in said(
        run("verify", bundle, "--key", public(key))
    )
    assert done("sign", bundle, "--key", key).output.strip() == str(bundle / SIGNATURE)
    version = open_bundle(bundle).version
    expected = f"{bundle}: version {version}, signed with {public(key)}"
    assert done("verify", bundle, "--key", public(other), "--key", public(key)).output.strip() == expected
    assert f"its signature is by none of {public(other)}" in said(run("verify", bundle, "--key", public(other)))
    done("sign", bundle, "--key", other)
    done("verify", bundle, "--key", public(other))


def test_whoever_may_read_a_bundle_may_read_its_signature(bundle: Path, key: Path) -> None:
    for path in bundle.iterdir():
        path.chmod(0o640)
        if os.geteuid() == 0:  # as an administrator signs the service user's bundle
            os.chown(path, 12345, 23456)
    before = os.umask(0o077)
    try:
        done("sign", bundle, "--key", key)
    finally:
        os.umask(before)
    signed, of = (bundle / SIGNATURE).stat(), (bundle / MANIFEST).stat()
    assert (signed.st_mode, signed.st_uid, signed.st_gid) == (of.st_mode, of.st_uid, of.st_gid)


@pytest.mark.parametrize("name", ["a file more", "figures", "labels"])
def test_what_is_changed_after_it_was_signed_is_refused(bundle: Path, key: Path, name: str) -> None:
    """Also where whoever changed it wrote the digests, too."""
    done("sign", bundle, "--key", key)
    opened = open_bundle(bundle)
    manifest = opened.manifest
    if name == "labels":
        manifest = manifest.model_copy(update={"labels": manifest.labels[::-1]})
    elif name == "figures":
        manifest = manifest.model_copy(update={"figures": manifest.figures.model_copy(update={"agreement": 0.5})})
    else:
        (bundle / "more.html").write_text("changed", "utf-8")
        digest = hashlib.sha256(b"changed").hexdigest()
        manifest = manifest.model_copy(update={"files": {**manifest.files, "more.html": digest}})
    (bundle / MANIFEST).write_text(manifest.to_json(), "utf-8")
    open_bundle(bundle)
    assert "or the bundle was changed after it was signed" in said(run("verify", bundle, "--key", public(key)))


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"AAAA", b"A" * 88])
def test_what_is_no_signature_is_refused(bundle: Path, key: Path, content: bytes) -> None:
    (bundle / SIGNATURE).write_bytes(content)
    assert "its signature is by none of" in said(run("verify", bundle, "--key", public(key)))


def test_a_signature_of_another_bundle_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", {"good": (1.0, -1.0), "bad": (-1.0, 1.0)}).path
    done("sign", other, "--key", key)
    shutil.copy(other / SIGNATURE, bundle / SIGNATURE)
    assert "its signature is by none of" in said(run("verify", bundle, "--key", public(key)))


def test_keys_that_cannot_be_used(bundle: Path, key: Path, tmp_path: Path) -> None:
    assert "is there already, and a key is never overwritten" in said(run("keys", "signing", "--out", key))
    missing = tmp_path / "missing"
    rsa, locked = tmp_path / "rsa.pem", tmp_path / "locked.pem"
    weak = generate_private_key(65537, 2048)
    rsa.write_bytes(weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "rsa.pub").write_bytes(weak.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    locked.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    assert "cannot be read: No such file" in said(run("sign", bundle, "--key", missing))
    for path in (rsa, locked, public(key), bundle / MANIFEST):
        assert "no private key of Ed25519 in PEM without a password" in said(run("sign", bundle, "--key", path))
    assert "cannot be read: No such file" in said(run("verify", bundle, "--key", missing))
    for path in (tmp_path / "rsa.pub", bundle / MANIFEST):
        assert "no public key of Ed25519 in PEM" in said(run("verify", bundle, "--key", path))
    assert "the private one stays where bundles are signed" in said(run("verify", bundle, "--key", key))
    assert not (bundle / SIGNATURE).exists()


def test_the_identity_of_a_bundle_does_not_depend_on_who_signed_it(bundle: Path, key: Path) -> None:
    before = json.loads(done("inspect", bundle, "--json").output)
    done("sign", bundle, "--key", key)
    assert json.loads(done("inspect", bundle, "--json").output) == before
