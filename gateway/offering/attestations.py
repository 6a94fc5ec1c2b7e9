"""Attestations: which links to shared blobs count, where links across owners need somebody's word.

The engine links whatever blob a model's metadata names, and whoever can write the volume can link any. So
with `shared_links = "attested"` a link to a blob that other owners' packages may link as well counts only
where the provider's metadata of that very model named the digest, or an operator attested it (I2).

"Other owners" is asked of the last scan and of the facts: the models whose packages may list the digest,
and who owns each by our rules. A model without an owner belongs to nobody we know, a digest that only
looks alike cannot be told from one that is the same without reading, and beyond some models nobody
counts: in all of these, an attestation is needed.

What was found to stand is remembered with what it stands on: the list of that scan and the records that
were read. A refusal is found out anew each time. Off by default, and then none of this is asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from gateway.directory import names
from gateway.directory.operations.provenance import attest
from gateway.directory.provenance_records import decode_attestation
from gateway.directory.rows import UnreadableRecordError
from gateway.holdings import PACKAGES_PER_TURN
from gateway.model.errors import Conflict, Reason, Refusal
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model.access import Principal
    from gateway.model.facts import Leaf
    from gateway.model.listings import ListedPackage
    from gateway.model.names import Md5, ModelId
    from gateway.model.ports import Catalogue, Clock, Directory, FactSource
    from gateway.pinning.ledger import Perform

    Standing = tuple[Sequence[ListedPackage], tuple[Leaf, ...]]

SOURCE_PROVIDER = "provider"
MAX_OTHERS = 200  # models whose owners are looked up; a blob that more of them share needs a word
REMEMBERED_LINKS = 16_384


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
        self._standing: OrderedDict[tuple[ModelId, Md5], Standing] = OrderedDict()

    def recall(self, model: ModelId, md5: Md5) -> tuple[Leaf, ...] | None:
        """What a link stands on that was found to count, if nothing moved since. Waits for nothing."""
        known = self._standing.get((model, md5))
        if known is None:
            return None
        listed, leaves = known
        if listed is not self._catalogue.listed() or not all(leaf.is_current for leaf in leaves):
            del self._standing[model, md5]
            return None
        self._standing.move_to_end((model, md5))
        return leaves

    async def verify(self, principal: Principal, model: ModelId, md5: Md5) -> tuple[Leaf, ...]:
        """What the model's link to this blob stands on. Raises `Refusal(UNATTESTED)` if it does not count."""
        known = self.recall(model, md5)
        if known is not None:
            return known
        listed = self._catalogue.listed()
        leaves = await self._find_owned(principal, model, await _others(listed, model, md5))
        if leaves is None:
            leaf, digests = await self._attested(model)
            if md5 not in digests:
                raise Refusal(Reason.UNATTESTED)
            leaves = (leaf,)
        self._standing[model, md5] = listed, leaves
        if len(self._standing) > REMEMBERED_LINKS:
            self._standing.popitem(last=False)
        return leaves

    async def note(self, model: ModelId, digests: Iterable[Md5]) -> None:
        """The provider's metadata of this model named these digests. Written only when some are new."""
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
        except Conflict as error:  # its record does not parse, or no model has so many digests
            raise Refusal(Reason.UNREADABLE_FACT) from error

    async def _find_owned(
        self, principal: Principal, model: ModelId, others: Sequence[ModelId]
    ) -> tuple[Leaf, ...] | None:
        """The records that say that one owner has all of these; None when nobody says so."""
        if not others:
            return ()
        if len(others) > MAX_OTHERS:
            return None
        facts = await self._directory.bring(principal, [model, *others])
        owners = {one.requested_standing.owner if one.requested_standing else None for one in facts}
        if len(owners) != 1 or None in owners or any(one.unreadable for one in facts):
            return None
        return tuple({id(leaf): leaf for one in facts for leaf in one.stamp.leaves}.values())

    async def _attested(self, model: ModelId) -> tuple[Leaf, frozenset[Md5]]:
        _, [leaf] = await self._source.read([names.attestation_fact(model)])
        if leaf.value is None:
            return leaf, frozenset()
        if leaf.decoded is None:
            try:
                leaf.decoded = decode_attestation(leaf.value, model).digests
            except UnreadableRecordError as error:
                raise Refusal(Reason.UNREADABLE_FACT) from error
        return leaf, leaf.decoded  # type: ignore[return-value] # one name is always decoded the same way


async def _others(listed: Sequence[ListedPackage], model: ModelId, md5: Md5) -> list[ModelId]:
    """The other models whose packages may link the blob, as of the scan."""
    found: dict[ModelId, None] = {}
    for start in range(0, len(listed), PACKAGES_PER_TURN):
        turn = listed[start : start + PACKAGES_PER_TURN]
        found |= dict.fromkeys(one.model for one in turn if one.model != model and one.may_list(md5))
        await asyncio.sleep(0)
    return list(found)
