"""Count what records say was used, day by day: one counting for commands that read a log and for roll-ups.

An allow counts as a read or a run, its outcome gives the bytes that were sent, and a refusal counts by its
reason. A model is named only where something was allowed: names in refused requests are chosen by strangers.

Everything is bounded. Beyond `MAX_ROWS` of a day, and the smaller bounds of one tenant, what is new is
counted under `OTHER`: sums stay right, and no caller can fill the disk with names.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.record import (
    ChangeRecord,
    DecisionRecord,
    OutcomeRecord,
    SummaryRecord,
)

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import Record

OTHER: Final = "(other)"
MAX_ROWS: Final = 50_000  # of a day: about 5 MB
MAX_ROWS_OF_TENANT: Final = 4000
MAX_TENANTS: Final = 5000  # of a day
MAX_REASONS: Final = 200  # of a key: more than there are
MAX_NETWORKS: Final = 64  # of a key
MAX_PENDING: Final = 10_000  # allows without an outcome, the newest
MAX_NAME_CHARACTERS: Final = 512

READ, INFER = "read", "infer"
_NETWORK_BITS: Final = {4: 24, 6: 48}
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z", re.ASCII)
_DAY_CHARACTERS: Final = len("2026-11-30")
_JOINT: Final = "\n"  # between a tenant's name and the id of its record


class UsageCounts(msgspec.Struct, array_like=True):
    """What one key did with one model in a day. Times are texts, as records have them."""

    reads: int = 0
    runs: int = 0  # by an inference server
    bytes: int = 0
    first: str = ""
    last: str = ""


class KeyUsage(msgspec.Struct, array_like=True):
    """What one key did in a day."""

    models: dict[str, UsageCounts] = {}
    refusals: dict[str, int] = {}  # by reason
    networks: dict[str, int] = {}  # decisions by the network that they came from
    changes: dict[str, int] = {}  # by action


class TenantUsage(msgspec.Struct, array_like=True):
    """What the keys of one tenant record did in a day."""

    keys: dict[str, KeyUsage] = {}
    rows: int = 0


class UsageDay(msgspec.Struct, array_like=True):
    """One day. `place` says up to where in the order its records are counted."""

    day: str
    order: str = ""
    place: int = 0
    tenants: dict[str, TenantUsage] = {}
    rows: int = 0


class PendingUse(msgspec.Struct, array_like=True, frozen=True):
    """An allow whose outcome has not come."""

    tenant: str
    key: str
    model: str


class UsageTally:
    """Counts records."""

    def __init__(self) -> None:
        self.days: dict[str, UsageDay] = {}
        self.pending: OrderedDict[str, PendingUse] = OrderedDict()

    def day(self, name: str) -> UsageDay:
        """The counts of a day."""
        found = self.days.get(name)
        if found is None:
            found = self.days[name] = UsageDay(name)
        return found

    def take(self, record: Record, order: str = "", place: int = 0) -> None:
        """Count one record, unless its day has counted its place in the order already."""
        if not isinstance(record, DecisionRecord | OutcomeRecord | SummaryRecord | ChangeRecord):
            return
        if not _TIME.fullmatch(record.time):
            return  # of a forged record: a day is the name of a file
        day = self.day(record.time[:_DAY_CHARACTERS])
        if day.order == order and 0 < place <= day.place:
            self._remember(record)
            return
        day.order, day.place = order, place
        match record:
            case DecisionRecord():
                self._take_decision(day, record)
            case OutcomeRecord():
                self._take_outcome(day, record)
            case SummaryRecord():
                self._take_summary(day, record)
            case ChangeRecord():
                _add(self._key(day, "", record.actor).changes, record.action, MAX_REASONS)

    def _take_decision(self, day: UsageDay, record: DecisionRecord) -> None:
        tenant = joined(record.tenant, record.tenant_record)
        key = self._key(day, tenant, record.key_id or record.claimed_key_id or "")
        network = network_of(record.request.client)
        if network in key.networks or self._has_room(day, tenant):
            _add(key.networks, network, MAX_NETWORKS)
        if record.decision != "allow":
            _add(key.refusals, record.reason, MAX_REASONS)
            return
        self._remember(record)
        if record.action in {READ, INFER}:
            counts = self._counts(day, tenant, record.key_id or "", _model(record), record.time)
            if record.action == READ:
                counts.reads += 1
            else:
                counts.runs += 1

    def _take_outcome(self, day: UsageDay, record: OutcomeRecord) -> None:
        use = self.pending.pop(record.decision_id, None)
        if use is None:
            use = PendingUse(joined(record.tenant, record.tenant_record), record.key_id or "", "")
        if record.bytes:
            self._counts(day, use.tenant, use.key, use.model, record.time).bytes += record.bytes
        if record.reason is not None:
            _add(self._key(day, use.tenant, use.key).refusals, record.reason, MAX_REASONS)

    def _take_summary(self, day: UsageDay, record: SummaryRecord) -> None:
        tenant = joined(record.tenant, record.tenant_record)
        key = self._key(day, tenant, record.claimed_key_id or "")
        for reason, count in record.reasons.items():
            _add(key.refusals, reason, MAX_REASONS, count)
        network = network_of(record.source)
        if network in key.networks or self._has_room(day, tenant):
            _add(key.networks, network, MAX_NETWORKS, record.count)

    def _remember(self, record: Record) -> None:
        """Keep what an outcome does not say: which model it is about."""
        if isinstance(record, OutcomeRecord):
            self.pending.pop(record.decision_id, None)
        elif isinstance(record, DecisionRecord) and record.decision == "allow":
            tenant = joined(record.tenant, record.tenant_record)
            self.pending[record.id] = PendingUse(tenant, record.key_id or "", _model(record))
            if len(self.pending) > MAX_PENDING:
                self.pending.popitem(last=False)

    def _has_room(self, day: UsageDay, tenant: str) -> bool:
        """Whether one more row may be made, which is counted then."""
        of_tenant = day.tenants[tenant] if tenant in day.tenants else day.tenants[OTHER]
        if day.rows >= MAX_ROWS or of_tenant.rows >= MAX_ROWS_OF_TENANT:
            return False
        day.rows += 1
        of_tenant.rows += 1
        return True

    def _key(self, day: UsageDay, tenant: str, key_id: str) -> KeyUsage:
        if tenant not in day.tenants:
            if len(day.tenants) >= MAX_TENANTS:
                tenant = OTHER
            day.tenants.setdefault(tenant, TenantUsage())
        keys = day.tenants[tenant].keys
        found = keys.get(key_id)
        if found is None:
            name = key_id[:MAX_NAME_CHARACTERS] if self._has_room(day, tenant) else OTHER
            found = keys.setdefault(name, KeyUsage())
        return found

    def _counts(self, day: UsageDay, tenant: str, key_id: str, model: str, time: str) -> UsageCounts:
        models = self._key(day, tenant, key_id).models
        counts = models.get(model)
        if counts is None:
            counts = models.setdefault(model if self._has_room(day, tenant) else OTHER, UsageCounts())
        counts.last = max(counts.last, time)
        if not counts.first or time < counts.first:
            counts.first = time
        return counts


def joined(tenant: str | None, tenant_record: str | None) -> str:
    """The name under which a tenant record is counted; empty for no tenant."""
    if tenant is None:
        return ""
    return f"{tenant[:MAX_NAME_CHARACTERS]}{_JOINT}{tenant_record or ''}"


def parted(name: str) -> tuple[str | None, str | None]:
    """The tenant and its record of such a name."""
    tenant, _, record = name.partition(_JOINT)
    return tenant or None, record or None


@lru_cache(4096)
def network_of(client: str) -> str:
    """The network of an address: that of a site, so that a client that moves within it is one."""
    try:
        address = ip_address(client)
    except ValueError:
        return client[:MAX_NAME_CHARACTERS] or OTHER
    return str(ip_network(f"{str(address).partition('%')[0]}/{_NETWORK_BITS[address.version]}", strict=False))


def _model(record: DecisionRecord) -> str:
    resource = record.resource
    if resource is None:
        return ""
    return (resource.model or resource.requested or "")[:MAX_NAME_CHARACTERS]


def _add(counts: dict[str, int], name: str, bound: int, count: int = 1) -> None:
    if name not in counts and len(counts) >= bound:
        name = OTHER
    counts[name] = counts.get(name, 0) + count
