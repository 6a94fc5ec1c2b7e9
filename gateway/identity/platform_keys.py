"""Keys that the platform knows and we do not: what they are called here, and their first record.

All nodes must come to the same names without asking each other. So the ids of a platform's key, and of
the tenant that it alone makes up, follow from the digest under which it is stored, which is keyed by
the pepper: nobody else can work out the id of a key, nor choose a key for its id.

Keys of our own form are never a platform's: one that is unknown here is not shown to anybody else.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.identity.new_keys import KEY_ID_CHARACTERS
from gateway.identity.tokens import BASE62
from gateway.model.facts import DEFAULT_SCOPES, Key, KeyKind
from gateway.model.names import KeyId, TenantId
from gateway.model.rulings import SOURCE_PLATFORM

if TYPE_CHECKING:
    from gateway.identity.pepper import Peppers
    from gateway.model.access import Credential

_LABEL = b"cachegate: id of a platform's key, version 1: "


def platform_key_id(digest: bytes) -> KeyId:
    """What the platform's key that is stored under this digest is called."""
    return KeyId(f"key_{_short_id(digest)}")


def platform_key(credential: Credential, peppers: Peppers, now: float) -> tuple[Key, bytes]:
    """The record of a platform's key, and the digest to store it under."""
    digest = peppers.digest(sha256_of(credential))
    key = Key(
        key_id=platform_key_id(digest),
        kind=KeyKind.TENANT,
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
    """The hash by which a key is known outside: to importers, and in the platform's webhooks."""
    return sha256(credential.secret.encode("utf-8")).digest()


def _short_id(digest: bytes) -> str:
    """Twelve characters: 71 bits, so that a million keys share one once in some thousand million tries."""
    number = int.from_bytes(sha256(_LABEL + digest).digest(), "big")
    characters = []
    for _ in range(KEY_ID_CHARACTERS):
        number, place = divmod(number, len(BASE62))
        characters.append(BASE62[place])
    return "".join(characters)
