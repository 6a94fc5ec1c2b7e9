"""Sealed URLs: where the provider has a file that we handed out a link for, kept for whoever is asked.

A link of ours to a file that is not in the cache is served by streaming the file from the provider, by any
worker of the fleet, whichever the client reaches. So the provider's URL waits in Redis for as long as the
link lives. It is signed, which makes it a secret (I8): it is sealed with AES-256-GCM, under a key that is
derived from the link key and lies nowhere in Redis, and its name there is a keyed hash of what it is for.

It opens nothing by itself. It is asked for after an allow, by the key id and the file of a link that was
verified, and what is sealed for one key is never found for another: both are in the name, and the name is
authenticated along with the content.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.directory import names
from gateway.model.errors import BadNameError
from gateway.model.names import parse_md5

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.adapters.redis_store import RedisStore
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId

    File = tuple[PackageId, FileHandle]

NONCE_BYTES = 12

_FOR_CONTENT = b"cachegate: sealing of provider URLs, version 1"
_FOR_NAMES = b"cachegate: names of sealed provider URLs, version 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFile:
    """Where the provider has a file, and the digest that it gave, if it gave one."""

    url: str = field(repr=False)
    md5: Md5 | None


class _Seal:
    """What one link key comes to here."""

    def __init__(self, link_key: bytes) -> None:
        self._content = AESGCM(hmac.digest(link_key, _FOR_CONTENT, "sha256"))
        self._names = hmac.digest(link_key, _FOR_NAMES, "sha256")

    def name(self, key_id: KeyId, model: ModelId, file: File) -> bytes:
        """Under what a file's URL lies for a key."""
        parts = [part.encode() for part in (key_id, model, *file)]
        spelt = b"".join(b"%d:%b," % (len(part), part) for part in parts)
        return names.sealed_url(hmac.digest(self._names, spelt, "sha256"))

    def seal(self, name: bytes, file: ProviderFile) -> bytes:
        """The file's place as it may lie in Redis, under this name only."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._content.encrypt(nonce, f"{file.md5 or ''} {file.url}".encode(), name)

    def find(self, name: bytes, sealed: bytes) -> ProviderFile | None:
        """The same back; None for what was not sealed by us under this name."""
        try:
            text = self._content.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name).decode()
            md5, _, url = text.partition(" ")
            return ProviderFile(url=url, md5=parse_md5(md5) if md5 else None)
        except (InvalidTag, BadNameError, ValueError):
            return None


class SealedUrls:
    """Keeps URLs and finds them again. `link_keys` are the newest first: it seals, all of them find."""

    def __init__(self, store: RedisStore, link_keys: Sequence[bytes], *, seconds: float) -> None:
        self._store = store
        self._seals = tuple(map(_Seal, link_keys))
        self._seconds = seconds

    async def keep(self, key_id: KeyId, model: ModelId, files: Mapping[File, ProviderFile]) -> None:
        """Keep the places of these files for this key. Raises `Unavailable` when that cannot be done."""
        newest = self._seals[0]
        named = {newest.name(key_id, model, file): place for file, place in files.items()}
        sealed = {name: newest.seal(name, place) for name, place in named.items()}
        await self._store.put_for(sealed, self._seconds)

    async def find(self, key_id: KeyId, model: ModelId, file: File) -> ProviderFile | None:
        """Where the provider has this file, by what it last told this key; None when nothing is kept."""
        wanted = [seal.name(key_id, model, file) for seal in self._seals]
        _, values = await self._store.read(wanted)
        for seal, name, sealed in zip(self._seals, wanted, values, strict=True):
            place = None if sealed is None else seal.find(name, sealed)
            if place is not None:
                return place
        return None
