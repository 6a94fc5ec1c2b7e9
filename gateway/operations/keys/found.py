"""Found tokens: whose they are, and their revocation. For a secret that was seen where it should not be.

A list of found tokens is a text with one on each line, or the JSON array that secret scanners send: objects
with a `token`, or the tokens themselves. It comes from outside, so its size and the number of its tokens are
bounded. A token is never repeated in a result, an error or a record: it is named by its place in the list,
and by its key's id where it is ours (I8).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.identity.new_keys import may_be_key
from gateway.identity.platform_keys import sha256_of
from gateway.identity.tokens import parse_token
from gateway.model.access import Credential
from gateway.model.errors import BadNameError, Conflict, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.facts import Key
    from gateway.model.names import KeyId, TenantId
    from gateway.model.tenant_records import TenantRecordId
    from gateway.operations.session import OperatorSession

MAX_LIST_BYTES = 8 << 20
MAX_TOKENS = 10_000  # of one list; a scanner sends a few hundred at a time


class FoundKind(StrEnum):
    """What a found token is."""

    OURS = "ours"  # a key that is known here
    UNKNOWN = "unknown"  # it could be a key, and none is known under it
    MISTYPED = "mistyped"  # it looks like one of ours, and its check digits are wrong
    ACCESS_TOKEN = "access-token"  # noqa: S105 -- what it is, and no token
    NO_KEY = "no-key"  # no key can look like that


class FoundToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a found token is, by its place in the list, from 1; the token itself is not in it."""

    place: int
    kind: FoundKind
    key_id: KeyId | None = None
    tenant: TenantId | None = None
    tenant_record: TenantRecordId | None = None  # another tenant may have the name now


class _Scanned(msgspec.Struct, frozen=True):
    token: str


_scanned = msgspec.json.Decoder(list[_Scanned | str])


def parse_found(raw: bytes) -> list[str]:
    """The tokens of a list. Raises `BadNameError`, which repeats nothing of it."""
    if len(raw) > MAX_LIST_BYTES:
        raise BadNameError(f"the list of found tokens has more than {MAX_LIST_BYTES >> 20} MiB; split it")
    text = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if text.startswith(b"["):
        try:
            listed = _scanned.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadNameError(
                "the list of found tokens is no JSON array of tokens, or of objects with a `token`"
            ) from None
        tokens = [(one if isinstance(one, str) else one.token).strip() for one in listed]
    else:
        tokens = [line.strip() for line in text.decode("utf-8", "replace").split("\n")]
        tokens = [line for line in tokens if line]
    if len(tokens) > MAX_TOKENS:
        raise BadNameError(f"the list has {len(tokens)} tokens; at most {MAX_TOKENS}: split it")
    return tokens


async def recognise(
    session: OperatorSession,
    tokens: Sequence[str],
    own: tuple[TenantId | None, TenantRecordId | None] | None = None,
) -> list[FoundToken]:
    """What these tokens are, in order. With `own`, only keys of this tenant's record are known (I3)."""
    kinds = [_kind_of(token) for token in tokens]
    candidates = {token for token, kind in zip(tokens, kinds, strict=True) if kind is FoundKind.UNKNOWN}
    keys = await _find_keys(session, sorted(candidates))
    found = []
    for place, (token, kind) in enumerate(zip(tokens, kinds, strict=True), start=1):
        key = keys.get(token)
        if key is None or own not in {None, (key.tenant, key.tenant_record)}:
            found.append(FoundToken(place=place, kind=kind))
            continue
        found.append(
            FoundToken(
                place=place,
                kind=FoundKind.OURS,
                key_id=key.key_id,
                tenant=key.tenant,
                tenant_record=key.tenant_record,
            )
        )
    return found


async def identify(session: OperatorSession, token: str) -> KeyId:
    """The id of the key that this is. Raises `Conflict`, which does not repeat it."""
    [found] = await recognise(session, [token.strip()])
    if found.key_id is None:
        raise Conflict(f"it is no key of ours: {WHY[found.kind]}")
    return found.key_id


WHY = {
    FoundKind.OURS: "it is a key that is known here",
    FoundKind.UNKNOWN: "no key is known under it: it was never made here, or by another installation",
    FoundKind.MISTYPED: "it looks like one of ours and its check digits are wrong: a part may be missing",
    FoundKind.ACCESS_TOKEN: "it is an access token, which ends by itself within minutes; its record names "
    "the key: `cachegate audit search`",
    FoundKind.NO_KEY: "no key looks like that",
}
"""What is said of a found token of each kind."""


def _kind_of(token: str) -> FoundKind:
    """What a token can be, by its form; `UNKNOWN` for what has to be looked up."""
    if not may_be_key(token):
        return FoundKind.NO_KEY
    if Credential(token).is_token:
        return FoundKind.ACCESS_TOKEN
    try:
        parse_token(token)
    except Refusal:
        return FoundKind.MISTYPED
    return FoundKind.UNKNOWN


async def _find_keys(session: OperatorSession, tokens: Sequence[str]) -> dict[str, Key]:
    """The keys that are known under these tokens, by any pepper."""
    digests = [
        (token, digest)
        for token in tokens
        for digest in session.peppers.digests(sha256_of(Credential(token)))
    ]
    keys = await session.listing.find_keys_by_digest([digest for _, digest in digests])
    return {token: key for (token, _), key in zip(digests, keys, strict=True) if key is not None}
