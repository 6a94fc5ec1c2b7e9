"""Make the signed URLs that we hand out for files of the cache.

    https://gateway.example/d/acme/cars/1/-/pkgA1/weights.onnx?se=1795173480&sig=key_0123456789ab.aGVs...

This module connects the grammar of paths, the signature, and the spelling of both in a URL. A link is made
after a decision and decides nothing itself: whether its key may read the file is decided anew at every
request that comes with it.

A link that was made with an access token names the key behind it, and ends with the token: otherwise a token
could be exchanged for what lives longer.

Host and path of a file's link never change. Links of one key that are handed out within one minute are equal
to the byte: their expiry is rounded up, so that repeated metadata answers are equal, and the worker need not
distinguish their callers.

A proxy in front may have us below a path of its own (`public_url`); it removes that prefix, and the signature
covers the rest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.credential.extract_link import link_query
from gateway.identity.links import sign
from gateway.resource.paths import download_link

if TYPE_CHECKING:
    from gateway.identity.links import LinkKeys
    from gateway.model.clocks import Clock
    from gateway.model.names import FileHandle, KeyId, ModelId, PackageId

EXPIRY_STEP_SECONDS = 60  # a link lives for up to a minute longer than the setting says


class Links:
    """Makes links for callers that were just allowed to read a file."""

    def __init__(self, *, public_url: str, keys: LinkKeys, link_seconds: int, clock: Clock) -> None:
        self._public_url = public_url.rstrip("/")
        self._keys = keys
        self._link_seconds = link_seconds
        self._clock = clock

    def expires_at(self, token_ends_at: float | None = None) -> int:
        """The time at which links that are made now expire; with a token, not after it."""
        ends_at = self._clock.now() + self._link_seconds
        rounded = math.ceil(ends_at / EXPIRY_STEP_SECONDS) * EXPIRY_STEP_SECONDS
        return rounded if token_ends_at is None else min(rounded, math.floor(token_ends_at))

    def url(
        self,
        key_id: KeyId,
        model: ModelId,
        package: PackageId,
        handle: FileHandle,
        *,
        token_ends_at: float | None = None,
    ) -> str:
        """The URL of a file for this key. It is a secret of the caller's, as the key is (I8)."""
        path, expires_at = download_link(model, package, handle), self.expires_at(token_ends_at)
        mac = sign(self._keys, key_id=key_id, expires_at=expires_at, signed=path.encode("ascii"))
        return f"{self._public_url}{path}?{link_query(key_id, expires_at, mac)}"
