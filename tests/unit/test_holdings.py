"""What of the caches a caller may have: decisions by a table, and a catalogue that is a dictionary."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from gateway import holdings as module
from gateway.decisions import Judgement
from gateway.holdings import Holdings
from gateway.model.access import Access, Action, Page, Principal, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Facts, KeyKind, Leaf, PolicySet, Stamp
from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId
from gateway.model.verdicts import (
    Allowed,
    CataloguePage,
    Denied,
    FileEntry,
    Identity,
    ModelListing,
    PackageListing,
)

pytestmark = pytest.mark.anyio

PRINCIPAL = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset(),
    expires_at=None,
)
SHARED, ALONE = Md5("a" * 32), Md5("b" * 32)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@dataclass
class World:
    """Directory, decisions and catalogue in one."""

    disk: dict = field(default_factory=dict)  # model: package: handle: md5
    denied: set = field(default_factory=set)  # (model, package) pairs; package None: the model itself
    generation: int = 1
    leaf: Leaf = field(default_factory=lambda: Leaf(b"fact", b"1"))
    decided: list = field(default_factory=list)
    looked_at: list = field(default_factory=list)
    listing_of: tuple = ()

    def __post_init__(self):
        self.listing_of = tuple(sorted(self.disk))

    async def bring(self, principal, models):
        return [self.facts() for _ in models]

    def facts(self):
        return Facts(
            grants=(),
            requested=None,
            model=None,
            requested_standing=None,
            model_standing=None,
            policy=PolicySet(schema="", policies=(), digest="d"),
            stamp=Stamp(self.generation, (self.leaf,)),
        )

    async def reach(self, access):
        return (await self.reach_many([access]))[0]

    async def reach_many(self, accesses):
        self.decided += accesses
        return [Judgement(self.judge(one), self.facts()) for one in accesses]

    def judge(self, access):
        resource = access.resource
        if (resource.model, resource.package) in self.denied:
            return Denied(access=access, reason=Reason.NOT_PERMITTED, model=resource.model)
        return allowed(access)

    def models(self):
        return self.listing_of

    def packages(self, model):
        self.looked_at.append(model)
        return tuple(sorted(self.disk.get(model, {})))

    def listing(self, model, package):
        self.looked_at.append(model)
        files = self.disk.get(model, {}).get(package)
        if files is None:
            return None
        entries = tuple(FileEntry(handle=name, size=1, md5=md5) for name, md5 in sorted(files.items()))
        return PackageListing(model=model, package=package, files=entries)

    def find_blob(self, model, package, md5):
        files = self.disk[model][package]
        return next((name for name, one in files.items() if one == md5), None)

    def open_file(self, model, package, handle):
        return None


def allowed(access):
    stamp = Stamp(1, (Leaf(b"decision", b"1"),))
    return Allowed(access=access, model=access.resource.model, policies=(), grant=None, stamp=stamp)


def asking(kind, action=Action.READ, **resource):
    return Access(principal=PRINCIPAL, action=action, resource=Resource(kind=kind, **resource))


@pytest.fixture
def world():
    return World(
        disk={
            ModelId("acme/a"): {PackageId("p1"): {FileHandle("w"): SHARED}, PackageId("p2"): {}},
            ModelId("acme/b"): {PackageId("p1"): {FileHandle("w"): SHARED, FileHandle("x"): ALONE}},
            ModelId("globex/c"): {PackageId("p1"): {FileHandle("w"): ALONE}},
        }
    )


@pytest.fixture
def holdings(world):
    return Holdings(directory=world, decisions=world, catalogue=world)


async def test_what_is_no_blob_is_left_as_it_is(holdings, world):
    access = asking(ResourceKind.FILE, model="acme/a", package="p1", file="w")
    assert await holdings.resolve(access) is access
    assert world.looked_at == []


async def test_a_blob_is_read_as_the_callers_own_file_that_links_it(holdings, world):
    world.denied = {("acme/a", "p1")}
    found = await holdings.resolve(asking(ResourceKind.BLOB, md5=SHARED))
    assert (found.resource.kind, found.resource.model, found.resource.package, found.resource.file) == (
        ResourceKind.FILE, "acme/b", "p1", "w",
    )  # fmt: skip


async def test_a_blob_of_somebody_else_and_one_that_is_nowhere_are_the_same(holdings, world):
    world.denied = {("globex/c", None), ("acme/b", None)}
    seen = []
    for md5 in (ALONE, Md5("c" * 32)):
        world.decided.clear()
        world.looked_at.clear()
        with pytest.raises(Refusal) as refused:
            await holdings.resolve(asking(ResourceKind.BLOB, md5=md5))
        seen.append((refused.value.reason, list(world.looked_at)))
    assert seen[0] == seen[1]
    # Models that the caller may not discover are not even looked into.
    assert set(seen[0][1]) == {"acme/a"}


async def test_a_model_shows_those_packages_that_may_be_discovered(holdings, world):
    world.denied = {("acme/a", "p2")}
    access = asking(ResourceKind.MODEL, Action.DISCOVER, model="acme/a")
    found, stamp = await holdings.find(allowed(access))
    assert found == ModelListing(model="acme/a", packages=("p1",))
    # What is not shown is as much of the answer as what is.
    assert stamp.leaves.count(world.leaf) == 2


async def test_a_model_without_a_package_for_the_caller_is_not_there(holdings, world):
    world.denied = {("acme/a", "p1"), ("acme/a", "p2")}
    for model in ("acme/a", "nowhere"):
        with pytest.raises(Refusal) as refused:
            await holdings.find(allowed(asking(ResourceKind.MODEL, Action.DISCOVER, model=model)))
        assert refused.value.reason is Reason.ABSENT


async def page(holdings, after=None, limit=100):
    access = asking(ResourceKind.CATALOGUE, Action.DISCOVER, page=Page(after=after, limit=limit))
    return await holdings.find(allowed(access))


async def test_a_page_shows_the_models_that_may_be_discovered_and_says_where_the_next_begins(holdings, world):
    world.denied = {("acme/b", None)}
    assert (await page(holdings))[0] == CataloguePage(models=("acme/a", "globex/c"), after=None)
    first, _ = await page(holdings, limit=1)
    assert first == CataloguePage(models=("acme/a",), after="acme/a")
    assert (await page(holdings, after=first.after, limit=1))[0].models == ("globex/c",)
    assert (await page(holdings, after="zzz"))[0] == CataloguePage(models=(), after=None)


async def test_every_model_of_a_page_is_decided_for_this_page_and_stands_in_its_stamp(holdings, world):
    await page(holdings)
    world.decided.clear()
    _, stamp = await page(holdings)
    assert {one.resource.model for one in world.decided} == set(world.disk)
    assert stamp.leaves.count(world.leaf) == 3
    world.leaf.is_current = False
    assert not stamp.is_current


async def test_a_model_that_was_hidden_since_it_was_listed_is_not_shown(holdings, world):
    # The remembered listing may be older than the last change; the page is not.
    await page(holdings)
    world.denied = {("acme/b", None)}
    assert (await page(holdings))[0].models == ("acme/a", "globex/c")


async def test_a_listing_is_worked_out_once_until_a_fact_or_the_disk_moves(holdings, world):
    async def decisions():
        world.decided.clear()
        await page(holdings, limit=1)
        return len(world.decided)

    whole, remembered = 3 + 1, 1
    assert [await decisions(), await decisions()] == [whole, remembered]
    world.generation = 2
    assert [await decisions(), await decisions()] == [whole, remembered]
    world.listing_of = (*world.listing_of[:2], "zebra")
    assert [await decisions(), await decisions()] == [whole, remembered]


async def test_two_callers_never_share_a_listing(holdings, world):
    await page(holdings)
    world.denied = {("acme/a", None)}
    other = replace(PRINCIPAL, tenant=TenantId("globex"))
    access = Access(
        principal=other,
        action=Action.DISCOVER,
        resource=Resource(kind=ResourceKind.CATALOGUE, page=Page(after=None, limit=9)),
    )
    found, _ = await holdings.find(allowed(access))
    assert "acme/a" not in found.models
    assert holdings._visible.keys() == {PRINCIPAL, other}


async def test_remembered_listings_are_bounded(holdings, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED_LISTINGS", 2)
    for number in range(4):
        principal = replace(PRINCIPAL, key_name=str(number))
        await holdings._visible_models(principal)
    assert [one.key_name for one in holdings._visible] == ["2", "3"]


async def test_thousands_of_models_let_others_have_their_turn(world, monkeypatch):
    monkeypatch.setattr(module, "DECISIONS_PER_TURN", 10)
    world.listing_of = tuple(f"m{number:03}" for number in range(55))
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await Holdings(directory=world, decisions=world, catalogue=world)._visible_models(PRINCIPAL)
    task.cancel()
    assert turns >= 5


async def test_the_caller_itself_is_always_there(holdings):
    found, _ = await holdings.find(allowed(asking(ResourceKind.SELF, Action.IDENTIFY)))
    assert found == Identity(principal=PRINCIPAL)


@pytest.mark.parametrize(
    "resource", [{"model": "acme/a", "package": "nope"}, {"model": "nope", "package": "p1"}]
)
async def test_what_is_not_on_disk_is_absent(holdings, resource):
    for kind, more in ((ResourceKind.PACKAGE, {}), (ResourceKind.FILE, {"file": "w"})):
        with pytest.raises(Refusal) as refused:
            await holdings.find(allowed(asking(kind, **resource, **more)))
        assert refused.value.reason is Reason.ABSENT


@pytest.mark.parametrize(
    ("may_discover", "resource", "answer"),
    [
        (True, {"model": "acme/a", "package": "p1"}, Reason.MISSING_ACTION),
        (True, {"model": "acme/a", "package": "p1", "file": "w"}, Reason.MISSING_ACTION),
        (True, {"model": "acme/a", "package": "p1", "file": "other"}, Reason.ABSENT),
        (True, {"model": "acme/a", "package": "nope"}, Reason.ABSENT),
        (False, {"model": "acme/a", "package": "p1"}, Reason.MISSING_ACTION),
    ],
)
def test_a_refusal_says_forbidden_only_of_what_may_be_discovered_and_is_there(
    holdings, world, may_discover, resource, answer
):
    access = asking(ResourceKind.FILE, **resource)
    denied = Denied(
        access=access, reason=Reason.MISSING_ACTION, model=resource["model"], may_discover=may_discover
    )
    assert holdings.answer_to(denied) is answer
    # The disk is asked only about what may be discovered.
    assert bool(world.looked_at) is may_discover
