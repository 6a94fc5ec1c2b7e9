"""Sealed URLs: encrypted storage in Redis for the provider's URLs behind links that we handed out.

A link of ours to a file that is not in the cache is served by streaming the file from the provider, by any
worker of the fleet that the client reaches. So the provider's URL is kept in Redis for as long as the link
lives. It is signed, which makes it a secret (I8): it is sealed with AES-256-GCM, under a key that is derived
from the link key and is not stored in Redis, and its Redis key is a keyed hash of its purpose.

For a file that is served from the cache, the digest is kept without a URL: only what this key was last told
counts, and a URL that it was told before must not outlive it.

A sealed URL gives no access by itself. It is read after an allow, by the key id and the file of a link that
was verified, and what is sealed for one key is never found for another: both are in the Redis key, which is
authenticated along with the content.
"""

from __future__ import annotations

import hmac
import secrets
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.directory.records import names
from gateway.model.errors import BadNameError
from gateway.model.hidden_fields import shown
from gateway.model.names import parse_md5

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.adapters.redis_store import RedisStore
    from gateway.model.clocks import Clock
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId

    File = tuple[PackageId, FileHandle]

NONCE_BYTES = 12
FILES_PER_TURN = 250  # some 5 ms of sealing, then other requests get the event loop
MARGIN = 0.5
"""As a share of a link's life: how much longer an entry is kept, and for how long it is not written anew."""

_FOR_CONTENT = b"cachegate: sealing of provider URLs, version 1"
_FOR_NAMES = b"cachegate: names of sealed provider URLs, version 1"


class ProviderFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was told of a file: its URL, None if it is in the cache, and its digest, if it has one."""

    url: str | None
    md5: Md5 | None

    def __repr__(self) -> str:
        return shown(self, hidden=("url",))


class _Seal:
    """The keys derived from one link key."""

    def __init__(self, link_key: bytes) -> None:
        self._content = AESGCM(hmac.digest(link_key, _FOR_CONTENT, "sha256"))
        self._names = hmac.digest(link_key, _FOR_NAMES, "sha256")

    def name(self, key_id: KeyId, model: ModelId, file: File) -> bytes:
        """The Redis key of a file's URL for an API key."""
        parts = [part.encode() for part in (key_id, model, *file)]
        spelt = b"".join(b"%d:%b," % (len(part), part) for part in parts)
        return names.sealed_url(hmac.digest(self._names, spelt, "sha256"))

    def seal(self, name: bytes, file: ProviderFile, now: float) -> bytes:
        """The entry encrypted for Redis, valid under this name only, with the time of writing."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        text = f"{int(now)} {file.md5 or ''} {file.url or ''}"
        return nonce + self._content.encrypt(nonce, text.encode(), name)

    def find(self, name: bytes, sealed: bytes | None) -> tuple[ProviderFile, float] | None:
        """The decrypted entry; None for what was not sealed by us under this name."""
        if sealed is None:
            return None
        try:
            text = self._content.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name).decode()
            kept_at, md5, url = text.split(" ", 2)
            return ProviderFile(url=url or None, md5=parse_md5(md5) if md5 else None), float(kept_at)
        except (InvalidTag, BadNameError, ValueError):
            return None


class SealedUrls:
    """Keeps URLs and finds them again. `link_keys`: the first, the newest, seals; all of them find.

    `seconds` is how long a link lives.
    """

    def __init__(
        self, store: RedisStore, link_keys: Sequence[bytes], *, seconds: float, clock: Clock
    ) -> None:
        self._store = store
        self._clock = clock
        self._seals = tuple(map(_Seal, link_keys))
        self._seconds = seconds

    async def keep(self, key_id: KeyId, model: ModelId, files: Mapping[File, ProviderFile]) -> None:
        """Keep these files' entries for this key. Raises `Unavailable` when that cannot be done.

        An entry that exists, and for long enough, is left: most answers are given many times.
        """
        waiting = iter(files.items())
        while page := dict(islice(waiting, FILES_PER_TURN)):
            await self._keep(key_id, model, page)

    async def _keep(self, key_id: KeyId, model: ModelId, files: Mapping[File, ProviderFile]) -> None:
        newest, now = self._seals[0], self._clock.now()
        named = {newest.name(key_id, model, file): place for file, place in files.items()}
        _, values = await self._store.read(list(named))
        new: dict[bytes, bytes] = {}
        for (name, place), sealed in zip(named.items(), values, strict=True):
            known = newest.find(name, sealed)
            if known is None or known[0] != place or not 0 <= now - known[1] < MARGIN * self._seconds:
                new[name] = newest.seal(name, place, now)
        await self._store.put_for(new, (1 + MARGIN) * self._seconds)

    async def find(self, key_id: KeyId, model: ModelId, file: File) -> ProviderFile | None:
        """What this key was last told of this file; None when nothing is kept."""
        wanted = [seal.name(key_id, model, file) for seal in self._seals]
        _, values = await self._store.read(wanted)
        for seal, name, sealed in zip(self._seals, wanted, values, strict=True):
            known = seal.find(name, sealed)
            if known is not None:
                return known[0]
        return None
