"""Blobs among the caller's own packages, listings by the caller's own rights, and the answer to denials."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.authorized_files import DECIDED_NOW, PACKAGES_PER_TURN, AuthorizedFiles
from gateway.caller_views import DECISIONS_PER_TURN
from gateway.decisions import Decisions
from gateway.delivery.file_answer import describe_whole
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
from gateway.model.verdicts import Allowed, Denied, HeldFile, Identity, OpenFile
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.disk_checks import SeenOnDisk
from gateway.resource.held_files import HELD_SECONDS, MAX_FILE_BYTES, HeldFiles
from gateway.resource.held_listings import HeldListings
from tests.unit.conftest import ClockBesideFiles

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


# From memory, over a real cache on disk

SHARED = b"the weights of two packages"
OWN = {
    "acme/a": {
        "p1": {"own.bin": b"its own", "large.bin": b"x" * (MAX_FILE_BYTES + 1), "notes.txt": b"unhashed"},
        "p2": {"shared.bin": SHARED, "second.bin": b"another"},
    },
    "globex/b": {"p1": {"shared.bin": SHARED}},
}
EVERYTHING = {(action, model) for action in ("discover", "read") for model in OWN} | {("discover", None)}


class Disk:
    """A cache on disk, what a worker remembers of it, and all that a caller may read in it."""

    def __init__(self, root, *, is_attested=False):
        self.root = root
        self.world = World({}, set(EVERYTHING))
        self.clock = ClockBesideFiles()
        self.written = {}
        self.catalogue = DiskCatalogue(CatalogueSettings(root=root), self.clock)
        for model, packages in OWN.items():
            self.write(model, packages)
        self.scan()
        self.pins, self.links = {}, {}
        held_files = HeldFiles(
            root=root, catalogue=self.catalogue, clock=self.clock, describe=describe_whole, max_bytes=1 << 20
        )
        self.files = AuthorizedFiles(
            directory=self.world,
            decisions=Decisions(directory=self.world, rules=self.world, max_entries=9999, max_bytes=1 << 30),
            catalogue=self.catalogue,
            pins=self,
            views_bytes=1 << 30,
            held_files=held_files,
            held_listings=HeldListings(root=root, clock=self.clock, max_bytes=1 << 20),
            attestations=self if is_attested else None,
        )

    def write(self, model, packages):
        sample = SampleModel(model_id=model, packages=packages, unhashed=frozenset({"notes.txt"}))
        for one in write_sample_cache(self.root, [sample]):
            self.written[model, one.package_id, one.handle] = one

    def scan(self):
        asyncio.run(self.catalogue.refresh([ModelId(model) for model in (*OWN, "acme/0")]))

    def file(self, handle, model="acme/a", package="p2"):
        return self.written[model, package, handle]

    # the pins

    async def determine(self, file):
        return replace(file, sha256=sha256(os.pread(file.descriptor, file.size, 0)).hexdigest())

    def stamped(self, file, stamp):
        if file.md5 is None:
            return stamp
        leaf = self.pins.setdefault(file.md5, Leaf(file.md5.encode(), b"pin"))
        return Stamp(stamp.generation, (*stamp.leaves, leaf))

    # the attestations: a link counts by the record in `links`

    def recall(self, model, md5):
        leaf = self.links.get(model)
        return (leaf,) if leaf is not None and leaf.is_current else None

    async def verify(self, principal, model, md5):
        leaf = self.links.get(model)
        if leaf is None:
            raise Refusal(Reason.UNATTESTED)
        if not leaf.is_current:
            leaf = self.links[model] = Leaf(b"link", b"")
        return (leaf,)

    # questions, and what they come to

    def ask(self, asked):
        """What it comes to with waiting: what was found, its stamp; or the reason why nothing was."""
        try:
            if asked.resource.kind is ResourceKind.BLOB:
                asked = asyncio.run(self.files.resolve(asked))
            return self.told(asyncio.run(self.files.find(self.allowed(asked))))
        except Refusal as refusal:
            return refusal.reason

    def ask_now(self, asked, *, needs_content=True):
        """The same from memory alone; None where it has to be asked."""
        looks = SeenOnDisk()
        if asked.resource.kind is ResourceKind.BLOB:
            asked = self.files.resolve_now(asked, looks)
        found = asked and self.files.find_now(
            self.allowed(asked), looks, needs_content=needs_content, may_open=False
        )
        return found and self.told(found)

    def allowed(self, asked):
        judgement = asyncio.run(self.files._decisions.reach(asked))
        if isinstance(judgement.verdict, Denied):
            raise Refusal(judgement.verdict.reason)
        return judgement.verdict

    def told(self, found):
        """All that an answer says, comparable: of a file its place, identity and content."""
        thing, stamp = found
        if isinstance(thing, HeldFile):
            thing = place_of(thing), thing.content
        elif isinstance(thing, OpenFile):
            with os.fdopen(thing.descriptor, "rb") as file:
                thing = place_of(thing), file.read()
        return thing, stamp.generation, frozenset(map(id, stamp.leaves))


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def place_of(file):
    return file.model, file.package, file.handle, file.md5, file.sha256, file.size, file.identity


A, P2 = {"model": ModelId("acme/a")}, {"model": ModelId("acme/a"), "package": PackageId("p2")}
QUESTIONS = {
    "page": access(ResourceKind.CATALOGUE, Action.DISCOVER, page=Page(after=None, limit=1)),
    "model": access(ResourceKind.MODEL, Action.DISCOVER, **A),
    "package": access(ResourceKind.PACKAGE, Action.DISCOVER, **P2, page=Page(after=None, limit=9)),
    "file": access(ResourceKind.FILE, **P2, file=FileHandle("shared.bin")),
    "unhashed": access(ResourceKind.FILE, **A, package=PackageId("p1"), file=FileHandle("notes.txt")),
    "blob": None,  # its digest is known once it is written
}


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path / "cache")


def question(disk, name):
    return QUESTIONS[name] or blob(disk.file("shared.bin").md5)


@pytest.mark.parametrize("name", QUESTIONS)
class TestFromMemory:
    def test_what_nobody_asked_for_yet_has_to_be_asked(self, name, disk):
        assert disk.ask_now(question(disk, name)) is None

    def test_what_was_asked_for_is_the_same_from_memory(self, name, disk):
        asked = question(disk, name)
        first = disk.ask(asked)
        assert not isinstance(first, Reason)
        assert disk.ask_now(asked) == first == disk.ask(asked)

    def test_a_fact_that_changed_takes_it_out_of_memory_or_into_the_answer(self, name, disk):
        asked = question(disk, name)
        first = disk.ask(asked)
        disk.world.change("acme/a")
        again = disk.ask_now(asked)
        assert again is None or again[1:] != first[1:]
        assert disk.ask(asked)[1:] != first[1:]
        assert disk.ask_now(asked) == disk.ask(asked)

    def test_nothing_stays_open(self, name, disk):
        asked = question(disk, name)
        before = open_descriptors()
        for _ in range(2):
            disk.ask(asked)
            disk.ask_now(asked)
        assert open_descriptors() == before


def package_of(disk):
    return disk.file("shared.bin").path.parent


def blob_of(disk):
    return disk.root / "shared-blobs" / disk.file("shared.bin").md5


def rewrite_manifest(disk):
    manifest = package_of(disk) / "model_config.json"
    manifest.write_text(manifest.read_text().replace("shared.bin", "gone.bin"))


def drop_manifest(disk):
    (package_of(disk) / "model_config.json").unlink()


def add_case_twin(disk):
    shutil.copytree(package_of(disk), package_of(disk).with_name("P2"), symlinks=True)
    disk.clock.steady += HELD_SECONDS  # no check of a file sees it: it is found the whole way again by then


def become_link(path):
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


def replace_blob(disk):
    other = blob_of(disk).with_name("other")
    other.write_bytes(SHARED[::-1])
    other.replace(blob_of(disk))


def rewrite_quietly(disk):
    before = blob_of(disk).stat()
    blob_of(disk).write_bytes(SHARED[::-1])
    os.utime(blob_of(disk), ns=(before.st_atime_ns, before.st_mtime_ns))


def point_elsewhere(disk):
    link = disk.file("shared.bin").path
    link.unlink()
    link.symlink_to(disk.root / "shared-blobs" / disk.file("second.bin").md5)


def put_file_in_place_of_link(disk):
    link = disk.file("shared.bin").path
    link.unlink()
    link.write_bytes(SHARED)


CHANGES = {
    "manifest": (rewrite_manifest, {"model", "package", "file", "blob"}),
    "no manifest": (drop_manifest, {"model", "package", "file", "blob"}),
    "case twin": (add_case_twin, {"model", "package", "file", "blob"}),
    "package is a link": (
        lambda disk: become_link(package_of(disk)),
        {"model", "package", "file", "blob"},
    ),
    "package is gone": (
        lambda disk: shutil.rmtree(package_of(disk)),
        {"model", "package", "file", "blob"},
    ),
    "file is gone": (lambda disk: disk.file("shared.bin").path.unlink(), {"package", "file", "blob"}),
    "blob is gone": (lambda disk: blob_of(disk).unlink(), {"package", "file", "blob"}),
    "blob is replaced": (replace_blob, {"package", "file", "blob"}),
    "blob is truncated": (lambda disk: os.truncate(blob_of(disk), 3), {"package", "file", "blob"}),
    "blob is rewritten": (rewrite_quietly, {"package", "file", "blob"}),
    "link leads elsewhere": (point_elsewhere, {"package", "file", "blob"}),
    "file is no link": (put_file_in_place_of_link, {"package", "file", "blob"}),
}


@pytest.mark.parametrize("name", ["model", "package", "file", "blob"])
@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_on_disk_is_asked_again_and_never_answered_from_before(what, name, disk):
    change, concerned = CHANGES[what]
    asked = question(disk, name)
    first = disk.ask(asked)
    assert disk.ask_now(asked) == first
    change(disk)
    again = disk.ask_now(asked)
    assert again is None if name in concerned else again in (None, first)
    assert again is None or disk.ask(asked) == again


def test_a_case_twin_of_a_model_is_no_other_model_and_changes_nothing(disk):
    asked = question(disk, "file")
    first = disk.ask(asked)
    folder = package_of(disk).parent
    shutil.copytree(folder, folder.with_name(folder.name.swapcase()), symlinks=True)
    disk.clock.steady += HELD_SECONDS
    now = disk.ask_now(asked)
    assert now is None or now == first == disk.ask(asked)


def test_a_listing_is_made_anew_after_two_seconds(disk):
    for name in ("model", "package"):
        asked = question(disk, name)
        disk.ask(asked)
        assert disk.ask_now(asked) is not None
    disk.clock.steady += HELD_SECONDS
    for name in ("model", "package"):
        assert disk.ask_now(question(disk, name)) is None


def test_a_large_file_is_known_for_head_alone(disk):
    asked = access(ResourceKind.FILE, **A, package=PackageId("p1"), file=FileHandle("large.bin"))
    place, content = disk.ask(asked)[0]
    assert len(content) == MAX_FILE_BYTES + 1
    assert disk.ask_now(asked) is None
    assert disk.ask_now(asked, needs_content=False)[0] == (place, None)


def test_oneself_is_found_without_waiting(disk):
    asked = access(ResourceKind.SELF, Action.IDENTIFY)
    disk.world.rights.add(("identify", None))
    assert disk.ask_now(asked) == disk.ask(asked)


def test_without_memories_everything_has_to_be_asked():
    world = World(DISK, {("discover", "acme/a"), ("read", "acme/a")})
    files = world.authorized_files()
    for kind in (ResourceKind.MODEL, ResourceKind.PACKAGE, ResourceKind.FILE, ResourceKind.CATALOGUE):
        asked = access(kind, model=ModelId("acme/a"), package=PackageId("p1"), file=FileHandle("x.bin"))
        allowed = Allowed(access=asked, model=ModelId("acme/a"), policies=(), grant=None, stamp=Stamp(1, ()))
        assert files.find_now(allowed, SeenOnDisk(), needs_content=True, may_open=False) is None
    asyncio.run(files._caller_views.packages(PRINCIPAL))
    assert files.resolve_now(blob(OTHER), SeenOnDisk()) is None


class TestPagesFromMemory:
    def test_a_right_that_went_is_never_shown_from_memory(self, disk):
        asked = access(ResourceKind.CATALOGUE, Action.DISCOVER, page=Page(after=None, limit=9))
        assert disk.ask(asked)[0].models == ("acme/a", "globex/b")
        disk.world.rights.discard(("discover", "globex/b"))
        disk.world.change("globex/b")
        assert disk.ask_now(asked) is None
        assert disk.ask(asked)[0].models == ("acme/a",)
        assert disk.ask_now(asked) == disk.ask(asked)

    def test_a_scan_that_found_something_else_is_asked_for(self, disk):
        asked = access(ResourceKind.CATALOGUE, Action.DISCOVER, page=Page(after=None, limit=9))
        disk.ask(asked)
        disk.write("acme/0", {"p1": {"x.bin": b"new"}})
        disk.world.rights.add(("discover", "acme/0"))
        disk.scan()
        assert disk.ask_now(asked) is None
        assert disk.ask(asked)[0].models == ("acme/0", "acme/a", "globex/b")

    @pytest.mark.parametrize("after", [None, "acme/a", "globex/b"])
    def test_each_page_is_the_same(self, after, disk):
        asked = access(ResourceKind.CATALOGUE, Action.DISCOVER, page=Page(after=after, limit=1))
        assert disk.ask(asked) == disk.ask_now(asked)

    @pytest.mark.parametrize(("count", "is_known"), [(DECIDED_NOW, True), (DECIDED_NOW + 1, False)])
    def test_no_more_is_decided_without_a_pause_than_a_page_may_have(self, count, is_known):
        world = World({f"m/{number:04}": {} for number in range(count)})
        world.rights = {("discover", model) for model in world.disk}
        files = world.authorized_files()
        page_of(world, files, limit=1000)
        asked = access(ResourceKind.CATALOGUE, Action.DISCOVER, page=Page(after=None, limit=1000))
        allowed = Allowed(access=asked, model=None, policies=(), grant=None, stamp=Stamp(1, ()))
        assert (
            files.find_now(allowed, SeenOnDisk(), needs_content=True, may_open=False) is not None
        ) == is_known

    def test_a_model_that_has_to_be_decided_again_has_to_be_asked_for(self, disk):
        asked = question(disk, "model")
        disk.ask(asked)
        for memory in disk.files._decisions.memories:
            for name in list(memory._entries):
                if name[4] == "p2":
                    memory.drop(name)
        assert disk.ask_now(asked) is None


def test_a_model_that_shows_no_package_is_absent_and_no_empty_listing_from_memory(disk):
    asked = access(ResourceKind.MODEL, Action.DISCOVER, model=ModelId("globex/b"))
    disk.world.rights -= {("discover", "globex/b")}
    disk.world.rights |= {("discover", "globex/b", None)}  # the model itself, and none of its packages
    for _ in range(2):
        assert disk.ask(asked) is Reason.ABSENT
        assert disk.ask_now(asked) is None


class TestBlobsFromMemory:
    def test_it_is_found_in_the_first_package_of_the_caller_that_links_it(self, disk):
        asked = question(disk, "blob")
        disk.ask(asked)
        disk.ask(access(ResourceKind.FILE, **{**P2, "model": ModelId("globex/b"), "package": PackageId("p1")},
                        file=FileHandle("shared.bin")))  # fmt: skip
        assert disk.ask_now(asked)[0][0][:3] == ("acme/a", "p2", "shared.bin")

    def test_another_package_of_the_caller_that_comes_first_is_asked(self, disk):
        asked = question(disk, "blob")
        disk.ask(asked)
        disk.write("acme/0", {"p1": {"first.bin": SHARED}})
        disk.world.rights |= {("discover", "acme/0"), ("read", "acme/0")}
        disk.scan()
        assert disk.ask_now(asked) is None
        assert disk.ask(asked)[0][0][:3] == ("acme/0", "p1", "first.bin")
        assert disk.ask_now(asked) == disk.ask(asked)

    def test_a_package_that_only_may_list_it_is_asked(self, disk):
        """Marks are a few digits of a digest: what has the same ones may be another."""
        asked = question(disk, "blob")
        disk.ask(asked)
        mark = bytes.fromhex(asked.resource.md5[:MARK_DIGITS])
        state = disk.catalogue.state()
        listed = [replace(one, marks=mark) if one.package == "p1" else one for one in state.survey.listed]
        disk.catalogue._state = replace(state, survey=replace(state.survey, listed=tuple(listed)))
        assert disk.ask(asked)[0][0][:3] == ("acme/a", "p2", "shared.bin")
        assert disk.ask_now(asked) is None

    def test_a_caller_that_may_not_read_the_package_any_more_has_to_ask(self, disk):
        asked = question(disk, "blob")
        disk.ask(asked)
        disk.world.rights.discard(("read", "acme/a"))
        disk.world.change("acme/a")
        assert disk.ask_now(asked) is None
        assert disk.ask(asked)[0][0][0] == "globex/b"

    @pytest.mark.parametrize(
        "what", ["file is gone", "link leads elsewhere", "file is no link", "no manifest"]
    )
    def test_a_package_that_links_it_no_more_is_passed_over(self, what, disk):
        asked = question(disk, "blob")
        disk.ask(asked)
        assert disk.files.resolve_now(asked, SeenOnDisk()) is not None
        CHANGES[what][0](disk)
        assert disk.files.resolve_now(asked, SeenOnDisk()) is None
        assert disk.ask(asked)[0][0][0] == "globex/b"

    def test_a_package_that_has_to_be_decided_again_has_to_be_asked(self, disk):
        asked = question(disk, "blob")
        disk.ask(asked)
        for memory in disk.files._decisions.memories:
            for name in list(memory._entries):
                memory.drop(name)
        assert disk.files.resolve_now(asked, SeenOnDisk()) is None

    def test_a_digest_of_nobody_or_of_others_has_to_be_asked_for(self, disk):
        disk.ask(question(disk, "blob"))
        disk.world.rights -= {("read", "acme/a"), ("read", "globex/b")}
        disk.world.change("acme/a", "globex/b")
        with pytest.raises(Refusal):
            asyncio.run(disk.files.resolve(question(disk, "blob")))
        assert disk.files.resolve_now(question(disk, "blob"), SeenOnDisk()) is None
        assert disk.files.resolve_now(blob(Md5("f" * 32)), SeenOnDisk()) is None

    def test_more_packages_than_are_searched_without_a_pause_have_to_be_asked(self, disk, monkeypatch):
        asked = question(disk, "blob")
        disk.ask(asked)
        monkeypatch.setattr("gateway.authorized_files.PACKAGES_PER_TURN", 2)
        assert disk.ask_now(asked) is None

    def test_of_two_names_for_it_in_one_package_either_is_the_same_content(self, disk):
        disk.write("acme/a", {"p2": {"shared.bin": SHARED, "again.bin": SHARED, "second.bin": b"another"}})
        disk.scan()
        asked = question(disk, "blob")
        by_digest = disk.ask(asked)
        disk.ask(question(disk, "file"))
        place, content = disk.ask_now(asked)[0]
        assert content == SHARED
        assert (*place[:2], *place[3:]) == (*by_digest[0][0][:2], *by_digest[0][0][3:])


class TestLinksThatCount:
    @pytest.fixture
    def disk(self, tmp_path):
        return Disk(tmp_path / "cache", is_attested=True)

    def test_a_link_that_does_not_count_is_found_neither_by_its_name_nor_by_its_digest(self, disk):
        by_digest, by_name = question(disk, "blob"), question(disk, "file")
        assert disk.ask(by_name) is Reason.UNATTESTED
        assert disk.files._held_files.find("acme/a", "p2", "shared.bin") is not None  # it is known
        assert disk.ask_now(by_name) is None
        assert disk.files.resolve_now(by_digest, SeenOnDisk()) is None
        assert disk.ask(by_digest) is Reason.NOT_PERMITTED

    def test_a_link_that_does_not_count_is_passed_over_for_one_that_does(self, disk):
        asked = question(disk, "blob")
        disk.links["globex/b"] = Leaf(b"link", b"")
        assert disk.ask(question(disk, "file")) is Reason.UNATTESTED
        assert disk.ask(asked)[0][0][0] == "globex/b"
        # The first package may list it: whether its link counts has to be asked.
        assert disk.files.resolve_now(asked, SeenOnDisk()) is None

    @pytest.mark.parametrize("name", ["file", "blob"])
    def test_an_answer_stands_on_what_makes_its_link_count(self, name, disk):
        leaf = disk.links["acme/a"] = Leaf(b"link", b"")
        asked = question(disk, name)
        for _ in range(2):  # found from the root, and opened again
            assert id(leaf) in disk.ask(asked)[2]
        assert id(leaf) in disk.ask_now(asked)[2]
        leaf.is_current = False
        assert disk.ask_now(asked) is None
        del disk.links["acme/a"]
        assert isinstance(disk.ask(asked), Reason)
        assert disk.ask_now(asked) is None

    def test_a_file_of_the_package_alone_needs_no_link(self, disk):
        asked = question(disk, "unhashed")
        assert disk.ask(asked) == disk.ask_now(asked)

    def test_what_does_not_count_is_closed(self, disk):
        before = open_descriptors()
        for _ in range(2):
            disk.ask(question(disk, "file"))
        assert open_descriptors() == before


class TestPins:
    """An answer ends with the pin of its file, whether it is in memory or was opened again."""

    def stamps(self, disk, monkeypatch):
        allowed = disk.allowed(question(disk, "file"))
        disk.ask(question(disk, "file"))
        held, from_memory = disk.files.find_now(allowed, SeenOnDisk(), needs_content=True, may_open=False)
        monkeypatch.setattr(disk.catalogue, "open_file", None)  # it is opened again, not found from the root
        reopened, of_reopened = asyncio.run(disk.files.find(allowed))
        os.close(reopened.descriptor)
        return disk.pins[held.md5], from_memory, of_reopened

    def test_both_stand_on_the_pin(self, disk, monkeypatch):
        leaf, *stamps = self.stamps(disk, monkeypatch)
        assert [leaf in stamp.leaves for stamp in stamps] == [True, True]
        assert [stamp.is_current for stamp in stamps] == [True, True]

    def test_a_pin_that_ends_or_moves_ends_both(self, disk, monkeypatch):
        leaf, *stamps = self.stamps(disk, monkeypatch)
        leaf.is_current = False
        assert [stamp.is_current for stamp in stamps] == [False, False]
        assert disk.ask_now(question(disk, "file")) is None

    def test_what_is_pinned_anew_stands_on_the_new_pin(self, disk):
        asked = question(disk, "file")
        disk.ask(asked)
        md5 = disk.file("shared.bin").md5
        disk.pins.pop(md5).is_current = False
        disk.ask(asked)
        assert id(disk.pins[md5]) in disk.ask_now(asked)[2]


class TestReasonsFromMemory:
    @pytest.mark.parametrize(
        ("may_discover", "model", "package", "is_known"),
        [
            (False, "acme/a", "p1", True),
            (True, None, "p1", True),
            (True, "acme/a", None, True),
            (True, "acme/a", "p1", False),
            (True, "acme/a", "none", False),
        ],
    )
    def test_a_denial_that_the_disk_has_no_say_in_has_its_reason_at_once(
        self, may_discover, model, package, is_known
    ):
        asked = access(ResourceKind.PACKAGE, model=ModelId("acme/a"), package=package)
        denied = Denied(access=asked, reason=Reason.MISSING_SCOPE, model=model, may_discover=may_discover)
        world = World(DISK)
        files = world.authorized_files()
        known = files.reason_now(denied)
        assert world.asked_disk == []
        assert (known is not None) == is_known
        if is_known:
            assert known is asyncio.run(files.answer_to(denied))
