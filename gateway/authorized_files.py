"""Finds in the caches what a caller may have: combines decisions with the catalogue of the disk.

The rules know names and the catalogue knows the disk. Three questions of the guard need both: through which
of the caller's own files a blob may be read, which models a listing shows, and whether something that the
caller may discover exists at all. Blobs are looked up from the caller's packages, never from the digest (I2).
All of these packages are searched, whatever the digest is, so that a blob of another tenant and one that does
not exist cost the same and get the same answer (I3).
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec.structs import replace

from gateway.caller_views import CallerViews, discovery
from gateway.model.access import Access, Page, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.listings import CataloguePage, ModelListing
from gateway.model.names import FileHandle
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Allowed, HeldFile, Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.decisions import Decisions, Judgement
    from gateway.model.access import Principal
    from gateway.model.listings import ListedPackage
    from gateway.model.names import Md5, ModelId
    from gateway.model.ports import Catalogue, Directory
    from gateway.model.stamps import Leaf
    from gateway.model.verdicts import Denied, Found, OpenFile
    from gateway.pinning.checks import PinChecks
    from gateway.resource.held_files import HeldFiles

T = TypeVar("T")

FIRST_PAGE = Page(after=None, limit=100)  # where the request names no page
PACKAGES_PER_TURN = 500  # searched in some 50 microseconds, then other requests run


class CountsLinks(Protocol):
    """Tells whether a link to a shared blob counts as permission: `Attestations`."""

    def recall(self, model: ModelId, md5: Md5) -> tuple[Leaf, ...] | None:
        """The facts by which the link counts, if memory has them; else None. No I/O."""

    async def verify(self, principal: Principal, model: ModelId, md5: Md5) -> tuple[Leaf, ...]:
        """The facts by which the link counts. Raises `Refusal(UNATTESTED)` if it does not."""


class AuthorizedFiles:
    """Looks up resources in the caches on behalf of a caller."""

    def __init__(
        self,
        *,
        directory: Directory,
        decisions: Decisions,
        catalogue: Catalogue,
        pins: PinChecks,
        views_bytes: int,
        held_files: HeldFiles | None = None,
        attestations: CountsLinks | None = None,
    ) -> None:
        self._attestations = attestations  # None: every link on disk counts
        self._decisions = decisions
        self._catalogue = catalogue
        self._pins = pins
        self._held_files = held_files
        self._caller_views = CallerViews(
            directory=directory, decisions=decisions, catalogue=catalogue, max_bytes=views_bytes
        )
        self.memories = self._caller_views.memories  # for the regular sweep

    async def resolve(self, access: Access) -> Access:
        """Replace a blob by the caller's own file through which it may be read."""
        if access.resource.kind is not ResourceKind.BLOB or access.resource.md5 is None:
            return access
        for listed in await self._listing(access.principal, access.resource.md5):
            handle = await self._catalogue.find_blob(listed.model, listed.package, access.resource.md5)
            await asyncio.sleep(0)  # other requests run between two packages
            if handle is None:
                continue
            file = Resource(kind=ResourceKind.FILE, model=listed.model, package=listed.package, file=handle)
            candidate = replace(access, resource=file)
            judgement = await self._decisions.reach(candidate)
            if isinstance(judgement.verdict, Allowed) and await self._counts(access, listed.model):
                return candidate
        raise Refusal(Reason.NOT_PERMITTED)

    async def _listing(self, principal: Principal, md5: Md5) -> list[ListedPackage]:
        """The caller's own packages that may contain a blob. All are searched, whatever the digest is."""
        packages = await self._caller_views.packages(principal)
        found: list[ListedPackage] = []
        for start in range(0, len(packages), PACKAGES_PER_TURN):
            batch = packages[start : start + PACKAGES_PER_TURN]
            found += [one for one in batch if one.may_list(md5)]
            await asyncio.sleep(0)
        return found

    async def answer_to(self, denied: Denied) -> Reason:
        """The reason to answer a denial with: 403 only for what the caller may discover and what exists."""
        resource, model = denied.access.resource, denied.model
        if not denied.may_discover or model is None or resource.package is None:
            return denied.reason
        is_there = await self._catalogue.has(model, resource.package, resource.file)
        return denied.reason if is_there else Reason.ABSENT

    async def find(self, allowed: Allowed) -> tuple[Found, Stamp]:
        """The resource, looked up on the disk now, with the stamp of the facts that it depends on.

        Raises `Refusal(ABSENT)` when it does not exist, and `Refusal(QUARANTINED)` for a file whose content
        is not what it should be.
        """
        found: Found | None
        access, resource, model = allowed.access, allowed.access.resource, allowed.model
        match resource.kind:
            case ResourceKind.SELF:
                found = Identity(principal=access.principal)
            case ResourceKind.CATALOGUE:
                return await self._page(access, resource.page or FIRST_PAGE, allowed.stamp)
            case ResourceKind.MODEL if model:
                return await self._model(allowed, model)
            case ResourceKind.PACKAGE if model and resource.package:
                page = resource.page or FIRST_PAGE
                after = None if page.after is None else FileHandle(page.after)
                found = await self._catalogue.listing(model, resource.package, after=after, limit=page.limit)
            case ResourceKind.FILE if model and resource.package and resource.file:
                known = self._held_files and self._held_files.reopen(model, resource.package, resource.file)
                if known:
                    stamp = Stamp(allowed.stamp.generation, allowed.stamp.leaves + known.leaves)
                    return await self._counting(access, known.file, stamp)
                opened = await self._catalogue.open_file(model, resource.package, resource.file)
                if opened is None:
                    raise Refusal(Reason.ABSENT)
                return await self._counting(access, *await self._verified(opened, allowed.stamp))
            case _:
                raise Refusal(Reason.NO_ROUTE)
        if found is None:
            raise Refusal(Reason.ABSENT)
        return found, allowed.stamp

    async def _verified(self, file: OpenFile, stamp: Stamp) -> tuple[OpenFile, Stamp]:
        """The file after the check of its pin; it is closed when the check fails."""
        try:
            file = await self._pins.determine(file)
            pinned = self._pins.stamped(file, stamp)
            if self._held_files is not None:
                self._held_files.hold(file, pinned.leaves[len(stamp.leaves) :])
            return file, pinned  # noqa: TRY300 -- whatever is raised here, the file has to be closed
        except BaseException:
            os.close(file.descriptor)
            raise

    def find_now(self, allowed: Allowed, stamp: Stamp) -> tuple[HeldFile, Stamp] | None:
        """A small file that is in memory and unchanged on disk; None where `find` has to be asked."""
        resource, model = allowed.access.resource, allowed.model
        if self._held_files is None or not (model and resource.package and resource.file):
            return None
        held = self._held_files.find(model, resource.package, resource.file)
        if held is None or not isinstance(held.file, HeldFile):
            return None
        attested = self._recall_attested(held.file)
        return (
            None
            if attested is None
            else (held.file, Stamp(stamp.generation, stamp.leaves + held.leaves + attested))
        )

    def has_still(self, found: Found) -> bool:
        """Whether this very file is still in memory, and unchanged on disk."""
        if self._held_files is None or not isinstance(found, HeldFile):
            return False
        held = self._held_files.find(found.model, found.package, found.handle)
        return held is not None and held.file is found and self._recall_attested(found) is not None

    def _recall_attested(self, file: OpenFile) -> tuple[Leaf, ...] | None:
        """The facts by which this file's link counts; None when memory does not know. Empty: none needed."""
        if self._attestations is None or file.md5 is None:
            return ()
        return self._attestations.recall(file.model, file.md5)

    async def _counting(self, access: Access, file: OpenFile, stamp: Stamp) -> tuple[OpenFile, Stamp]:
        """The file and its stamp, if its link counts; it is closed when it does not."""
        if self._attestations is None or file.md5 is None:
            return file, stamp
        try:
            attested = await self._attestations.verify(access.principal, file.model, file.md5)
        except BaseException:
            os.close(file.descriptor)
            raise
        return file, Stamp(stamp.generation, stamp.leaves + attested)

    async def _counts(self, access: Access, model: ModelId) -> bool:
        """Whether the model's link to the requested blob counts."""
        if self._attestations is None or access.resource.md5 is None:
            return True
        try:
            await self._attestations.verify(access.principal, model, access.resource.md5)
        except Refusal:
            return False
        return True

    async def _model(self, allowed: Allowed, model: ModelId) -> tuple[ModelListing, Stamp]:
        """The packages that the caller may discover. A model without any is absent for this caller."""
        packages = await self._catalogue.packages(model)
        asked = allowed.access.resource
        questions = [
            replace(allowed.access, resource=replace(asked, kind=ResourceKind.PACKAGE, package=package))
            for package in packages
        ]
        shown, stamp = await self._keep(packages, questions, allowed.stamp)
        if not shown:
            raise Refusal(Reason.ABSENT)
        return ModelListing(model=model, packages=shown), stamp

    async def _keep(
        self, things: Sequence[T], questions: Sequence[Access], stamp: Stamp
    ) -> tuple[tuple[T, ...], Stamp]:
        """The things whose access is allowed, and the stamp extended by the facts of all these decisions."""
        judgements = await self._decisions.reach_many(questions)
        # Merged once: a thousand decisions depend on tens of thousands of records, most of them shared.
        stamps = [stamp, *(judgement.facts.stamp for judgement in judgements)]
        leaves = {id(leaf): leaf for one in stamps for leaf in one.leaves}
        together = Stamp(min(one.generation for one in stamps), tuple(leaves.values()))
        return _allowed(things, judgements), together

    async def _page(self, access: Access, page: Page, stamp: Stamp) -> tuple[CataloguePage, Stamp]:
        models = await self._caller_views.models(access.principal)
        start = bisect_right(models, page.after) if page.after else 0
        shown = models[start : start + page.limit]
        # Each model on the page is decided again, and the facts go into the stamp. So the last check before
        # the first byte covers the page, however old the remembered listing was.
        kept, stamp = await self._keep(shown, [discovery(access.principal, one) for one in shown], stamp)
        more = start + page.limit < len(models)
        return CataloguePage(models=kept, after=shown[-1] if more else None), stamp


def _allowed(things: Sequence[T], judgements: Sequence[Judgement]) -> tuple[T, ...]:
    return tuple(
        one
        for one, judgement in zip(things, judgements, strict=True)
        if isinstance(judgement.verdict, Allowed)
    )
