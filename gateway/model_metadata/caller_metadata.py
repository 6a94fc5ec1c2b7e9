"""Make one caller's view of a model's metadata, with a link for each file that it may read.

The provider or the cache says which files a package has. Whether the caller may read a package is decided
here, package by package, as for a download: packages that it may not read are not shown. Then each file gets
the URL that it will be fetched by:

* ours, when the file is in the cache now, under the digest that the answer names;
* ours as well, when it is not and is to be streamed through us: always where the client sends everything
  through us (`SECURE_GATEWAY`), else when `relay` is on. The provider's URL is then kept, sealed. In either
  case the digest is kept: a link serves what its key was last told;
* else the provider's own.

A file without a digest has one origin for ever (`origins.py`), whatever else would apply today. In the form
for `SECURE_GATEWAY` it is always ours, and no fact is needed.

Without a provider, an answer whose links are all ours is kept for its caller: it is the same while the disk,
the facts and the minute to which links are rounded are (`links.py`).

So no client ever gives us a URL that we then fetch: we stream only from URLs that the provider gave us.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.engine.answers import narrowed, rewritten
from gateway.engine.faults import undecided
from gateway.engine.signed_proxy_urls import wrap_signed
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.hidden_fields import shown
from gateway.model.verdicts import Allowed, Denied, EngineAnswer
from gateway.model_metadata.sealed_urls import ProviderFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.decisions import Decisions
    from gateway.engine.answers import MetadataPage, PackageFile
    from gateway.model.access import Principal, WireRequest
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.ports import Catalogue
    from gateway.model.stamps import Stamp
    from gateway.model_metadata.attestations import Attestations
    from gateway.model_metadata.link_effects import Minting
    from gateway.model_metadata.links import Links
    from gateway.model_metadata.origins import Origins
    from gateway.model_metadata.sealed_urls import SealedUrls
    from gateway.model_metadata.sources import Metadata
    from gateway.platform.inquiry import ProviderRequest
    from gateway.platform.upstream import ProviderReply
    from gateway.resource.disk_checks import SeenOnDisk
    from gateway.resource.raw_model import RawPackage

    File = tuple[PackageId, FileHandle]

REMEMBERED_BYTES = 16 << 20  # of answers with their links
GIVEN_BYTES = 1_500  # of one, beside its body, its query and the answer that it was made of
MAX_REMEMBERED_QUERY_BYTES = 512

FILES_AT_ONCE = 200  # whose links are made on the event loop: 3 ms; for more of them a thread is used


@dataclass(slots=True)
class _Places:
    """Where the files of one answer are."""

    ours: set[File] = field(default_factory=set)
    held: dict[File, PackageFile] = field(default_factory=dict)
    elsewhere: dict[File, ProviderFile] = field(default_factory=dict)
    unhashed: list[File] = field(default_factory=list)

    def in_cache(self, file: File) -> ProviderFile:
        """What is told of a file that is served from the cache."""
        return ProviderFile(url=None, md5=self.held[file].md5 if file in self.held else None)


class _Given(msgspec.Struct, frozen=True):
    """What a caller was told, and what that was made of. It contains signed URLs: never printed."""

    body: bytes
    answer: MetadataPage  # the very object that `LocalMetadata` keeps while the disk is the same
    stamp: Stamp
    links_expire_at: int

    def __repr__(self) -> str:
        return shown(self, hidden=("body", "answer"))


class Offers:
    """Answers the engine's requests for metadata."""

    def __init__(
        self,
        *,
        metadata: Metadata,
        decisions: Decisions,
        catalogue: Catalogue,
        origins: Origins,
        sealed: SealedUrls,
        links: Links,
        public_url: str,
        is_relaying: bool,
        minting: Minting,
        attestations: Attestations | None,
    ) -> None:
        self._metadata = metadata
        self._decisions = decisions
        self._catalogue = catalogue
        self._origins = origins
        self._sealed = sealed
        self._links = links
        self._public_url = public_url
        self._is_relaying = is_relaying
        self._minting = minting
        self._attestations = attestations
        self.memory: BoundedMemory[tuple[Principal, bytes, bool], _Given] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES, weigh=_held_bytes, stands_on=lambda given: given.stamp.leaves
        )

    def stat_now(
        self, inquiry: Callable[[], ProviderRequest], allowed: Allowed, looks: SeenOnDisk
    ) -> tuple[EngineAnswer, Stamp] | None:
        """As `stat`, from memory alone; None where that has to be asked."""
        if self._metadata.has_upstream and allowed.access.principal.token_id is not None:
            return None  # refused by `stat`, whatever the provider said to the key
        body = self._metadata.stat_now(inquiry, allowed, looks)
        return None if body is None else (EngineAnswer(body=body), allowed.stamp)

    def weights_now(
        self, request: WireRequest, allowed: Allowed, looks: SeenOnDisk, *, is_wrapped: bool
    ) -> tuple[EngineAnswer, Stamp] | None:
        """As `weights`, from memory alone; None where that has to be asked."""
        principal = allowed.access.principal
        given = self.memory.find((principal, request.query, is_wrapped))
        if given is None or given.links_expire_at != self._links.expires_at(principal.token_ends_at):
            return None
        if given.answer is not self._metadata.weights_now(allowed, looks):
            return None
        return EngineAnswer(body=given.body), allowed.stamp.joined(given.stamp)

    async def stat(self, inquiry: ProviderRequest) -> tuple[EngineAnswer, Stamp]:
        """The answer to `/stat`."""
        self._verify_may_be_asked(inquiry)
        reply = await self._metadata.stat(inquiry)
        return EngineAnswer(body=reply.what), inquiry.allowed.stamp.joined(reply.stamp)

    async def weights(self, inquiry: ProviderRequest, *, is_wrapped: bool) -> tuple[EngineAnswer, Stamp]:
        """The answer to `/weights`; with `is_wrapped` all links are in `/proxy?url=` form.

        For a token of an outside issuer none are made: a link lives for an hour and names a key that can be
        looked up by itself, while such a token ends in minutes and its rights follow from its own claims.
        """
        self._verify_may_be_asked(inquiry)
        if inquiry.allowed.access.principal.issuer is not None:
            raise Refusal(Reason.NO_LINKS)
        reply = await self._metadata.weights(inquiry, self._not_ours)
        if self._attestations is not None and not reply.is_local:
            await self._attestations.note(reply.what.model, _digests_of(reply.what))
        answer, stamp = await self._permitted(inquiry, reply)
        places = await self._look(answer, is_local=reply.is_local)
        if is_wrapped:
            places.ours.update(places.held, places.elsewhere)
        else:
            await self._apply_origins(answer.model, places)
        await self._keep(inquiry, answer.model, places)
        if places.ours:
            await self._minting.note(inquiry.allowed.access.principal, answer.model, places.held)
        link = self._link(inquiry, answer.model, places, is_wrapped=is_wrapped)
        files = sum(len(one.files) for one in answer.packages)
        if files <= FILES_AT_ONCE:
            links_expire_at = self._links.expires_at(inquiry.allowed.access.principal.token_ends_at)
            body = rewritten(answer, link)
            if reply.is_local and len(places.ours) == files and not places.unhashed:
                self._remember(
                    inquiry, _Given(body, reply.what, stamp, links_expire_at), is_wrapped=is_wrapped
                )
            return EngineAnswer(body=body), stamp
        body = await asyncio.to_thread(rewritten, answer, link)
        return EngineAnswer(body=body), stamp

    def _verify_may_be_asked(self, inquiry: ProviderRequest) -> None:
        """Raise for a token where a provider would be asked with it: it could be used here by who gets it."""
        principal = inquiry.allowed.access.principal
        has_token = principal.token_id is not None or principal.issuer is not None
        if has_token and self._metadata.has_upstream:
            raise Refusal(Reason.NO_LINKS)

    def _remember(self, inquiry: ProviderRequest, given: _Given, *, is_wrapped: bool) -> None:
        """Keep an answer that nobody has to be asked or told about when it is given again."""
        principal, query = inquiry.allowed.access.principal, inquiry.request.query
        if self._metadata.has_upstream or principal.is_of_platform:
            return
        is_current = given.links_expire_at == self._links.expires_at(principal.token_ends_at)
        if is_current and len(query) <= MAX_REMEMBERED_QUERY_BYTES:
            self.memory.put((principal, query, is_wrapped), given)

    async def _permitted(
        self, inquiry: ProviderRequest, reply: ProviderReply[MetadataPage]
    ) -> tuple[MetadataPage, Stamp]:
        """The answer with the packages that the caller may read, and the stamp of those decisions."""
        answer, stamp = reply.what, inquiry.allowed.stamp.joined(reply.stamp)
        packages = [one.package for one in answer.packages]
        resources = [Resource(kind=ResourceKind.PACKAGE, model=answer.model, package=one) for one in packages]
        if answer.withheld:  # their ids are shown to callers that may read the whole model
            resources.append(Resource(kind=ResourceKind.MODEL, model=answer.model))
        access = replace(inquiry.allowed.access, action=Action.READ)
        judgements = await self._decisions.reach_many([replace(access, resource=one) for one in resources])
        for judgement in judgements:
            stamp = stamp.joined(judgement.facts.stamp)
            if not judgement.facts.is_confirmed:  # the platform's allow ended while its answer was fetched
                raise undecided("what it said ended meanwhile")
        verdicts = [judgement.verdict for judgement in judgements]
        if all(isinstance(verdict, Allowed) for verdict in verdicts):
            return answer, stamp
        shown = {
            one for one, verdict in zip(packages, verdicts, strict=False) if isinstance(verdict, Allowed)
        }
        if not shown:
            raise Refusal(next(verdict.reason for verdict in verdicts if isinstance(verdict, Denied)))
        return narrowed(answer, shown), stamp

    async def _look(self, answer: MetadataPage, *, is_local: bool) -> _Places:
        """Determine which files the cache has, and where the others are."""
        places = _Places()
        for package, files in _files_of(answer):
            handles = [file.handle for file in files]
            entries = await self._catalogue.entries(answer.model, package, handles)
            for file in files:
                here, name = entries.get(file.handle), (package, file.handle)
                if here is not None and (is_local or here.md5 == file.md5):
                    places.held[name] = file
                    if file.md5 is not None or is_local:
                        places.ours.add(name)
                if file.download_url is not None and name not in places.held:
                    places.elsewhere[name] = ProviderFile(url=file.download_url, md5=file.md5)
                    if file.md5 is not None and self._is_relaying:
                        places.ours.add(name)
                if file.md5 is None:
                    places.unhashed.append(name)
        return places

    async def _apply_origins(self, model: ModelId, places: _Places) -> None:
        """Apply the recorded origins of files without a digest."""
        if not places.unhashed:
            return
        wanted = {name: name in places.held or self._is_relaying for name in places.unhashed}
        for name, is_ours in (await self._origins.determine(model, wanted)).items():
            if is_ours:
                places.ours.add(name)
            elif self._metadata.has_upstream:
                places.ours.discard(name)

    async def _not_ours(self, model: ModelId, packages: Sequence[RawPackage]) -> frozenset[PackageId]:
        """Packages that the cache must not describe: one of their files always has the provider's URL."""
        if not self._metadata.has_upstream:
            return frozenset()
        names = [(one.package, handle) for one in packages for handle in sorted(one.unhashed)]
        known = await self._origins.find(model, names) if names else {}
        return frozenset(package for (package, _), is_ours in known.items() if not is_ours)

    async def _keep(self, inquiry: ProviderRequest, model: ModelId, places: _Places) -> None:
        """Keep what is told of each file that gets our link: that is what the link will serve."""
        if not self._metadata.has_upstream:
            return
        told = {file: places.elsewhere.get(file) or places.in_cache(file) for file in places.ours}
        try:
            await self._sealed.keep(inquiry.key_id, model, told)
        except Unavailable:
            # As in `relay.py`, a tenant with a degraded mode is served what the cache has.
            if not inquiry.allowed.access.principal.degraded_seconds or places.elsewhere.keys() & places.ours:
                raise

    def _link(
        self, inquiry: ProviderRequest, model: ModelId, places: _Places, *, is_wrapped: bool
    ) -> Callable[[PackageId, PackageFile], str]:
        def link(package: PackageId, file: PackageFile) -> str:
            if (package, file.handle) not in places.ours:
                return file.download_url or ""
            ends_at = inquiry.allowed.access.principal.token_ends_at
            url = self._links.url(inquiry.key_id, model, package, file.handle, token_ends_at=ends_at)
            return wrap_signed(self._public_url, url) if is_wrapped else url

        return link


def _held_bytes(key: tuple[Principal, bytes, bool], given: _Given) -> int:
    answer = 3 * len(given.body) + given.answer.held_bytes  # it may be kept by nothing else
    return GIVEN_BYTES + getsizeof(key[0].key_name) + len(key[1]) + len(given.body) + answer


def _digests_of(answer: MetadataPage) -> frozenset[Md5]:
    return frozenset(file.md5 for _, files in _files_of(answer) for file in files if file.md5 is not None)


def _files_of(answer: MetadataPage) -> Iterator[tuple[PackageId, tuple[PackageFile, ...]]]:
    for package in answer.packages:
        yield package.package, package.files
