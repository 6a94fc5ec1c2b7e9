"""What of the caches a caller may have: the rules and the disk put together, for the guard.

The rules know names, the catalogue knows the disk, and neither knows the other. Three questions
need both: through which of the caller's own files a blob may be read, which models a listing shows,
and whether a thing that the caller may discover is there at all. Blobs are found from the caller's
packages, never from the digest (I2), and all of these are gone through whatever the digest is, so
that a blob of somebody else and one that is nowhere cost the same and answer the same (I3).
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.caller_views import CallerViews, discovery
from gateway.model.access import Access, Page, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Stamp
from gateway.model.listings import CataloguePage, ModelListing
from gateway.model.names import FileHandle
from gateway.model.verdicts import Allowed, HeldFile, Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.decisions import Decisions, Judgement
    from gateway.model.access import Principal
    from gateway.model.facts import Leaf
    from gateway.model.listings import ListedPackage
    from gateway.model.names import Md5, ModelId
    from gateway.model.ports import Catalogue, Directory
    from gateway.model.verdicts import Denied, Found, OpenFile
    from gateway.pinning.checks import PinChecks
    from gateway.resource.held_files import HeldFiles

T = TypeVar("T")

FIRST_PAGE = Page(after=None, limit=100)  # where nobody said which
PACKAGES_PER_TURN = 500  # some 50 microseconds of looking, then other requests get their turn


class CountsLinks(Protocol):
    """Who says whether a link to a shared blob counts: `Attestations`."""

    def recall(self, model: ModelId, md5: Md5) -> tuple[Leaf, ...] | None:
        """What a link stands on that is known to count. Waits for nothing."""

    async def verify(self, principal: Principal, model: ModelId, md5: Md5) -> tuple[Leaf, ...]:
        """What it stands on. Raises `Refusal(UNATTESTED)` if it does not count."""


class AuthorizedFiles:
    """The caller's view of the caches."""

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
        self._attestations = attestations  # None: every link counts as it lies on disk
        self._decisions = decisions
        self._catalogue = catalogue
        self._pins = pins
        self._held_files = held_files
        self._caller_views = CallerViews(
            directory=directory, decisions=decisions, catalogue=catalogue, max_bytes=views_bytes
        )
        self.memories = self._caller_views.memories  # what is remembered, to be swept

    async def resolve(self, access: Access) -> Access:
        """Turn a blob into the file of the caller's own through which it may be read."""
        if access.resource.kind is not ResourceKind.BLOB or access.resource.md5 is None:
            return access
        for listed in await self._listing(access.principal, access.resource.md5):
            handle = await self._catalogue.find_blob(listed.model, listed.package, access.resource.md5)
            await asyncio.sleep(0)  # a package was looked at; others get their turn
            if handle is None:
                continue
            file = Resource(kind=ResourceKind.FILE, model=listed.model, package=listed.package, file=handle)
            candidate = replace(access, resource=file)
            judgement = await self._decisions.reach(candidate)
            if isinstance(judgement.verdict, Allowed) and await self._counts(access, listed.model):
                return candidate
        raise Refusal(Reason.NOT_PERMITTED)

    async def _listing(self, principal: Principal, md5: Md5) -> list[ListedPackage]:
        """The caller's own packages that may hold a blob. All are gone through, whatever the digest."""
        packages = await self._caller_views.packages(principal)
        found: list[ListedPackage] = []
        for start in range(0, len(packages), PACKAGES_PER_TURN):
            turn = packages[start : start + PACKAGES_PER_TURN]
            found += [one for one in turn if one.may_list(md5)]
            await asyncio.sleep(0)
        return found

    async def answer_to(self, denied: Denied) -> Reason:
        """The reason a denied caller is answered by: 403 only for what it may discover and is there."""
        resource, model = denied.access.resource, denied.model
        if not denied.may_discover or model is None or resource.package is None:
            return denied.reason
        is_there = await self._catalogue.has(model, resource.package, resource.file)
        return denied.reason if is_there else Reason.ABSENT

    async def find(self, allowed: Allowed) -> tuple[Found, Stamp]:
        """The thing itself, looked up on the disk now, and the stamp of what that stands on.

        Raises `Refusal(ABSENT)` when it is not there, and `Refusal(QUARANTINED)` for a file whose content
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
                return await self._counting(access, *await self._settled(opened, allowed.stamp))
            case _:
                raise Refusal(Reason.NO_ROUTE)
        if found is None:
            raise Refusal(Reason.ABSENT)
        return found, allowed.stamp

    async def _settled(self, file: OpenFile, stamp: Stamp) -> tuple[OpenFile, Stamp]:
        """The file as the pins know it; it is closed when nobody will get it."""
        try:
            file = await self._pins.settle(file)
            settled = self._pins.stamped(file, stamp)
            if self._held_files is not None:
                self._held_files.hold(file, settled.leaves[len(stamp.leaves) :])
            return file, settled  # noqa: TRY300 -- whatever is raised here, the file has to be closed
        except BaseException:
            os.close(file.descriptor)
            raise

    def find_now(self, allowed: Allowed, stamp: Stamp) -> tuple[HeldFile, Stamp] | None:
        """A small file that is in memory and on disk still the same; None where `find` has to be asked."""
        resource, model = allowed.access.resource, allowed.model
        if self._held_files is None or not (model and resource.package and resource.file):
            return None
        held = self._held_files.find(model, resource.package, resource.file)
        if held is None or not isinstance(held.file, HeldFile):
            return None
        word = self._recall_word(held.file)
        return (
            None if word is None else (held.file, Stamp(stamp.generation, stamp.leaves + held.leaves + word))
        )

    def has_still(self, found: Found) -> bool:
        """Whether this very file is in memory, and on disk still the same."""
        if self._held_files is None or not isinstance(found, HeldFile):
            return False
        held = self._held_files.find(found.model, found.package, found.handle)
        return held is not None and held.file is found and self._recall_word(found) is not None

    def _recall_word(self, file: OpenFile) -> tuple[Leaf, ...] | None:
        """What this file's link stands on, beside the disk, if memory knows that it counts."""
        if self._attestations is None or file.md5 is None:
            return ()
        return self._attestations.recall(file.model, file.md5)

    async def _counting(self, access: Access, file: OpenFile, stamp: Stamp) -> tuple[OpenFile, Stamp]:
        """The file, if its link counts, with what that stands on; it is closed when it does not."""
        if self._attestations is None or file.md5 is None:
            return file, stamp
        try:
            word = await self._attestations.verify(access.principal, file.model, file.md5)
        except BaseException:
            os.close(file.descriptor)
            raise
        return file, Stamp(stamp.generation, stamp.leaves + word)

    async def _counts(self, access: Access, model: ModelId) -> bool:
        """Whether the model's link to the blob that is asked for counts."""
        if self._attestations is None or access.resource.md5 is None:
            return True
        try:
            await self._attestations.verify(access.principal, model, access.resource.md5)
        except Refusal:
            return False
        return True

    async def _model(self, allowed: Allowed, model: ModelId) -> tuple[ModelListing, Stamp]:
        """Those of its packages that the caller may discover; a model without one is not there for it."""
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
        """The things whose question is answered with yes, and the stamp with all these answers in it."""
        judgements = await self._decisions.reach_many(questions)
        # Put together once: a thousand answers stand on tens of thousands of records, most of them shared.
        stamps = [stamp, *(judgement.facts.stamp for judgement in judgements)]
        leaves = {id(leaf): leaf for one in stamps for leaf in one.leaves}
        together = Stamp(min(one.generation for one in stamps), tuple(leaves.values()))
        return _allowed(things, judgements), together

    async def _page(self, access: Access, page: Page, stamp: Stamp) -> tuple[CataloguePage, Stamp]:
        visible = await self._caller_views.models(access.principal)
        start = bisect_right(visible, page.after) if page.after else 0
        shown = visible[start : start + page.limit]
        # Each model that is shown is decided on facts that go into the stamp, so that the last
        # check before the first byte covers the page, however old the remembered listing was.
        kept, stamp = await self._keep(shown, [discovery(access.principal, one) for one in shown], stamp)
        more = start + page.limit < len(visible)
        return CataloguePage(models=kept, after=shown[-1] if more else None), stamp


def _allowed(things: Sequence[T], judgements: Sequence[Judgement]) -> tuple[T, ...]:
    return tuple(
        one
        for one, judgement in zip(things, judgements, strict=True)
        if isinstance(judgement.verdict, Allowed)
    )
