"""Make the record of a key that only the platform knows: its id, its tenant and its digest.

All nodes must derive the same ids without asking each other. So the id of a platform's key, and that of the
tenant created for it alone, are derived from the digest under which it is stored, which is keyed by the
pepper: nobody else can compute the id of a key, or choose a key for an id.

Keys of our own form never come from a platform: an unknown one is not sent to the platform.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.identity.new_keys import KEY_ID_CHARACTERS
from gateway.identity.tokens import BASE62
from gateway.model.facts import DEFAULT_SCOPES, Key
from gateway.model.names import KeyId, TenantId
from gateway.model.rulings import SOURCE_PLATFORM

if TYPE_CHECKING:
    from gateway.identity.pepper import Peppers
    from gateway.model.access import Credential

_LABEL = b"cachegate: id of a platform's key, version 1: "


def platform_key_id(digest: bytes) -> KeyId:
    """The id of the platform's key that is stored under this digest."""
    return KeyId(f"key_{_short_id(digest)}")


def platform_key(credential: Credential, peppers: Peppers, now: float) -> tuple[Key, bytes]:
    """The record of a platform's key, and the digest to store it under."""
    digest = peppers.digest(sha256_of(credential))
    key = Key(
        key_id=platform_key_id(digest),
        tenant=TenantId(f"platform-{_short_id(digest)}"),
        name="",
        scopes=DEFAULT_SCOPES,
        networks=(),
        created_at=now,
        pepper_id=peppers.current.id,
        source=SOURCE_PLATFORM,
    )
    return key, digest


def sha256_of(credential: Credential) -> bytes:
    """The hash by which importers and the platform's webhooks name a key."""
    return sha256(credential.secret.encode("utf-8")).digest()


def _short_id(digest: bytes) -> str:
    """Twelve characters, 71 bits: two of a million keys share an id with a chance of some 1 in 10^9."""
    number = int.from_bytes(sha256(_LABEL + digest).digest(), "big")
    characters = []
    for _ in range(KEY_ID_CHARACTERS):
        number, place = divmod(number, len(BASE62))
        characters.append(BASE62[place])
    return "".join(characters)
