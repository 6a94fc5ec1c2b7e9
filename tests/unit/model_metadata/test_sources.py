"""When the cache's metadata is used instead of the provider's, and for how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.model.errors import ProviderSilentError, Reason, Refusal, Unavailable
from gateway.model.stamps import Stamp
from gateway.model_metadata import sources
from gateway.model_metadata.sources import Metadata
from gateway.platform.upstream import ProviderReply

STAMP = Stamp(1, ())
SAID = ProviderReply(what=b"said", is_local=False, stamp=STAMP)
REMEMBERED = ProviderReply(what=b"said", is_local=False, stamp=STAMP, is_remembered=True)
SILENCE = ProviderSilentError("gone")


class World:
    """A provider that a test controls, a cache that knows every model, and a clock that does not run."""

    def __init__(self):
        self.now, self.next = 1000.0, SAID
        self.metadata = Metadata(upstream=self, local=self, clock=self)

    async def reply_to(self, *_):
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    async def find_stat(self, _model):
        return {"modelMetadata": {}}

    def monotonic(self):
        return self.now

    def stat(self, said, key="key_1", degraded_seconds=60.0):
        """Whether the answer came from the cache."""
        self.next = said
        principal = SimpleNamespace(degraded_seconds=degraded_seconds)
        allowed = SimpleNamespace(
            access=SimpleNamespace(principal=principal), model="acme/cars/1", stamp=STAMP
        )
        return asyncio.run(self.metadata.stat(SimpleNamespace(key_id=key, allowed=allowed))).is_local


@pytest.fixture
def world():
    return World()


def test_the_cache_speaks_while_nobody_answers_and_the_time_is_not_used_up(world):
    assert not world.stat(SAID)
    assert world.stat(SILENCE)
    world.now += 59
    assert world.stat(SILENCE)
    world.now += 1
    with pytest.raises(ProviderSilentError):
        world.stat(SILENCE)
    assert not world.stat(SAID)
    assert world.stat(SILENCE)


def test_it_does_not_for_a_tenant_without_a_degraded_mode(world):
    with pytest.raises(ProviderSilentError):
        world.stat(SILENCE, degraded_seconds=0.0)


@pytest.mark.parametrize(
    "failure",
    [
        Refusal(Reason.UPSTREAM_REFUSED),
        Unavailable("upstream", "it answered with status 500", Reason.UPSTREAM_UNDECIDED),
        Unavailable("redis", "gone"),
    ],
)
def test_a_provider_that_says_something_else_is_not_silent(world, failure):
    with pytest.raises(type(failure)):
        world.stat(failure)


@pytest.mark.parametrize(("said", "key"), [(SAID, "key_2"), (REMEMBERED, "key_1")])
def test_neither_what_another_key_is_told_nor_what_is_remembered_ends_a_silence(world, said, key):
    assert world.stat(SILENCE)
    world.now += 59
    world.stat(said, key)
    world.now += 1
    with pytest.raises(ProviderSilentError):
        world.stat(SILENCE)


def test_a_silence_began_when_anybody_met_it_first(world):
    assert world.stat(SILENCE)
    world.now += 60
    with pytest.raises(ProviderSilentError):
        world.stat(SILENCE, "key_2")
    world.stat(SAID, "key_3")
    assert world.stat(SILENCE, "key_4")


def test_what_is_known_of_silences_is_bounded(world, monkeypatch):
    monkeypatch.setattr(sources, "MAX_SILENCES", 1)
    assert world.stat(SILENCE)
    with pytest.raises(ProviderSilentError):
        world.stat(SILENCE, "key_2")
    assert world.stat(SILENCE)


@pytest.mark.parametrize("model", ["acme/cars/1", None])
def test_without_waiting_a_provider_answers_with_what_it_said_and_the_cache_where_there_is_none(world, model):
    kept = SimpleNamespace(tree=SimpleNamespace(metadata={}))
    world.find_now = lambda _model, _looks: kept
    allowed = SimpleNamespace(model=model)
    assert world.metadata.weights_now(allowed, None) is None
    questions = []
    world.reply_now = lambda path, question: questions.append((path, question))
    assert world.metadata.stat_now(lambda: "asked", allowed, None) is None
    assert questions == [(sources.STAT_PATH, "asked")]
    world.reply_now = lambda _path, _question: SimpleNamespace(what=b"said")
    assert world.metadata.stat_now(lambda: "asked", allowed, None) == b"said"
    alone = Metadata(upstream=None, local=world, clock=world)
    assert alone.weights_now(allowed, None) is (kept if model else None)
    assert alone.stat_now(None, allowed, None) == (
        b'{"modelMetadata":{"modelLatencyMs":null}}' if model else None
    )
