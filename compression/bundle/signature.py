"""Who made a bundle: an Ed25519 signature over its manifest's digest, and so over every file that it lists.

BUNDLE/bundle.sig   the signature, 64 bytes in base64

Digests alone tell that nothing was damaged; whoever can change a file can write its digest, too.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from compression.bundle.atomic_files import explained, replacing, take_after
from compression.bundle.extras import extra
from compression.bundle.storage import MANIFEST, Bundle
from compression.errors import BundleError, SigningError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "bundle.sig"
_CONTEXT = b"lathe bundle 1\n"  # so that the signature of nothing else is one of a bundle
_MOST_BYTES = 4096  # of a key, or a signature


@dataclass(frozen=True)
class Signers:
    """Those whose bundles are taken: public keys, by the name of their file."""

    keys: "Mapping[str, Ed25519PublicKey]"

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Self:
        """Reads public keys.

        Raises:
            SigningError: a file is not there, or no public key of Ed25519 in PEM.
            MissingExtra: the package that checks signatures is not installed.
        """
        return cls({str(path): _public_key(path) for path in paths})

    def require(self, bundle: Bundle) -> str:
        """The name of the key that the bundle is signed with.

        Raises:
            BundleError: it is not signed, or with none of these keys, or was changed since.
        """
        from cryptography.exceptions import InvalidSignature

        path = bundle.path / SIGNATURE
        if not path.is_file():
            raise BundleError(
                f"{bundle.path}: is not signed, and a signature is asked for; sign it where it was made: lathe sign"
            )
        try:
            signature = base64.b64decode(_content(path).strip(), validate=True)
        except ValueError:
            signature = b""
        for name, key in self.keys.items():
            try:
                key.verify(signature, _signed(bundle))
            except InvalidSignature:
                continue
            return name
        raise BundleError(
            f"{bundle.path}: its signature is by none of {', '.join(self.keys)}, or the bundle was changed after it "
            "was signed; take it from where it was made, or sign it anew with lathe sign"
        )


def sign(bundle: Bundle, key: Path) -> Path:
    """Signs a bundle; an older signature is replaced.

    Args:
        key: file of a private key.

    Returns:
        the signature's file.

    Raises:
        SigningError: the file is not there, or no private key of Ed25519 in PEM without a password.
        StorageError: the bundle's directory cannot be written.
        MissingExtra: the package that signs is not installed.
    """
    signature = base64.b64encode(_private_key(key).sign(_signed(bundle)))
    path = bundle.path / SIGNATURE
    remedy = "sign a copy of the bundle in a directory that can be written"
    with replacing(path, remedy) as staging, staging.open("wb") as file:
        file.write(signature + b"\n")
        with suppress(PermissionError):  # of an owner that only root can give; the mode is there
            take_after(file.fileno(), bundle.path / MANIFEST)
    return path


def make_key(path: Path) -> Path:
    """Writes a new private key, which its owner alone may read, and beside it the public one.

    Returns:
        the public key's file: `path` with `.pub` behind it.

    Raises:
        SigningError: one of the files is there already.
        StorageError: they cannot be written.
        MissingExtra: the package that makes keys is not installed.
    """
    with extra("serve"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    public = path.with_name(f"{path.name}.pub")
    for one in (path, public):
        if one.exists():
            raise SigningError(f"{one}: is there already, and a key is never overwritten; name another file with --out")
    key = Ed25519PrivateKey.generate()
    with explained(path, "name another file with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


def _signed(bundle: Bundle) -> bytes:
    return _CONTEXT + bundle.manifest.digest().encode()


def _private_key(path: Path) -> "Ed25519PrivateKey":
    with extra("serve"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_content(path), None)
    except (ValueError, TypeError):  # the latter where it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(
            f"{path}: no private key of Ed25519 in PEM without a password; make one with lathe keys signing"
        )
    return key


def _public_key(path: Path) -> "Ed25519PublicKey":
    with extra("serve"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _content(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        private = "; the private one stays where bundles are signed" if b"PRIVATE" in content else ""
        raise SigningError(f"{path}: no public key of Ed25519 in PEM, as lathe keys signing writes it{private}")
    return key


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise SigningError(f"{path}: cannot be read: {error.strerror}") from error
