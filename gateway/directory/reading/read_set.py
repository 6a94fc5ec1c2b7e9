"""The records read for one answer: each decoded once and listed in the answer's stamp.

Records are read in as few round trips as possible. The stamp then lists exactly the leaves that the answer
used, absent ones included: the absence of a rule can decide as much as a rule. Records that do not parse are
kept here, so that each answer that uses them reports them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.directory.records import names
from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_alias,
    decode_grants,
    decode_rule,
)
from gateway.directory.records.fact_sizes import held_bytes
from gateway.model.names import ancestors
from gateway.model.periods import PeriodClock, PeriodLeaf, PeriodState, Span
from gateway.model.stamps import Leaf, Stamp
from gateway.model.standing import standing_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gateway.model.facts import Alias, Grant, ModelRule, Standing
    from gateway.model.names import ModelId, TenantId
    from gateway.model.periods import HasPeriod
    from gateway.model.ports import FactSource
    from gateway.model.tenant_records import TenantRecordId

    Reading = Awaitable[tuple[int, list[Leaf]]]

_T = TypeVar("_T")
_UNREADABLE = object()

DECODED_HERE_BYTES = 32 * 1024  # of a record: about 2 ms of decoding
# A catalogue page asks for thousands of names; one huge MGET would delay all other clients.
MAX_NAMES_PER_READ = 1_000


class HeldGrants(msgspec.Struct, frozen=True, kw_only=True):
    """The grants of a tenant by their state now. The same tuples are returned while nothing changes."""

    in_force: tuple[Grant, ...] = ()
    ended: tuple[Grant, ...] = ()
    ahead: tuple[Grant, ...] = ()


NO_GRANTS = HeldGrants()


class ReadSet:
    """What was read for one answer: leaves by name, the oldest generation, the names that do not parse."""

    def __init__(
        self,
        source: FactSource,
        report: Callable[[str], None] | None = None,
        clock: PeriodClock | None = None,
    ) -> None:
        """Without a clock, nothing that begins or ends is in force."""
        self.leaves: dict[bytes, Leaf] = {}
        self.unreadable: dict[bytes, str] = {}
        self._generations: list[int] = []
        self._source = source
        self._report = report
        self._clock = clock or PeriodClock(None)
        self._within: dict[bytes, Leaf] = {}  # what stands in a stamp in place of a record's own leaf

    async def fetch(self, wanted: Iterable[bytes]) -> None:
        """Read what has not been read yet, from memory where it is cached."""
        await self._read(wanted, self._source.read)

    def fetch_now(self, wanted: Sequence[bytes]) -> bool:
        """Take from memory what has not been read yet; whether all of it was there."""
        missing = [name for name in dict.fromkeys(wanted) if name not in self.leaves]
        leaves = self._source.find(missing)
        if leaves is None:
            return False
        self.leaves.update(zip(missing, leaves, strict=True))
        return True

    async def fetch_afresh(self, wanted: Iterable[bytes]) -> None:
        """Read what has not been read yet from the store, whatever is cached."""
        await self._read(wanted, self._source.read_afresh)

    async def decode_aside(self, name: bytes, decode: Callable[[bytes], _T]) -> None:
        """Decode a large record in a thread before it is used, so that the event loop is not blocked."""
        leaf = self.leaves[name]
        if leaf.value is None or leaf.decoded is not None or len(leaf.value) <= DECODED_HERE_BYTES:
            return
        try:
            fact, size = await asyncio.to_thread(_decoded, decode, leaf.value)
        except UnreadableRecordError:
            return  # `decoded` reports it
        if leaf.decoded is None:
            leaf.keep(fact, size)

    def decoded(self, name: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """Return the fact under a name; None if it is absent or, after a report, does not parse.

        A leaf is decoded once and shared: one name is always decoded the same way.
        """
        leaf = self.leaves[name]
        if leaf.value is None or name in self.unreadable:
            return None
        if leaf.decoded is None:
            try:
                leaf.keep(*_decoded(decode, leaf.value))
            except UnreadableRecordError:
                leaf.decoded = _UNREADABLE
        if leaf.decoded is _UNREADABLE:
            self.unreadable[name] = name.decode(errors="replace")
            if self._report is not None:
                self._report(self.unreadable[name])
            return None
        return leaf.decoded  # type: ignore[return-value] # one name is always decoded the same way

    def alias_of(self, model: ModelId) -> Alias | None:
        """Return the alias of this name, if it is one."""
        return self.decoded(names.alias_fact(model), partial(decode_alias, alias=model))

    def standing_of(self, model: ModelId) -> Standing:
        """Return a model's standing now by those of its rules that parse."""
        rules: list[ModelRule] = []
        for pattern in ancestors(model):
            name = names.rule_fact(pattern)
            rule = self.decoded(name, partial(decode_rule, pattern=pattern))
            if rule is not None:
                rules.append(rule)
                if rule.has_times:
                    self._hold_within(name, [rule], lambda _now, _latest: None)
        return standing_of(rules, self._clock.now(), self._clock.latest)

    def grants_of(self, tenant: TenantId, record_id: TenantRecordId | None) -> HeldGrants:
        """Return the grants of exactly this record of a tenant: not of another one of the same name."""
        name = names.grants_fact(tenant)
        leaf = self.leaves[name]
        record = self.decoded(name, partial(decode_grants, tenant_id=tenant))
        if record is None or record.tenant_record != record_id:
            return NO_GRANTS
        if leaf.within is None and not record.has_times:
            leaf.within = HeldGrants(in_force=record.grants)
        if isinstance(leaf.within, HeldGrants):
            return leaf.within
        return self._hold_within(name, record.grants, partial(_split, record.grants))

    def _hold_within(
        self,
        name: bytes,
        periods: Sequence[HasPeriod],
        say: Callable[[float, float], _T],
    ) -> _T:
        """Return what a record says now, and put a leaf that ends with it into the stamps.

        It is one leaf for all answers until then: grants may be a megabyte, and are charged once.
        """
        leaf = self.leaves[name]
        within = leaf.within
        if not isinstance(within, PeriodLeaf) or not within.is_current:
            now = self._clock.now()
            begins, ends = (one.not_before for one in periods), (one.expires_at for one in periods)
            span = Span.around(begins, ends, now, self._clock.latest)
            within = PeriodLeaf(leaf, say(now, self._clock.latest), span, self._clock)
            leaf.within = within
        self._within[name] = within
        said: _T = within.said
        return said

    def stamp(self, used: Iterable[bytes]) -> Stamp:
        """Return the stamp of an answer that used these names."""
        leaves = tuple(self._within.get(name) or self.leaves[name] for name in used)
        return Stamp(min(self._generations, default=0), leaves)

    async def _read(self, wanted: Iterable[bytes], read: Callable[[Sequence[bytes]], Reading]) -> None:
        missing = [name for name in dict.fromkeys(wanted) if name not in self.leaves]
        for start in range(0, len(missing), MAX_NAMES_PER_READ):
            page = missing[start : start + MAX_NAMES_PER_READ]
            generation, leaves = await read(page)
            self._generations.append(generation)
            self.leaves.update(zip(page, leaves, strict=True))


def _split(grants: Sequence[Grant], now: float, latest: float) -> HeldGrants:
    """Sort grants by their state."""
    by_state: dict[PeriodState, list[Grant]] = {state: [] for state in PeriodState}
    for grant in grants:
        by_state[grant.state_at(now, latest)].append(grant)
    return HeldGrants(
        in_force=tuple(by_state[PeriodState.IN_FORCE]),
        ended=tuple(by_state[PeriodState.ENDED]),
        ahead=tuple(by_state[PeriodState.NOT_YET]),
    )


def decode_nothing(decode: Callable[[bytes], object], raw: bytes) -> None:
    """Decode a record for nobody, in all steps of `ReadSet.decoded`, for the time that they take."""
    Leaf(b"", raw).keep(*_decoded(decode, raw))


def _decoded(decode: Callable[[bytes], _T], raw: bytes) -> tuple[_T, int]:
    """Decode the fact, and compute its size."""
    fact = decode(raw)
    return fact, held_bytes(fact, raw)


def names_about(models: Iterable[ModelId]) -> list[bytes]:
    """Return the names of all records about these models: the alias, and the rules that may cover each."""
    about: list[bytes] = []
    for model in models:
        about.append(names.alias_fact(model))
        about += map(names.rule_fact, ancestors(model))
    return about
