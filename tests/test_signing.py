"""Keys that sign and verify: what is made, what is taken for one, what a signature holds for."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from recops import signing
from recops.errors import BundleError, CallError

NO_PASSWORD, PASSWORD = forms.NoEncryption(), forms.BestAvailableEncryption(b"secret")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    signing.make_keys(tmp_path / "key.pem")
    return tmp_path / "key.pem"


@pytest.fixture
def public(private: Path) -> Path:
    return private.with_name("key.pem.pub")


def pem(key: Ed25519PrivateKey | X25519PrivateKey, how: forms.KeySerializationEncryption = NO_PASSWORD) -> bytes:
    return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, how)


def test_the_private_key_is_its_owners_and_never_written_over(private: Path, public: Path) -> None:
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PRIVATE" in private.read_bytes() and b"PRIVATE" not in public.read_bytes()
    with pytest.raises(CallError, match="is there already"):
        signing.make_keys(private)
    private.unlink()
    with pytest.raises(CallError, match=r"key\.pem\.pub: is there already"):
        signing.make_keys(private)


def test_a_signature_is_for_one_content_and_one_key(tmp_path: Path, private: Path, public: Path) -> None:
    signature = tmp_path / "signature"
    signature.write_bytes(signing.sign(b"content", private))
    assert signing.sign(b"content", private) == signature.read_bytes()
    signing.check(b"content", signature, public)
    other = signing.make_keys(tmp_path / "other.pem")
    for content, key in ((b"contents", public), (b"", public), (b"content", other)):
        with pytest.raises(BundleError, match="not for this manifest, or not by the key"):
            signing.check(content, signature, key)


@pytest.mark.parametrize("text", ["", "00", "x" * 128, "0" * 128, "0" * 127, "ü"])
def test_what_is_no_signature(tmp_path: Path, public: Path, text: str) -> None:
    signature = tmp_path / "signature"
    signature.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=str(signature)):
        signing.check(b"content", signature, public)
    signature.unlink()
    with pytest.raises(BundleError, match="missing"):
        signing.check(b"content", signature, public)


def test_what_is_no_key_is_named(tmp_path: Path, private: Path, public: Path) -> None:
    wrong = {
        "empty": b"",
        "public": public.read_bytes(),
        "other kind": pem(X25519PrivateKey.generate()),
        "password": pem(Ed25519PrivateKey.generate(), PASSWORD),
        "cut": private.read_bytes()[:60],
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CallError, match=f"{name}: not an ed25519 private key"):
            signing.load_private(tmp_path / name)
    with pytest.raises(CallError, match="not an ed25519 public key"):
        signing.load_public(private)
    for load in (signing.load_private, signing.load_public):
        with pytest.raises(CallError, match="recops keys sign-key"):
            load(tmp_path / "missing")


def test_without_a_key_the_library_is_not_loaded() -> None:
    """Of the service's start, which may live without signatures."""
    script = "import sys, recops.bundle, recops.serving.app; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
