"""Every change is recorded before and after, and its outcome is never recorded wrongly."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.model.errors import Conflict, NotHeld, Unavailable, UnknownOutcome
from gateway.model.stores import Moment
from gateway.model.verdicts import Change, ChangeReceipt
from gateway.registrar import Registrar

pytestmark = pytest.mark.anyio
CHANGE = Change(actor="cli:test", action="keys.revoke", received_at=1.0)


@dataclass
class Recorder:
    closed: list[tuple[int | None, str]] = field(default_factory=list)

    def change(self, _change):
        return ChangeReceipt(
            record_id="1", on_close=lambda generation, result, _: self.closed.append((generation, result))
        )


@dataclass
class Store:
    """A store that commits, or fails in one way."""

    failure: Exception | None = None
    is_missing: bool = False
    held: list = field(default_factory=list)

    async def transact(self, _plan):
        if self.failure is not None:
            raise self.failure
        return "result", Moment(generation=7)

    async def hold_by_all(self, about):
        self.held.append(about)
        if self.is_missing:
            raise NotHeld("redis", "held by 1 of 2 servers")


@pytest.mark.parametrize(
    ("failure", "result"),
    [
        (UnknownOutcome("redis", "the answer was lost"), "unknown, may have been made"),
        (Unavailable("redis", "is down"), "unavailable"),
        (Conflict("there is no such key"), "conflict"),
        (KeyboardInterrupt(), "interrupted, may have been made"),
    ],
)
async def test_the_closing_record_says_made_only_of_what_was_and_not_made_only_of_what_was_not(
    failure, result
):
    recorder = Recorder()
    with pytest.raises(type(failure)):
        await Registrar(store=Store(failure), recorder=recorder).perform(CHANGE, None)
    assert recorder.closed == [(None, result)]


@pytest.mark.parametrize("is_missing", [True, False])
async def test_what_a_worker_writes_is_made_and_acknowledged_only_when_every_server_has_it(is_missing):
    recorder, store = Recorder(), Store(is_missing=is_missing)
    registrar = Registrar(store=store, recorder=recorder)
    if is_missing:
        with pytest.raises(NotHeld):
            await registrar.perform_held(CHANGE, None)
    else:
        done = await registrar.perform_held(CHANGE, None)
        assert (done.result, done.generation) == ("result", 7)
    assert store.held == [Moment(generation=7)]
    assert recorder.closed == [(7, "done")]
