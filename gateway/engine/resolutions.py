"""Parse one entry of the engine's auto-resolution cache: a past answer that a client still uses.

For up to a day, by default, an engine that finds such an entry loads its model without asking the gateway,
even after the key was revoked. The entry names the key by the engine's own hash only.

An entry is parsed as strictly as the engine does where it matters: the fields by which it would be used must
be present and be names; the rest is ignored. One that does not parse is refused, and should be shown as such:
that we cannot parse it does not prove that no engine would.

`created_at` is local time without a zone, that of the machine which wrote it; the zone is passed in.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.engine.credential_hash import parse_credential_hash
from gateway.engine.faults import unservable
from gateway.model.errors import BadNameError
from gateway.model.hidden_fields import shown
from gateway.model.names import parse_model_id, parse_package_id

if TYPE_CHECKING:
    from datetime import tzinfo

    from gateway.engine.credential_hash import CredentialHash
    from gateway.model.names import ModelId, PackageId

RESOLUTIONS = "auto-resolution-cache"
"""The directory of the entries, below the cache root."""

MAX_RESOLUTION_BYTES = 1024 * 1024  # a file takes some 150 bytes in it: six thousand files
DEFAULT_CLIENT_MINUTES = 1440  # the engine's AUTO_LOADER_CACHE_EXPIRATION_MINUTES when it is not set

_ENTRY_NAME = re.compile(r"[0-9a-f]{64}\.json")


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine remembers: for this key, that model id means this package."""

    model: ModelId  # as it was asked for: an alias is kept as such
    canonical_model: ModelId | None
    credential_hash: CredentialHash | None  # None: written by an engine before it had them
    package: PackageId
    created_at: float

    def __repr__(self) -> str:
        return shown(self, hidden=("credential_hash",))


class _RawResolution(msgspec.Struct):
    model_id: str
    model_package_id: str
    resolved_files: list[str]
    task_type: str
    created_at: str
    canonical_model_id: str | None = None
    credential_hash: str | None = None


_DECODER = msgspec.json.Decoder(_RawResolution)


def is_resolution_name(name: str) -> bool:
    """Whether the engine would read a file of this name as an entry."""
    return _ENTRY_NAME.fullmatch(name) is not None


def parse_resolution(raw: bytes, zone: tzinfo) -> Resolution:
    """Parse an entry, with times in this zone. Raises `Refusal(UNSERVABLE)`."""
    if len(raw) > MAX_RESOLUTION_BYTES:
        raise unservable("the entry is larger than any that the engine writes")
    try:
        claimed = _DECODER.decode(raw)
        return Resolution(
            model=parse_model_id(claimed.model_id),
            canonical_model=_parse_optional_id(claimed.canonical_model_id),
            credential_hash=None
            if claimed.credential_hash is None
            else parse_credential_hash(claimed.credential_hash),
            package=parse_package_id(claimed.model_package_id),
            created_at=_parse_time(claimed.created_at, zone),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unservable("the entry is not JSON of the expected shape") from error
    except BadNameError as error:
        raise unservable("the entry holds what is no name or no time") from error


def honoured_until(resolution: Resolution, client_minutes: float = DEFAULT_CLIENT_MINUTES) -> float:
    """Until when engines with this expiry setting load by the entry without asking.

    Such an engine compares with its own clock; one in offline mode never asks.
    """
    return resolution.created_at + client_minutes * 60


def _parse_optional_id(claimed: str | None) -> ModelId | None:
    return None if claimed is None else parse_model_id(claimed)


def _parse_time(claimed: str, zone: tzinfo) -> float:
    try:
        moment = datetime.fromisoformat(claimed)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
    except ValueError as error:
        raise BadNameError("not a time") from error
