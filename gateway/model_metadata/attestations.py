"""Attestations: which links to blobs count where several owners may link the same blob (I2).

The engine links whatever blob a model's metadata names, and anyone who can write to the volume can link any.
So with `shared_links = "attested"` a link to a blob that other owners' packages may link as well counts only
where the provider's metadata of that very model named the digest, or an operator attested it (I2).

Other owners are determined from the last scan and from the facts: the models whose packages may list the
digest, and who owns each by our rules. An attestation is needed if a model has no known owner, if a digest in
the scan only begins alike (which cannot be distinguished without reading the manifest), and if there are too
many models (`MAX_OTHERS`).

A positive result is cached with what it depends on: that scan's list and the records that were read. A
refusal is determined anew each time. Off by default; then none of this is called.
"""

from __future__ import annotations

import asyncio
from functools import partial
from operator import itemgetter
from sys import getsizeof
from typing import TYPE_CHECKING

from gateway.authorized_files import PACKAGES_PER_TURN
from gateway.directory.edits.provenance import attest
from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_attestation
from gateway.directory.records.fact_sizes import held_bytes
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Conflict, Reason, Refusal
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.listings import ListedPackage
    from gateway.model.names import Md5, ModelId
    from gateway.model.ports import Catalogue, Directory, FactSource
    from gateway.model.stamps import Leaf
    from gateway.pinning.ledger import Perform

    Standing = tuple[object, tuple[Leaf, ...]]
    """The scan, and the records, that the result depends on."""

SOURCE_PROVIDER = "provider"
MAX_OTHERS = 200  # models whose owners are looked up; a blob that more of them share needs an attestation
REMEMBERED_LINKS = 16_384
REMEMBERED_BYTES = 32 << 20  # with the records: at worst, those of two hundred models for one link
LINK_BYTES = 300  # of one, beside its model's name and the records


class Attestations:
    """Which links count, as one worker knows it."""

    def __init__(
        self,
        *,
        directory: Directory,
        source: FactSource,
        catalogue: Catalogue,
        perform: Perform,
        clock: Clock,
        actor: str,
    ) -> None:
        self._directory = directory
        self._source = source
        self._catalogue = catalogue
        self._perform = perform
        self._clock = clock
        self._actor = actor
        self._listed: Sequence[ListedPackage] | None = None
        # represents the list in the cache's entries, so that no former list is kept in memory
        self._scan = object()
        self.memory: BoundedMemory[tuple[ModelId, Md5], Standing] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES,
            max_entries=REMEMBERED_LINKS,
            weigh=lambda link, standing: LINK_BYTES + getsizeof(link[0]) + 8 * len(standing[1]),
            stands_on=itemgetter(1),
            is_over=lambda standing: standing[0] is not self._scan_of(catalogue.listed()),
        )

    def recall(self, model: ModelId, md5: Md5) -> tuple[Leaf, ...] | None:
        """The records that a link known to count depends on, if nothing has changed. Does not wait."""
        known = self.memory.find((model, md5))
        return None if known is None else known[1]

    async def verify(self, principal: Principal, model: ModelId, md5: Md5) -> tuple[Leaf, ...]:
        """The records that the link depends on. Raises `Refusal(UNATTESTED)` if it does not count."""
        known = self.recall(model, md5)
        if known is not None:
            return known
        listed = self._catalogue.listed()
        scan = self._scan_of(listed)
        leaves = await self._find_owned(principal, model, await _others(listed, model, md5))
        if leaves is None:
            leaf, digests = await self._attested(model)
            if md5 not in digests:
                raise Refusal(Reason.UNATTESTED)
            leaves = (leaf,)
        self.memory.put((model, md5), (scan, leaves))
        return leaves

    async def note(self, model: ModelId, digests: Iterable[Md5]) -> None:
        """Record that the provider's metadata of this model named these digests.

        Written only if some are new.
        """
        named = frozenset(digests)
        _, known = await self._attested(model)
        if named <= known:
            return
        change = Change(
            actor=self._actor,
            action="cache.attest",
            subject=(model, f"{len(named - known)} digests named by the provider"),
            received_at=self._clock.now(),
        )
        try:
            await self._perform(change, partial(attest, model=model, digests=named, source=SOURCE_PROVIDER))
        except Conflict as error:  # its record does not parse, or there are too many digests
            raise Refusal(Reason.UNREADABLE_FACT) from error

    def _scan_of(self, listed: Sequence[ListedPackage]) -> object:
        """The object that represents the catalogue's current list."""
        if listed is not self._listed:
            self._listed, self._scan = listed, object()
        return self._scan

    async def _find_owned(
        self, principal: Principal, model: ModelId, others: Sequence[ModelId]
    ) -> tuple[Leaf, ...] | None:
        """The records that show one owner for all of these models; None when they do not."""
        if not others:
            return ()
        if len(others) > MAX_OTHERS:
            return None
        facts = await self._directory.gather(principal, [model, *others])
        owners = {
            (one.requested_standing.owner, one.requested_standing.owner_record)
            if one.requested_standing and one.requested_standing.owner
            else None
            for one in facts
        }
        if len(owners) != 1 or None in owners or any(one.unreadable for one in facts):
            return None
        return tuple({id(leaf): leaf for one in facts for leaf in one.stamp.leaves}.values())

    async def _attested(self, model: ModelId) -> tuple[Leaf, frozenset[Md5]]:
        _, [leaf] = await self._source.read([names.attestation_fact(model)])
        if leaf.value is None:
            return leaf, frozenset()
        if leaf.decoded is None:
            try:
                digests = decode_attestation(leaf.value, model).digests
            except UnreadableRecordError as error:
                raise Refusal(Reason.UNREADABLE_FACT) from error
            leaf.keep(digests, held_bytes(digests, leaf.value))
        return leaf, leaf.decoded  # type: ignore[return-value] # one name is always decoded the same way


async def _others(listed: Sequence[ListedPackage], model: ModelId, md5: Md5) -> list[ModelId]:
    """The other models whose packages may link the blob, as of the scan."""
    found: dict[ModelId, None] = {}
    for start in range(0, len(listed), PACKAGES_PER_TURN):
        turn = listed[start : start + PACKAGES_PER_TURN]
        found |= dict.fromkeys(one.model for one in turn if one.model != model and one.may_list(md5))
        await asyncio.sleep(0)
    return list(found)
