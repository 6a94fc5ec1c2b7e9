"""Blobs among the caller's own packages, listings by the caller's own rights, and the answer to denials."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from gateway.authorized_files import PACKAGES_PER_TURN, AuthorizedFiles
from gateway.caller_views import DECISIONS_PER_TURN
from gateway.decisions import Decisions
from gateway.model.access import Access, Action, Page, Principal, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Facts, KeyKind, PolicySet, Scope
from gateway.model.listings import (
    MARK_DIGITS,
    CataloguePage,
    FileEntry,
    ListedPackage,
    ModelListing,
    PackageListing,
)
from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed, Denied, Identity

MD5, OTHER = Md5("0" * 32), Md5("1" * 32)
PRINCIPAL = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset({Scope.READ}),
    expires_at=None,
)
POLICY = PolicySet(schema="", policies=(), digest="d")


@dataclass
class World:
    """A directory, rules and a catalogue in one; keeps what it was asked.

    `rights` are pairs of action and model, or triples with a package; `disk` is model, package, file
    and digest.
    """

    disk: dict[str, dict[str, dict[str, Md5]]] = field(default_factory=dict)
    rights: set[tuple[str, ...]] = field(default_factory=set)
    generation: int = 1
    asked_disk: list = field(default_factory=list)
    asked_pages: list = field(default_factory=list)
    decided: list = field(default_factory=list)
    leaves: dict = field(default_factory=dict)
    brought: object = None  # called before facts are brought

    def __post_init__(self):
        self.scan()

    def scan(self):
        """What the catalogue finds on disk from now on."""
        self.scanned_models = tuple(sorted(self.disk))
        self.scanned = tuple(
            ListedPackage(
                model=model,
                package=package,
                marks=b"".join(bytes.fromhex(md5[:MARK_DIGITS]) for md5 in files.values()),
            )
            for model, packages in sorted(self.disk.items())
            for package, files in sorted(packages.items())
        )

    def change(self, *models):
        """Change the facts about these models."""
        self.generation += 1
        for model in models:
            if model in self.leaves:
                self.leaves.pop(model).is_current = False

    def authorized_files(self):
        decisions = Decisions(directory=self, rules=self, max_entries=100_000, max_bytes=1 << 30)
        return AuthorizedFiles(
            directory=self, decisions=decisions, catalogue=self, pins=self, views_bytes=1 << 30
        )

    # the directory

    @property
    def epoch(self):
        return self.generation

    async def gather(self, principal, models):
        if self.brought:
            await self.brought(models)
        return [self._facts(model) for model in models]

    def _facts(self, model):
        leaf = self.leaves.setdefault(model, Leaf(str(model).encode(), b""))
        return Facts(
            grants=(),
            requested=model,
            model=model,
            requested_standing=None,
            model_standing=None,
            policy=POLICY,
            stamp=Stamp(self.generation, (leaf,)),
        )

    async def still_true(self, stamp):
        raise AssertionError("the guard's question")

    # the pins

    async def determine(self, file):
        return file

    def stamped(self, file, stamp):
        return stamp

    # the rules

    def decide(self, access, facts):
        self.decided.append((access.action.value, access.resource.model, access.resource.package))
        action, resource = access.action.value, access.resource
        if {(action, resource.model), (action, resource.model, resource.package)} & self.rights:
            return Allowed(
                access=access, model=facts.model, policies=("p",), grant="owner", stamp=facts.stamp
            )
        return Denied(access=access, reason=Reason.NOT_PERMITTED, model=facts.model)

    def decide_many(self, accesses, facts):
        return [self.decide(access, known) for access, known in zip(accesses, facts, strict=True)]

    # the catalogue

    def models(self):
        return self.scanned_models

    def listed(self):
        return self.scanned

    async def packages(self, model):
        self.asked_disk.append(model)
        return tuple(sorted(self.disk.get(model, {})))

    async def listing(self, model, package, *, after=None, limit=None):
        self.asked_disk.append(model)
        self.asked_pages.append((after, limit))
        files = self.disk.get(model, {}).get(package)
        if files is None:
            return None
        entries = tuple(FileEntry(handle=FileHandle(one), size=1, md5=md5) for one, md5 in files.items())
        return PackageListing(model=model, package=package, files=entries)

    async def has(self, model, package, handle):
        self.asked_disk.append(model)
        files = self.disk.get(model, {}).get(package)
        return files is not None and (handle is None or handle in files)

    async def find_blob(self, model, package, md5):
        self.asked_disk.append(model)
        return next((one for one, found in self.disk[model][package].items() if found == md5), None)

    async def open_file(self, model, package, handle):
        self.asked_disk.append(model)

    async def refresh(self, known):
        raise AssertionError("not a request's doing")


def access(kind, action=Action.READ, **names):
    return Access(principal=PRINCIPAL, action=action, resource=Resource(kind=kind, **names))


def blob(md5=MD5):
    return access(ResourceKind.BLOB, md5=md5)


def resolve(world, asked):
    return asyncio.run(world.authorized_files().resolve(asked))


def find(world, asked, *, model=None, authorized_files=None):
    facts = world._facts(model)
    allowed = Allowed(access=asked, model=model, policies=(), grant=None, stamp=facts.stamp)
    return asyncio.run((authorized_files or world.authorized_files()).find(allowed))


DISK = {
    "acme/a": {"p1": {"x.bin": OTHER}, "p2": {"w.bin": MD5}},
    "globex/b": {"p1": {"w.bin": MD5}},
    "orphan/c": {"p1": {"z.bin": Md5("2" * 32)}},
}


class TestBlobs:
    def test_a_blob_becomes_the_callers_own_file_that_links_it(self):
        world = World(DISK, {("discover", "acme/a"), ("read", "acme/a")})
        resource = resolve(world, blob()).resource
        assert resource == Resource(
            kind=ResourceKind.FILE,
            model=ModelId("acme/a"),
            package=PackageId("p2"),
            file=FileHandle("w.bin"),
        )

    def test_a_package_that_may_not_be_read_is_passed_over_for_one_that_may(self):
        rights = {("discover", "acme/a"), ("discover", "globex/b"), ("read", "globex/b")}
        assert resolve(World(DISK, rights), blob()).resource.model == "globex/b"

    @pytest.mark.parametrize(
        "md5", [MD5, Md5("2" * 32), Md5("f" * 32)], ids=["not-read", "hidden", "nowhere"]
    )
    def test_without_a_way_of_the_callers_own_it_is_not_permitted(self, md5):
        world = World(DISK, {("discover", "acme/a"), ("discover", "globex/b")})
        with pytest.raises(Refusal) as refusal:
            resolve(world, blob(md5))
        assert refusal.value.reason is Reason.NOT_PERMITTED

    @pytest.mark.parametrize("md5", [MD5, Md5("2" * 32), Md5("f" * 32)], ids=["others", "hidden", "nowhere"])
    def test_the_disk_is_not_asked_for_a_digest_that_the_callers_own_packages_do_not_list(self, md5):
        world = World(DISK, {("discover", "orphan/c"), ("discover", "acme/a"), ("read", "acme/a", "p1")})
        with pytest.raises(Refusal):
            resolve(world, blob(md5))
        assert world.asked_disk == []

    def test_what_was_noted_and_is_no_longer_on_disk_is_not_permitted(self):
        world = World({"acme/a": {"p1": {"w.bin": MD5}}}, {("discover", "acme/a"), ("read", "acme/a")})
        world.disk["acme/a"]["p1"] = {"w.bin": OTHER}
        with pytest.raises(Refusal):
            resolve(world, blob())
        assert world.asked_disk == ["acme/a"]

    @pytest.mark.parametrize("md5", [MD5, Md5("f" * 32)], ids=["others", "nowhere"])
    def test_every_package_of_the_caller_is_gone_through_for_every_digest(self, md5):
        looked_up = []

        class Listed(ListedPackage):
            def may_list(self, md5):
                looked_up.append(md5)
                return super().may_list(md5)

        world = World(DISK, {("discover", "acme/a"), ("read", "acme/a")})
        world.scanned = tuple(
            Listed(model=one.model, package=one.package, marks=b"\2\2\2\2") for one in world.scanned
        )
        with pytest.raises(Refusal):
            resolve(world, blob(md5))
        assert looked_up == [md5, md5]

    def test_others_get_their_turn_while_thousands_of_packages_are_gone_through(self):
        count = 10 * PACKAGES_PER_TURN
        world = World(
            {"acme/a": {f"p{number:05}": {"x": OTHER} for number in range(count)}},
            {("discover", "acme/a"), ("read", "acme/a")},
        )
        turns = []

        async def watch():
            while True:
                turns.append(len(world.decided))
                await asyncio.sleep(0)

        async def scenario():
            authorized_files = world.authorized_files()
            with pytest.raises(Refusal):
                await authorized_files.resolve(blob())  # the packages are decided once
            watching = asyncio.create_task(watch())
            with pytest.raises(Refusal):
                await authorized_files.resolve(blob())
            watching.cancel()

        asyncio.run(scenario())
        assert len(world.decided) == count + 1
        assert len(turns) >= 10

    def test_what_is_no_blob_stays_what_it_is(self):
        asked = access(ResourceKind.FILE, model=ModelId("acme/a"))
        world = World(DISK)
        assert resolve(world, asked) is asked
        assert world.asked_disk == []


class TestWhatToAnswer:
    """403 only for what the caller may discover and what exists."""

    def answer(self, world, *, may_discover=True, package="p1", file="x.bin"):
        kind = ResourceKind.MODEL if package is None else ResourceKind.FILE if file else ResourceKind.PACKAGE
        asked = access(kind, model=ModelId("acme/a"), package=package, file=file)
        denied = Denied(
            access=asked,
            reason=Reason.MISSING_SCOPE,
            model=ModelId("acme/a"),
            may_discover=may_discover,
        )
        return asyncio.run(world.authorized_files().answer_to(denied))

    def test_what_is_there_is_refused_for_its_reason(self):
        assert self.answer(World(DISK)) is Reason.MISSING_SCOPE
        assert self.answer(World(DISK), file=None) is Reason.MISSING_SCOPE

    def test_what_is_not_there_is_absent(self):
        assert self.answer(World(DISK), file="none.bin") is Reason.ABSENT
        assert self.answer(World(DISK), package="none") is Reason.ABSENT

    def test_the_disk_is_not_asked_about_what_the_caller_may_not_know(self):
        world = World(DISK)
        assert self.answer(world, may_discover=False) is Reason.MISSING_SCOPE
        assert world.asked_disk == []


class TestListings:
    def test_a_model_shows_the_packages_that_may_be_discovered(self):
        world = World(DISK, {("discover", "acme/a", "p2")})
        asked = access(ResourceKind.MODEL, Action.DISCOVER, model=ModelId("acme/a"))
        found, _ = find(world, asked, model=ModelId("acme/a"))
        assert found == ModelListing(model=ModelId("acme/a"), packages=(PackageId("p2"),))

    def test_a_model_without_such_a_package_is_absent(self):
        asked = access(ResourceKind.MODEL, Action.DISCOVER, model=ModelId("acme/a"))
        with pytest.raises(Refusal) as refusal:
            find(World(DISK), asked, model=ModelId("acme/a"))
        assert refusal.value.reason is Reason.ABSENT

    def test_of_a_package_the_page_is_looked_for_that_was_asked_for(self):
        world = World(DISK)
        page = Page(after="w.bin", limit=7)
        for asked in (page, None):
            about = access(ResourceKind.PACKAGE, model=ModelId("acme/a"), package=PackageId("p1"), page=asked)
            find(world, about, model=ModelId("acme/a"))
        assert world.asked_pages == [("w.bin", 7), (None, 100)]

    @pytest.mark.parametrize("kind", [ResourceKind.PACKAGE, ResourceKind.FILE])
    def test_what_is_not_on_disk_is_absent(self, kind):
        file = FileHandle("x.bin") if kind is ResourceKind.FILE else None
        asked = access(kind, model=ModelId("acme/a"), package=PackageId("none"), file=file)
        with pytest.raises(Refusal) as refusal:
            find(World(DISK), asked, model=ModelId("acme/a"))
        assert refusal.value.reason is Reason.ABSENT

    def test_oneself_is_found_without_any_disk(self):
        world = World(DISK)
        found, _ = find(world, access(ResourceKind.SELF, Action.IDENTIFY))
        assert found == Identity(principal=PRINCIPAL)
        assert world.asked_disk == []

    def test_a_blob_that_nobody_resolved_is_served_to_nobody(self):
        with pytest.raises(Refusal):
            find(World(DISK), blob())


def page_of(world, authorized_files, after=None, limit=100):
    page = Page(after=after, limit=limit)
    found, stamp = find(
        world, access(ResourceKind.CATALOGUE, Action.DISCOVER, page=page), authorized_files=authorized_files
    )
    assert isinstance(found, CataloguePage)
    return found, stamp


class TestPages:
    def world(self, count, hidden=()):
        disk = {f"m/{number:04}": {} for number in range(count)}
        rights = {("discover", model) for model in disk if model not in hidden}
        return World(disk, rights)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_pages_together_are_all_that_may_be_discovered(self, limit):
        world = self.world(10, hidden={"m/0000", "m/0004", "m/0009"})
        authorized_files, seen, after = world.authorized_files(), [], None
        for _ in range(12):
            page, _ = page_of(world, authorized_files, after, limit)
            assert len(page.models) <= limit
            seen += page.models
            after = page.after
            if after is None:
                break
        assert seen == [f"m/{number:04}" for number in range(10) if number not in (0, 4, 9)]

    def test_more_models_than_are_decided_in_one_turn_are_all_decided(self):
        world = self.world(2 * DECISIONS_PER_TURN + 1)
        page, _ = page_of(world, world.authorized_files(), limit=1000)
        assert len(page.models) == 2 * DECISIONS_PER_TURN + 1

    def test_a_page_stands_on_every_model_that_it_shows(self):
        world = self.world(5, hidden={"m/0003"})
        _, stamp = page_of(world, world.authorized_files(), limit=3)
        assert {b"m/0000", b"m/0001", b"m/0002"} <= {leaf.name for leaf in stamp.leaves}
        assert len({id(leaf) for leaf in stamp.leaves}) == len(stamp.leaves)  # each once, though shared

    def test_a_listing_is_worked_out_once_while_nothing_moves(self):
        world = self.world(50)
        authorized_files = world.authorized_files()
        for _ in range(3):
            page_of(world, authorized_files, limit=1)
            assert len(world.decided) == 50

    def test_a_right_that_went_is_gone_from_the_next_page(self):
        world = self.world(3)
        authorized_files = world.authorized_files()
        page_of(world, authorized_files)
        world.rights.discard(("discover", "m/0001"))
        world.change("m/0001")
        assert page_of(world, authorized_files)[0].models == ("m/0000", "m/0002")

    def test_a_model_that_came_is_in_the_next_page(self):
        world = self.world(2)
        authorized_files = world.authorized_files()
        page_of(world, authorized_files)
        world.disk["m/new"] = {}
        world.scan()
        world.rights.add(("discover", "m/new"))
        assert page_of(world, authorized_files)[0].models[-1] == "m/new"

    def test_one_caller_never_gets_the_listing_of_another(self):
        world = self.world(3)
        authorized_files = world.authorized_files()
        page_of(world, authorized_files)
        world.rights.clear()
        other = replace(PRINCIPAL, key_id=KeyId("key_mnopqrstuvwx"), tenant=TenantId("globex"))
        asked = replace(access(ResourceKind.CATALOGUE, Action.DISCOVER), principal=other)
        found, _ = find(world, asked, authorized_files=authorized_files)
        assert found.models == ()
