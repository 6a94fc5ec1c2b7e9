"""Which links to shared blobs count: those of one owner, and those that were attested."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.authorized_files import PACKAGES_PER_TURN
from gateway.directory.records.codec import encode
from gateway.model.errors import Conflict, Reason, Refusal
from gateway.model.facts import Attestation, Facts, PolicySet, Standing, Visibility
from gateway.model.listings import MARK_DIGITS, ListedPackage
from gateway.model.names import Md5, ModelId, PackageId, TenantId
from gateway.model.stamps import Leaf, Stamp
from gateway.model_metadata.attestations import MAX_OTHERS, Attestations

MINE, BLOB, OTHER = ModelId("acme/cars/1"), Md5("0123456789abcdef" * 2), Md5("f" * 32)
POLICY = PolicySet(schema="", policies=(), digest="d")


class World:
    """The listed packages, owners by the first part of a model's id, and attested digests."""

    def __init__(self):
        self.packages, self.attested, self.unreadable = [], None, ()
        self.owners = {"acme": "acme", "globex": "globex"}
        self.leaves = {}
        self.brought, self.changes = [], []

    def link(self, model, md5=BLOB):
        marks = bytes.fromhex(md5[:MARK_DIGITS])
        self.packages = [
            *self.packages,
            ListedPackage(model=ModelId(model), package=PackageId("p"), marks=marks),
        ]

    def listed(self):
        return self.packages

    async def gather(self, _principal, models):
        self.brought.append(list(models))
        return [self._facts(model) for model in models]

    def _facts(self, model):
        owner = self.owners.get(model.split("/")[0])
        standing = Standing(
            owner=owner and TenantId(owner), visibility=Visibility.PRIVATE, groups=frozenset()
        )
        return Facts(
            grants=(),
            requested=model,
            model=model,
            requested_standing=standing,
            model_standing=standing,
            policy=POLICY,
            stamp=Stamp(1, (self.leaves.setdefault(model, Leaf(model.encode(), b"")),)),
            unreadable=self.unreadable,
        )

    async def read(self, wanted):
        raw = None
        if self.attested is not None:
            raw = encode(Attestation(model=MINE, digests=frozenset(self.attested)))
        self.leaf = Leaf(wanted[0], raw)
        return 1, [self.leaf]

    async def perform(self, change, operation):
        self.changes.append((change, operation.keywords))

    def now(self):
        return 1.0


@pytest.fixture
def world():
    world = World()
    world.link(MINE)
    return world


@pytest.fixture
def counting(world):
    return Attestations(
        directory=world, source=world, catalogue=world, perform=world.perform, clock=world, actor="worker:n"
    )


def stands_on(counting, md5=BLOB):
    return asyncio.run(counting.verify(SimpleNamespace(), MINE, md5))


def is_refused(counting, reason=Reason.UNATTESTED):
    with pytest.raises(Refusal) as refusal:
        stands_on(counting)
    return refusal.value.reason is reason


def test_a_blob_that_nobody_else_links_needs_nothing(world, counting):
    world.link("globex/cars/1", OTHER)
    assert stands_on(counting) == ()
    assert world.brought == []


def test_models_of_one_owner_share_on_what_says_so(world, counting):
    world.link("acme/cars/2")
    assert stands_on(counting) == (world.leaves[MINE], world.leaves["acme/cars/2"])


def test_a_blob_that_another_owner_links_needs_somebodys_word(world, counting):
    world.link("globex/cars/1")
    assert is_refused(counting)
    world.attested = {OTHER}
    assert is_refused(counting)
    world.attested = {OTHER, BLOB}
    assert stands_on(counting) == (world.leaf,)


@pytest.mark.parametrize("nobodys", [MINE.split("/", maxsplit=1)[0], "acme2"])
def test_what_has_no_owner_is_nobodys_we_know(world, counting, nobodys):
    world.link("acme2/cars/1")
    world.owners = {"acme": "acme", "acme2": "acme"}
    assert stands_on(counting)
    world.packages = list(world.packages)
    del world.owners[nobodys]
    assert is_refused(counting)


def test_rules_that_do_not_parse_say_nothing(world, counting):
    world.link("acme/cars/2")
    world.unreadable = ("broken",)
    assert is_refused(counting)


def test_beyond_some_models_nobody_counts(world, counting):
    for number in range(MAX_OTHERS + 1):
        world.link(f"acme/{number}")
    assert is_refused(counting)
    assert world.brought == []


def test_a_word_that_does_not_parse_denies(world, counting, monkeypatch):
    world.link("globex/cars/1")

    async def read(wanted):
        return 1, [Leaf(wanted[0], b"broken")]

    monkeypatch.setattr(world, "read", read)
    assert is_refused(
        Attestations(directory=world, source=world, catalogue=world, perform=None, clock=world, actor="n"),
        Reason.UNREADABLE_FACT,
    )


def test_what_counts_is_remembered_while_nothing_moves(world, counting):
    world.link("acme/cars/2")
    assert counting.recall(MINE, BLOB) is None
    leaves = stands_on(counting)
    assert counting.recall(MINE, BLOB) == leaves
    stands_on(counting)
    assert len(world.brought) == 1
    leaves[0].is_current = False
    assert counting.recall(MINE, BLOB) is None


def test_it_is_looked_at_again_when_the_disk_changes(world, counting):
    stands_on(counting)
    world.link("globex/cars/1")
    assert counting.recall(MINE, BLOB) is None
    assert is_refused(counting)


def test_a_refusal_is_not_remembered(world, counting):
    world.link("globex/cars/1")
    assert is_refused(counting)
    world.attested = {BLOB}
    assert stands_on(counting)


def test_the_search_lets_others_have_their_turn(world, counting):
    for number in range(3 * PACKAGES_PER_TURN):
        world.packages.append(world.packages[0])
        assert number >= 0
    turns = []

    async def count_turns():
        searching = asyncio.create_task(counting.verify(SimpleNamespace(), MINE, BLOB))
        while not searching.done():
            turns.append(1)
            await asyncio.sleep(0)

    asyncio.run(count_turns())
    assert len(turns) >= 3


def test_memory_is_bounded(world, counting):
    counting.memory._max_entries = 2
    for number in range(5):
        stands_on(counting, Md5(f"{number:032x}"))
    known = [counting.recall(MINE, Md5(f"{number:032x}")) is not None for number in range(5)]
    assert known == [False, False, False, True, True]


def test_the_providers_word_is_written_only_when_it_is_new(world, counting):
    world.attested = {BLOB}
    asyncio.run(counting.note(MINE, {BLOB}))
    assert world.changes == []
    asyncio.run(counting.note(MINE, {BLOB, OTHER}))
    [(change, order)] = world.changes
    assert (change.action, change.subject) == ("cache.attest", (MINE, "1 digests named by the provider"))
    assert (order["model"], order["digests"]) == (MINE, {BLOB, OTHER})


def test_a_word_that_cannot_be_written_denies(world, counting, monkeypatch):
    async def perform(_change, _operation):
        raise Conflict("a record does not parse")

    monkeypatch.setattr(counting, "_perform", perform)
    with pytest.raises(Refusal) as refusal:
        asyncio.run(counting.note(MINE, {BLOB}))
    assert refusal.value.reason is Reason.UNREADABLE_FACT
