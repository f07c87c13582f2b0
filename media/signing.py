"""Who closed this book: an Ed25519 signature (RFC 8032) over the manifest's exact bytes.

The manifest vouches for every journal by its digests, and the signature for the manifest, so nobody
who has only the files can change a word or a packet unnoticed. `manifest.sig` stands beside the
manifest and names the public key; whether that key is the house's is for the reader to know: it is
printed by `reception doctor`, and belongs on paper in the archive.
"""

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.errors import Malformed
from core.keyfile import make_once

FILE_NAME: Final = "manifest.sig"
ALGORITHM: Final = "Ed25519"


class KeyUnusable(Malformed):
    """The signing key cannot be used; the words say what to do."""

    code = "signing_key_unusable"


@dataclass(frozen=True, slots=True)
class Signature:
    """What `manifest.sig` says. Both values are raw bytes: 32 and 64."""

    public_key: bytes
    value: bytes

    def encode(self) -> bytes:
        """As the file holds it."""
        text = {
            "algorithm": ALGORITHM,
            "public_key": base64.b64encode(self.public_key).decode(),
            "signature": base64.b64encode(self.value).decode(),
        }
        return json.dumps(text, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> "Signature":
        """Raises `Malformed` for anything that `encode` does not write."""
        try:
            value = json.loads(data)
            if value["algorithm"] != ALGORITHM:
                raise ValueError("algorithm")
            made = cls(
                base64.b64decode(value["public_key"], validate=True),
                base64.b64decode(value["signature"], validate=True),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise Malformed("The signature's file cannot be read.") from problem
        # Base64 leaves bits unused, and JSON spaces: a bit that flipped there is a change too.
        if made.encode() != data or len(made.public_key) != 32 or len(made.value) != 64:
            raise Malformed("The signature's file cannot be read.")
        return made

    def is_over(self, data: bytes) -> bool:
        """Whether the key it names signed exactly these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.value, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """The house's key. Made once and kept in a file that only the server's user can read."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def at(cls, path: Path) -> "Signer":
        """The key in `path`; a new one if there is none. Raises `KeyUnusable`, `OSError`."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            # Any 32 bytes are a private key (RFC 8032, 5.1.5).
            make_once(path, base64.b64encode(secrets.token_bytes(32)) + b"\n")
            data = path.read_bytes()
        if path.stat().st_mode & 0o077:
            raise KeyUnusable(f"Others can read the key in {path}. Run: chmod 600 {path}")
        try:
            return cls(
                Ed25519PrivateKey.from_private_bytes(base64.b64decode(data.strip(), validate=True))
            )
        except ValueError as problem:  # binascii.Error is one
            raise KeyUnusable(f"The key in {path} cannot be read. Restore it.") from problem

    @property
    def public_key(self) -> bytes:
        """32 raw bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> Signature:
        return Signature(self.public_key, self._key.sign(data))
