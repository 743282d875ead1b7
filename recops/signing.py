"""Signatures of bundles: ed25519 over the bytes of a manifest, which holds the sha256 of every other file.

In: a key file (PEM) and bytes. Out: a signature, or BundleError. `cryptography` is imported only where a key is set.
"""

import os
from pathlib import Path
from typing import Any

from recops.errors import BundleError, CallError


def make_keys(private: Path) -> Path:
    """Writes a new private key, readable by its owner alone, and beside it the public one (`.pub`), whose path is
    returned. Raises CallError where either is there: a lost key cannot be made again."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = private.with_name(private.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise CallError(f"{path}: is there already; choose another name, or remove it")
    key = Ed25519PrivateKey.generate()
    private.parent.mkdir(parents=True, exist_ok=True)
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    public.write_bytes(key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(content: bytes, private: Path) -> bytes:
    """The signature of `content`, hex and a newline: the same bytes for the same content and key. Raises CallError."""
    return load_private(private).sign(content).hex().encode() + b"\n"


def check(content: bytes, signature: Path, public: Path) -> None:
    """Raises BundleError where the file `signature` is missing or is not by the key `public` for `content`, CallError
    for a file that is no public key."""
    from cryptography.exceptions import InvalidSignature

    key = load_public(public)
    try:
        given = bytes.fromhex(signature.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise BundleError(f"{signature}: missing: only bundles signed for {public.name} are taken") from None
    except (OSError, ValueError):
        raise BundleError(f"{signature}: not a readable signature") from None
    try:
        key.verify(given, content)
    except InvalidSignature:
        raise BundleError(f"{signature}: not for this manifest, or not by the key of {public.name}") from None


def load_private(path: Path) -> Any:
    """The key to sign with. Raises CallError."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _loaded(path, lambda pem: forms.load_pem_private_key(pem, None), Ed25519PrivateKey, "private")


def load_public(path: Path) -> Any:
    """The key to verify with. Raises CallError."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return _loaded(path, forms.load_pem_public_key, Ed25519PublicKey, "public")


def _loaded(path: Path, load: Any, kind: type, name: str) -> Any:
    try:
        key = load(path.read_bytes())
    except OSError as error:
        raise CallError(f"{path}: cannot be read ({error.strerror}); `recops keys sign-key` makes a pair") from None
    except (ValueError, TypeError):  # TypeError: a key with a password
        key = None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "cryptography":
            raise
        key = None  # a kind of key that the library does not know
    if not isinstance(key, kind):
        raise CallError(f"{path}: not an ed25519 {name} key without a password; `recops keys sign-key` makes a pair")
    return key
