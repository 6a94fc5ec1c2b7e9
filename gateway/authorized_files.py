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
    from gateway.model.listings import ListedPackage, PackageListing
    from gateway.model.names import Md5, ModelId, PackageId
    from gateway.model.ports import Catalogue, Directory
    from gateway.model.stamps import Leaf
    from gateway.model.verdicts import Denied, Found, OpenFile
    from gateway.pinning.checks import PinChecks
    from gateway.resource.disk_checks import SeenOnDisk
    from gateway.resource.held_files import HeldFiles
    from gateway.resource.held_listings import HeldListings

T = TypeVar("T")

FIRST_PAGE = Page(after=None, limit=100)  # where the request names no page
PACKAGES_PER_TURN = 500  # searched in some 50 microseconds, then other requests run
DECIDED_NOW = 100  # decisions recalled for one listing without a pause: some 300 microseconds


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
        held_listings: HeldListings | None = None,
        attestations: CountsLinks | None = None,
    ) -> None:
        self._attestations = attestations  # None: every link on disk counts
        self._decisions = decisions
        self._catalogue = catalogue
        self._pins = pins
        self._held_files = held_files
        self._held_listings = held_listings
        self._caller_views = CallerViews(
            directory=directory, decisions=decisions, catalogue=catalogue, max_bytes=views_bytes
        )
        of_listings = () if held_listings is None else (held_listings.memory,)
        self.memories = (*self._caller_views.memories, *of_listings)  # for the regular sweep

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

    def resolve_now(self, access: Access, looks: SeenOnDisk) -> Access | None:
        """As `resolve`, from memory alone; None where it has to be asked.

        The first of the caller's packages that may list the digest has to be one whose link to the blob is
        known, and there now: otherwise another package might be the one to serve it from.
        """
        md5, principal = access.resource.md5, access.principal
        packages = None if md5 is None else self._caller_views.recall_packages(principal)
        if md5 is None or packages is None or len(packages) > PACKAGES_PER_TURN or self._held_files is None:
            return None
        listed = next((one for one in packages if one.may_list(md5)), None)
        if listed is None:
            return None
        handle = self._held_files.find_handle(listed.model, listed.package, md5)
        if handle is None:
            return None
        held = self._held_files.find(listed.model, listed.package, handle, looks)
        if held is None or self._recall_attested(held.file) is None:
            return None
        file = Resource(kind=ResourceKind.FILE, model=listed.model, package=listed.package, file=handle)
        candidate = replace(access, resource=file)
        judgement = self._decisions.recall(candidate)
        is_allowed = judgement is not None and isinstance(judgement.verdict, Allowed)
        return candidate if is_allowed else None

    async def _listing(self, principal: Principal, md5: Md5) -> list[ListedPackage]:
        """The caller's own packages that may contain a blob. All are searched, whatever the digest is."""
        packages = await self._caller_views.packages(principal)
        found: list[ListedPackage] = []
        for start in range(0, len(packages), PACKAGES_PER_TURN):
            batch = packages[start : start + PACKAGES_PER_TURN]
            found += [one for one in batch if one.may_list(md5)]
            await asyncio.sleep(0)
        return found

    def reason_now(self, denied: Denied) -> Reason | None:
        """As `answer_to`, where the disk has no say; else None."""
        depends_on_disk = denied.may_discover and denied.model and denied.access.resource.package
        return None if depends_on_disk else denied.reason

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
                found = await self._list_files(model, resource.package, resource.page or FIRST_PAGE)
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

    async def _list_files(self, model: ModelId, package: PackageId, page: Page) -> PackageListing | None:
        held = self._held_listings
        before = () if held is None else held.checks_of_package(model, package)
        after = None if page.after is None else FileHandle(page.after)
        found = await self._catalogue.listing(model, package, after=after, limit=page.limit)
        if held is not None and found is not None:
            held.hold_listing(found, page, before)
        return found

    def find_now(
        self, allowed: Allowed, looks: SeenOnDisk, *, needs_content: bool, may_open: bool
    ) -> tuple[Found, Stamp] | None:
        """As `find`, without waiting; None where `find` has to be asked.

        `looks` are shared by all that is answered in this event loop iteration. A known file whose content is
        not in memory is opened if `may_open`, and otherwise not found.
        """
        access, resource, model = allowed.access, allowed.access.resource, allowed.model
        if resource.kind is ResourceKind.FILE:  # what is asked for most
            return self._file_now(allowed, looks, needs_content=needs_content, may_open=may_open)
        match resource.kind:
            case ResourceKind.SELF:
                return Identity(principal=access.principal), allowed.stamp
            case ResourceKind.CATALOGUE:
                return self._page_now(access, resource.page or FIRST_PAGE, allowed.stamp)
            case ResourceKind.MODEL if model:
                return self._model_now(allowed, model, looks)
            case ResourceKind.PACKAGE if model and resource.package and self._held_listings:
                page = resource.page or FIRST_PAGE
                listing = self._held_listings.find_listing(model, resource.package, page, looks)
                return None if listing is None else (listing, allowed.stamp)
            case _:
                return None

    def _file_now(
        self, allowed: Allowed, looks: SeenOnDisk, *, needs_content: bool, may_open: bool
    ) -> tuple[OpenFile, Stamp] | None:
        resource, model = allowed.access.resource, allowed.model
        if self._held_files is None or not (model and resource.package and resource.file):
            return None
        held = self._held_files.find(model, resource.package, resource.file, looks)
        if held is None or not isinstance(held.file, HeldFile):
            return None
        attested = () if self._attestations is None else self._recall_attested(held.file)
        if attested is None:
            return None
        if needs_content and held.file.content is None:
            again = self._held_files.open_again(held) if may_open else None
            if again is None:
                return None
            held = again
        stamp = allowed.stamp
        return held.file, Stamp(stamp.generation, stamp.leaves + held.leaves + attested)

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
        held = self._held_listings
        before = () if held is None else held.checks_of_model(model)
        packages = await self._catalogue.packages(model)
        if held is not None:
            held.hold_packages(model, packages, before)
        shown, stamp = await self._keep(packages, _of_packages(allowed, packages), allowed.stamp)
        if not shown:
            raise Refusal(Reason.ABSENT)
        return ModelListing(model=model, packages=shown), stamp

    def _model_now(
        self, allowed: Allowed, model: ModelId, looks: SeenOnDisk
    ) -> tuple[ModelListing, Stamp] | None:
        """As `_model`, from memory alone; None where that has to be asked."""
        packages = self._held_listings and self._held_listings.find_packages(model, looks)
        if not packages:
            return None
        kept = self._keep_now(packages, _of_packages(allowed, packages), allowed.stamp)
        return None if kept is None or not kept[0] else (ModelListing(model=model, packages=kept[0]), kept[1])

    async def _keep(
        self, things: Sequence[T], questions: Sequence[Access], stamp: Stamp
    ) -> tuple[tuple[T, ...], Stamp]:
        """The things whose access is allowed, and the stamp extended by the facts of all these decisions."""
        return _keep(things, await self._decisions.reach_many(questions), stamp)

    def _keep_now(
        self, things: Sequence[T], questions: Sequence[Access], stamp: Stamp
    ) -> tuple[tuple[T, ...], Stamp] | None:
        """As `_keep`, from memory alone; None where that has to be asked."""
        if len(questions) > DECIDED_NOW:
            return None
        judgements: list[Judgement] = []
        for question in questions:
            judgement = self._decisions.recall(question)
            if judgement is None:
                return None
            judgements.append(judgement)
        return _keep(things, judgements, stamp)

    def _page_now(self, access: Access, page: Page, stamp: Stamp) -> tuple[CataloguePage, Stamp] | None:
        """As `_page`, from memory alone; None where that has to be asked."""
        models = self._caller_views.recall_models(access.principal)
        if models is None:
            return None
        shown, more = _cut(models, page)
        kept = self._keep_now(shown, [discovery(access.principal, one) for one in shown], stamp)
        if kept is None:
            return None
        return CataloguePage(models=kept[0], after=shown[-1] if more else None), kept[1]

    async def _page(self, access: Access, page: Page, stamp: Stamp) -> tuple[CataloguePage, Stamp]:
        models = await self._caller_views.models(access.principal)
        shown, more = _cut(models, page)
        # Each model on the page is decided again, and the facts go into the stamp. So the last check before
        # the first byte covers the page, however old the remembered listing was.
        kept, stamp = await self._keep(shown, [discovery(access.principal, one) for one in shown], stamp)
        return CataloguePage(models=kept, after=shown[-1] if more else None), stamp


def _cut(models: Sequence[ModelId], page: Page) -> tuple[Sequence[ModelId], bool]:
    """The models on a page, and whether more follow."""
    start = bisect_right(models, page.after) if page.after else 0
    end = start + page.limit
    return models[start:end], end < len(models)


def _of_packages(allowed: Allowed, packages: Sequence[PackageId]) -> list[Access]:
    """The same access to each of these packages."""
    asked = allowed.access.resource
    return [
        replace(allowed.access, resource=replace(asked, kind=ResourceKind.PACKAGE, package=package))
        for package in packages
    ]


def _keep(things: Sequence[T], judgements: Sequence[Judgement], stamp: Stamp) -> tuple[tuple[T, ...], Stamp]:
    # Merged once: a thousand decisions depend on tens of thousands of records, most of them shared.
    stamps = [stamp, *(judgement.facts.stamp for judgement in judgements)]
    leaves = {id(leaf): leaf for one in stamps for leaf in one.leaves}
    together = Stamp(min(one.generation for one in stamps), tuple(leaves.values()))
    return _allowed(things, judgements), together


def _allowed(things: Sequence[T], judgements: Sequence[Judgement]) -> tuple[T, ...]:
    return tuple(
        one
        for one, judgement in zip(things, judgements, strict=True)
        if isinstance(judgement.verdict, Allowed)
    )
