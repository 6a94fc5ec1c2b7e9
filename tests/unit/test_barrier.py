"""The barrier, over a register that is written by hand and a server's clock that is moved by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.barrier import FORGET_SECONDS, MARGIN_SECONDS, await_workers
from gateway.directory.allowances import Allowance

pytestmark = pytest.mark.anyio

LEASE = 1.0
SPAN = LEASE + MARGIN_SECONDS
GENERATION = 10


@pytest.fixture
def anyio_backend():
    return "asyncio"


@dataclass
class Worker:
    worker: str
    applied: int
    renewed_at: float


@dataclass
class Fleet:
    now: float
    workers: tuple


@dataclass
class Register:
    """Each look takes a hundredth of a second of the server's time, and may find something else."""

    workers: list
    now: float = 1000.0
    looks: int = 0
    dropped: list = field(default_factory=list)
    happens: dict = field(default_factory=dict)  # at which look, what

    async def fleet(self):
        self.looks += 1
        self.now += 0.01
        self.happens.get(self.looks, lambda: None)()
        return Fleet(self.now, tuple(self.workers))

    async def drop_workers(self, workers):
        self.dropped += workers

    def monotonic(self):
        return self.now


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch):
    really = asyncio.sleep
    monkeypatch.setattr("gateway.barrier.asyncio.sleep", lambda _seconds: really(0))


async def wait(register, *, patience=100.0, allowances=()):
    return await await_workers(
        register,
        GENERATION,
        lease_seconds=LEASE,
        patience_seconds=patience,
        clock=register,
        allowances=allowances,
    )


async def test_without_workers_a_change_is_true_at_once():
    report = await wait(Register([]))
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 0, 0)
    assert report.generation == GENERATION


async def test_workers_that_acknowledged_are_not_waited_for():
    register = Register([Worker("a", GENERATION, 1000.0), Worker("b", GENERATION + 5, 1000.0)])
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 2, 2)
    assert register.looks == 1


async def test_it_returns_when_the_last_one_acknowledges():
    late = Worker("late", GENERATION - 1, 1000.0)
    register = Register([Worker("a", GENERATION, 1000.0), late])
    register.happens[7] = lambda: setattr(late, "applied", GENERATION)
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 2, 2)
    assert register.looks == 7
    assert report.milliseconds == pytest.approx(70, abs=11)


async def test_a_worker_that_does_not_is_waited_out_from_its_last_renewal():
    register = Register([Worker("stopped", GENERATION - 1, 999.7)])
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 1, 0)
    assert 999.7 + SPAN < register.now < 999.7 + SPAN + 0.03


async def test_one_that_goes_on_renewing_without_applying_is_waited_out_from_the_commit():
    # Its later renewals are of a generation that it has not applied, so they do not count for it.
    behind = Worker("behind", GENERATION - 1, 1000.0)
    register = Register([behind])
    for look in range(2, 400):
        register.happens[look] = lambda: setattr(behind, "renewed_at", register.now)
    report = await wait(register)
    committed_at = 1000.01
    assert report.is_sure
    assert committed_at + SPAN < register.now < committed_at + SPAN + 0.03


async def test_whoever_says_goodbye_is_not_waited_for():
    leaving = Worker("leaving", GENERATION - 1, 1000.0)
    register = Register([leaving])
    register.happens[5] = register.workers.clear
    report = await wait(register)
    assert (report.is_sure, report.acknowledged, register.looks) == (True, 0, 5)


async def test_one_that_starts_meanwhile_begins_with_the_change_and_is_not_waited_for():
    register = Register([])
    register.happens[2] = lambda: register.workers.append(Worker("new", 0, register.now))
    assert (await wait(register)).is_sure
    assert register.looks == 1


async def test_one_whose_lease_is_long_over_is_nobodys_concern():
    register = Register([Worker("dead", 1, 1000.0 - SPAN - 0.1)])
    report = await wait(register)
    assert (report.is_sure, report.workers, register.looks) == (True, 0, 1)


async def test_patience_ends_and_says_until_when_it_is_not_sure():
    register = Register([Worker("stopped", GENERATION - 1, 1000.0)])
    report = await wait(register, patience=0.5)
    assert not report.is_sure
    assert report.sure_in_seconds == pytest.approx(SPAN - 0.52, abs=0.03)


async def test_a_degraded_time_comes_on_top():
    register = Register([Worker("stopped", GENERATION - 1, 1000.0)])
    report = await wait(register, allowances=[Allowance(seconds=5.0), Allowance(seconds=30.0)])
    assert report.is_sure
    assert register.now > 1000.0 + SPAN + 30.0


async def test_one_that_is_past_its_lease_may_still_serve_what_was_last_known():
    register = Register([Worker("stopped", GENERATION - 1, 1000.0 - 10.0)])
    report = await wait(register, patience=0.1, allowances=[Allowance(seconds=30.0)])
    assert (report.is_sure, report.workers) == (False, 1)
    assert report.sure_in_seconds == pytest.approx(30.0 + SPAN - 10.0, abs=0.2)


async def test_a_time_that_was_shortened_counts_for_those_who_did_not_hear_of_it():
    # Its tenant was `last-known-good for 600 s` until generation 8. Who applied 7 still goes by it.
    allowances = [Allowance(seconds=600.0, until_generation=8)]
    for applied, is_sure in ((7, False), (8, True)):
        register = Register([Worker("stopped", applied, 1000.0)])
        report = await wait(register, patience=2.0, allowances=allowances)
        assert report.is_sure is is_sure
        assert is_sure or report.sure_in_seconds > 590


async def test_the_long_gone_are_taken_off_the_register_and_the_others_stay():
    gone = Worker("gone", 1, 1000.0 - SPAN - FORGET_SECONDS - 1)
    register = Register([gone, Worker("silent", 1, 1000.0 - 60), Worker("here", GENERATION, 1000.0)])
    await wait(register)
    assert register.dropped == ["gone"]


async def test_nobody_is_forgotten_while_a_degraded_time_lasts():
    register = Register([Worker("cut off", 1, 1000.0 - SPAN - FORGET_SECONDS - 1)])
    await wait(register, patience=0.1, allowances=[Allowance(seconds=3600.0)])
    assert register.dropped == []
