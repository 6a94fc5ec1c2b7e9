"""Every change is recorded before and after, and what became of it is never told wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.model.errors import Conflict, Unavailable, UnknownOutcome
from gateway.model.verdicts import Change, ChangeReceipt
from gateway.registrar import Registrar

pytestmark = pytest.mark.anyio
CHANGE = Change(actor="cli:test", action="keys.revoke", received_at=1.0)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@dataclass
class Recorder:
    closed: list[tuple[int | None, str]] = field(default_factory=list)

    def change(self, _change):
        return ChangeReceipt(
            record_id="1", on_close=lambda generation, result: self.closed.append((generation, result))
        )


@dataclass
class Store:
    """Commits, or fails in its one way."""

    failure: Exception | None = None

    async def transact(self, _plan):
        if self.failure is not None:
            raise self.failure
        return 7


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
