"""Origins: whose URL is used for a file without a digest, decided once and kept for ever.

The engine refuses a package for good when the URL of such a file changes. So the first answer that hands one
out decides for all later ones, for every worker and after every restart: ours stays ours, even when the file
has left the cache, and is then streamed from the provider; the provider's stays the provider's. Query
parameters that the engine takes for a signature may change.

It is a fact like any other: one small record a file, written in one audited change with all files of the
answer that are new. We know only the host and the path of *our* links; whether the provider keeps its own
URLs stable is outside our control.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.directory.edits.provenance import determine_origins
from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_origin
from gateway.model.errors import Conflict, Reason, Refusal
from gateway.model.facts import Origin
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.model.clocks import Clock
    from gateway.model.names import FileHandle, ModelId, PackageId
    from gateway.model.ports import FactSource
    from gateway.model.stamps import Leaf
    from gateway.pinning.ledger import Perform

    File = tuple[PackageId, FileHandle]

MAX_NAMED = 100  # files that the audit record of one change names, beside their number


class Origins:
    """Origins of files, as one worker knows them."""

    def __init__(self, *, source: FactSource, perform: Perform, clock: Clock, actor: str) -> None:
        self._source = source
        self._perform = perform
        self._clock = clock
        self._actor = actor

    async def find(self, model: ModelId, files: Sequence[File]) -> dict[File, bool]:
        """For each file with a recorded origin: whether it is ours. Raises `Refusal` for a broken record."""
        _, leaves = await self._source.read([names.origin_fact(model, *file) for file in files])
        return _known(model, files, leaves)

    async def determine(self, model: ModelId, wanted: Mapping[File, bool]) -> dict[File, bool]:
        """Whether the origin is ours, for each file; where none is recorded yet, `wanted` is recorded."""
        known = await self.find(model, list(wanted))
        new = [file for file in wanted if file not in known]
        if not new:
            return known
        # What this worker has in memory may be a moment old; read again, so that no needless change is
        # recorded.
        _, leaves = await self._source.read_afresh([names.origin_fact(model, *file) for file in new])
        known |= _known(model, new, leaves)
        origins = [
            Origin(model=model, package=file[0], handle=file[1], is_ours=wanted[file], source=self._actor)
            for file in new
            if file not in known
        ]
        if origins:
            try:
                done = await self._perform(
                    self._change(model, origins), partial(determine_origins, origins=origins)
                )
            except Conflict as error:  # a record that does not parse was written meanwhile
                raise Refusal(Reason.UNREADABLE_FACT) from error
            known |= {(one.package, one.handle): one.is_ours for one in done.result}
        return known

    def _change(self, model: ModelId, origins: Sequence[Origin]) -> Change:
        named = [
            f"{one.package}/{one.handle} {'ours' if one.is_ours else 'provider'}"
            for one in origins[:MAX_NAMED]
        ]
        subject = (model, f"{len(origins)} files", *named)
        return Change(
            actor=self._actor, action="links.origin", subject=subject, received_at=self._clock.now()
        )


def _known(model: ModelId, files: Sequence[File], leaves: Sequence[Leaf]) -> dict[File, bool]:
    known: dict[File, bool] = {}
    for file, leaf in zip(files, leaves, strict=True):
        if leaf.value is None:
            continue
        try:
            known[file] = decode_origin(leaf.value, model, *file).is_ours
        except UnreadableRecordError as error:
            raise Refusal(Reason.UNREADABLE_FACT) from error
    return known
