"""A worker's signing keys follow the files and the notes, and it reports what it holds."""

from __future__ import annotations

import asyncio

import pytest

from gateway.assembly.token_keys import REPORT_SECONDS, TokenKeyWatch, report_name
from gateway.identity.access_tokens import AccessTokens
from gateway.identity.signing_keys import RETIRED_SECONDS, create_token_key, key_file
from gateway.model.errors import Unavailable

NOW = 1_800_000_000.0


class World:
    """The store, the notes and the clock of one worker."""

    def __init__(self, folder):
        self.folder, self.notes, self.time, self.is_gone = folder, {}, NOW, False
        self.reports, self.failures = [], []
        self.tokens = AccessTokens(issuer="https://gateway.example", seconds=900)
        self.watch = TokenKeyWatch(
            tokens=self.tokens,
            folder=folder,
            store=self,
            listing=self,
            worker="a:1",
            clock=self,
            on_failure=self.failures.append,
        )

    def now(self):
        return self.time

    async def signing_notes(self):
        if self.is_gone:
            raise Unavailable("redis", "gone")
        return dict(self.notes)

    async def put_for(self, values, _seconds):
        self.reports.append(values)

    def look(self):
        asyncio.run(self.watch.try_to_look())

    @property
    def trusted(self):
        return set(self.tokens.known_ring().trusted)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "tokens")


def test_nothing_is_known_before_the_first_look_that_succeeds(world):
    create_token_key(world.folder)
    world.is_gone = True
    world.look()
    world.look()
    assert [one.dependency for one in world.failures] == ["redis"]  # once
    with pytest.raises(Unavailable):
        world.tokens.known_ring()


def test_a_key_that_is_copied_here_is_used_without_a_restart_and_reported(world):
    first = create_token_key(world.folder)
    world.notes[first.kid] = NOW
    world.look()
    ring = world.tokens.ring
    second = create_token_key(world.folder)
    world.look()
    assert world.trusted == {first.kid, second.kid}
    assert world.tokens.ring is not ring
    assert world.reports[-1] == {report_name("a:1"): f"{first.kid} {second.kid}".encode()}


def test_nothing_that_was_verified_is_forgotten_while_nothing_changes(world):
    world.notes[create_token_key(world.folder).kid] = NOW
    world.look()
    ring, reports = world.tokens.ring, len(world.reports)
    world.look()
    assert world.tokens.ring is ring
    assert len(world.reports) == reports
    world.time += REPORT_SECONDS
    world.look()
    assert len(world.reports) == reports + 1


def test_a_key_whose_file_is_removed_ends_though_another_file_is_broken(world):
    leaked, kept = create_token_key(world.folder), create_token_key(world.folder)
    world.notes |= {leaked.kid: NOW, kept.kid: NOW + 1}
    world.look()
    key_file(world.folder, 1).unlink()
    key_file(world.folder, 3).write_text("half of a file")
    world.look()
    assert world.trusted == {kept.kid}
    assert [one.dependency for one in world.failures] == ["signing keys"]


def test_a_key_whose_file_is_overwritten_by_that_of_another_node_ends(world, tmp_path):
    leaked, others = create_token_key(world.folder), create_token_key(tmp_path / "other")
    world.notes |= {leaked.kid: NOW, others.kid: NOW + 1}
    world.look()
    key_file(tmp_path / "other", 1).replace(key_file(world.folder, 1))
    world.look()
    assert world.trusted == {others.kid}
    assert world.reports[-1] == {report_name("a:1"): others.kid.encode()}


def test_a_retired_key_ends_by_time_though_redis_is_gone(world):
    old, new = create_token_key(world.folder), create_token_key(world.folder)
    world.notes |= {old.kid: NOW, new.kid: NOW + 1}
    world.look()
    assert world.trusted == {old.kid, new.kid}
    world.is_gone, world.time = True, NOW + 1 + RETIRED_SECONDS
    world.look()
    assert world.trusted == {new.kid}
