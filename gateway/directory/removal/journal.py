"""The journal of a removal: how far it is, and every fact that it took, as it was.

A removal is many transactions. Each one that takes facts writes them into the journal as well, so that an
interrupted removal loses nothing, and what was taken can be given back. Facts are kept as the lines of an
export; no line holds a secret (I8). They expire by themselves some time after nothing can be restored any
more. The head of a removal stays: it says who had the name, and until when.

Nothing here is a fact: no worker reads it, and no decision stands on it.
"""

from __future__ import annotations

from enum import StrEnum
from math import floor
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError
from gateway.directory.transfer.lines import fact_line, parse_fact
from gateway.model.facts import Tenant
from gateway.model.names import TenantId  # noqa: TC001 -- msgspec reads annotations
from gateway.model.records import Count, Text, Time  # noqa: TC001 -- the same
from gateway.model.tenant_records import TenantRecordId  # noqa: TC001 -- the same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.directory.transfer.lines import Fact

KEPT_BEYOND_SECONDS = 30 * 86_400.0  # an interrupted removal still needs what it took to go on
LINES_PER_ENTRY = 500


class RemovalStage(StrEnum):
    """How far a removal is. Interrupted in the first or the third, it goes on from there."""

    REMOVING = "removing"
    REMOVED = "removed"
    RESTORING = "restoring"
    RESTORED = "restored"


class Removal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head of one removal. `line` is the tenant's record as it was, as a line of an export."""

    removal_id: Text
    tenant: TenantId
    record_id: TenantRecordId | None
    stage: RemovalStage
    started_at: Time
    restorable_until: Time
    ended_at: Time | None = None
    entries: Count = 0  # of the journal
    keys: Count = 0  # that were live, and were revoked
    bindings: Count = 0
    line: str

    def owns(self, tenant_id: TenantId | None, record_id: TenantRecordId | None) -> bool:
        """Whether this names the tenant that is removed, and not another one of its name."""
        return (tenant_id, record_id) == (self.tenant, self.record_id)

    def former_tenant(self) -> Tenant:
        """Return the tenant as it was."""
        fact = parse_fact(self.line.encode())
        if not isinstance(fact, Tenant):
            raise UnreadableRecordError("a removal holds another fact than a tenant")
        return fact


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Removal)


def head_of(tenant: Tenant, removal_id: str, now: float, restorable_seconds: float) -> Removal:
    """Return the head of a removal that begins now."""
    return Removal(
        removal_id=removal_id,
        tenant=tenant.tenant_id,
        record_id=tenant.record_id,
        stage=RemovalStage.REMOVING,
        started_at=now,
        restorable_until=float(floor(now + restorable_seconds)),
        line=fact_line(replace(tenant, generation=0, removal=None)).decode(),
    )


async def put_removal(changes: Changes, removal: Removal) -> None:
    """Write the head."""
    await changes.put_listed(names.removal(removal.removal_id), _encoder.encode(removal), names.REMOVALS)


async def note_taken(changes: Changes, removal: Removal, facts: Sequence[Fact], now: float) -> Removal:
    """Write facts into the journal, as they were; return the head, which the caller writes."""
    seconds = max(removal.restorable_until - now, 0.0) + KEPT_BEYOND_SECONDS
    for start in range(0, len(facts), LINES_PER_ENTRY):
        lines = b"".join(map(fact_line, facts[start : start + LINES_PER_ENTRY]))
        await changes.put_for(seconds, names.removal_entry(removal.removal_id, removal.entries), lines)
        removal = replace(removal, entries=removal.entries + 1)
    return removal


async def drop_entries(changes: Changes, removal: Removal) -> Removal:
    """Delete what the journal holds."""
    for number in range(removal.entries):
        await changes.put_for(0, names.removal_entry(removal.removal_id, number), None)
    return replace(removal, entries=0)


async def find_removal(listing: Listing, removal_id: str) -> Removal | None:
    """Return the head of a removal."""
    return await listing.find_fact(names.removal(removal_id), _decode)


async def list_removals(listing: Listing) -> list[Removal]:
    """Return the heads of all removals, the oldest first."""
    found = await listing.find_listed(names.REMOVALS, names.removal, _decode)
    return sorted(found, key=lambda one: (one.started_at, one.removal_id))


async def load_taken(listing: Listing, removal: Removal) -> list[Fact]:
    """Return what the journal holds, in the order in which it was taken."""
    placed = [
        (names.removal_entry(removal.removal_id, number), _decode_entry) for number in range(removal.entries)
    ]
    entries = await listing.find_all(placed)
    return [fact for entry in entries for fact in entry or ()]


def _decode(raw: bytes) -> Removal:
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableRecordError("not the head of a removal") from error


def _decode_entry(raw: bytes) -> list[Fact]:
    return [parse_fact(line) for line in raw.splitlines()]
