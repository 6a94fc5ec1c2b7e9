"""Sign and verify links to files: the signed fields, the MAC, and the keys. No I/O but loading the keys.

A link names a key, an expiry, and one file by its one canonical path. The signature covers all three, so
that no part of a link can be changed. A link is not a key: its holder may read that file as far as the named
key may, while both the key and the link are valid, and nothing else.

    mac = HMAC-SHA-256(link key, netstrings of: label, key id, expiry, raw path)

Netstrings make the fields unambiguous whatever they contain, and the label separates these signatures from
any others made with the same key.

All nodes share the link keys: `links.key` signs; `links.old.key` beside it, if there is one, still verifies
until the links that it signed have expired. Removing both ends every link at once.

Non-goals: whether the named key is valid now (`authenticate_link.py`), and how a link is written
(`credential/extract_link.py`).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import msgspec

from gateway.identity.secret_file import SECRET_BYTES, load_secret
from gateway.model.errors import Misconfigured, Reason, Refusal
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.access import SignedLink
    from gateway.model.names import KeyId

_LABEL = b"cachegate: signed link, version 1"


class LinkKeys(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """The signing key, and an older key whose links have not all expired. Never printed or compared (I8)."""

    current: bytes
    previous: bytes | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("current", "previous"))

    def __post_init__(self) -> None:
        """Refuse a short key, which would be the weakest part of the signature."""
        if any(len(secret) != SECRET_BYTES for secret in self.verifying):
            raise Misconfigured("link key", f"expected {SECRET_BYTES} bytes")

    @property
    def verifying(self) -> tuple[bytes, ...]:
        """All keys that verify links."""
        return (self.current,) if self.previous is None else (self.current, self.previous)


def load_link_keys(path: Path) -> LinkKeys:
    """The link keys: the file at `path`, and the one beside it with `.old` in its name, if there is one.

    Raises `Misconfigured` when the first is missing, or either is invalid.
    """
    if not path.exists():
        raise Misconfigured(
            str(path),
            "is missing: is CACHEGATE_STATE right? If it is, run `cachegate init`, which makes it, or copy "
            "it from another node, since every node has to have the same one",
        )
    old = path.with_name(f"{path.stem}.old{path.suffix}")
    return LinkKeys(current=load_secret(path), previous=load_secret(old) if old.exists() else None)


def sign(keys: LinkKeys, *, key_id: KeyId, expires_at: int, signed: bytes) -> bytes:
    """The signature of a link. `signed` is the raw path, from the first slash on, without a query."""
    return _mac(keys.current, key_id, expires_at, signed)


def verify(keys: LinkKeys, link: SignedLink, now: float) -> None:
    """Raises `Refusal`: INVALID_LINK for a signature that is not ours, then EXPIRED_LINK.

    The refusal of an expired link names its key for the record; no field of an invalid link is believed.
    """
    is_ours = False
    for secret in keys.verifying:  # all of them, so that the time taken does not tell which one matched
        is_ours |= hmac.compare_digest(_mac(secret, link.key_id, link.expires_at, link.signed), link.mac)
    if not is_ours:
        raise Refusal(Reason.INVALID_LINK)
    if not now < link.expires_at:  # written so that NaN counts as expired
        raise Refusal(Reason.EXPIRED_LINK, key_id=link.key_id)


def _mac(secret: bytes, key_id: KeyId, expires_at: int, signed: bytes) -> bytes:
    parts = (_LABEL, key_id.encode(), b"%d" % expires_at, signed)
    return hmac.digest(secret, b"".join([b"%d:%b," % (len(part), part) for part in parts]), "sha256")
