"""The barrier, over a register that the test writes and a clock that the test advances."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from gateway.barrier import MARGIN_SECONDS, await_workers
from gateway.directory.reading.degraded_modes import DegradedPeriod
from gateway.model.errors import Unavailable
from gateway.model.stores import Moment

pytestmark = pytest.mark.anyio

LEASE = 1.0
SPAN = LEASE + MARGIN_SECONDS
GENERATION = 10
ABOUT = Moment(history="h", generation=GENERATION, mark="m")
STEP = 0.01


@dataclass
class Worker:
    worker: str
    applied: int
    silent_seconds: float = 0.0
    silent_under: str = "here"


@dataclass(frozen=True)
class Fleet:
    workers: tuple = ()
    is_known: bool = True
    is_ours: bool = True
    servers: int = 1
    held: int = 1
    stamp: str = "here"
    settled: str = "here"
    lease_seconds: float = 0.0

    @property
    def is_whole(self):
        return self.is_known and self.is_ours and self.held >= self.servers


@dataclass
class Register:
    """A register: each read takes a hundredth of a second of the waiter's time, and may find a change."""

    workers: list
    now: float = 1000.0
    looks: int = 0
    holds: list = field(default_factory=list)  # the reads that waited for the replicas
    prompts: list = field(default_factory=list)  # the reads that prompted them
    kept: list = field(default_factory=list)
    happens: dict = field(default_factory=dict)  # read number -> what happens then
    server: Fleet = field(default_factory=Fleet)
    is_gone: bool = False

    async def look(self, about, *, hold_seconds=None, prompts=False):
        assert about == ABOUT
        if prompts:
            self.prompts.append(self.looks + 1)
        self.looks += 1
        self.now += STEP
        self.happens.get(self.looks, lambda: None)()
        if self.is_gone:
            raise Unavailable("redis", "gone")
        if hold_seconds is not None:
            self.holds.append(self.looks)
        workers = tuple(replace(one) for one in self.workers)
        return replace(self.server, workers=workers, held=self.server.held if hold_seconds is not None else 1)

    async def keep(self, first, last, seconds, *, settles):
        self.kept.append((round(seconds, 3), settles))

    def monotonic(self):
        return self.now

    def becomes(self, **more):
        self.server = replace(self.server, **more)


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch):
    really = asyncio.sleep
    monkeypatch.setattr("gateway.barrier.asyncio.sleep", lambda _seconds: really(0))


async def wait(register, *, patience=100.0, degraded_periods=(), is_settled=False):
    return await await_workers(
        register,
        ABOUT,
        lease_seconds=LEASE,
        patience_seconds=patience,
        clock=register,
        degraded_periods=degraded_periods,
        is_settled=is_settled,
    )


async def test_without_workers_a_change_is_true_at_once():
    register = Register([])
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 0, 0)
    assert (report.generation, report.why, report.sure_in_seconds) == (GENERATION, "", 0.0)
    assert register.looks == 1


async def test_workers_that_acknowledged_are_not_waited_for():
    register = Register([Worker("a", GENERATION), Worker("b", GENERATION + 5)])
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 2, 2)
    assert register.looks == 1


async def test_it_returns_when_the_last_one_acknowledges():
    late = Worker("late", GENERATION - 1)
    register = Register([Worker("a", GENERATION), late])
    register.happens[7] = lambda: setattr(late, "applied", GENERATION)
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, 2, 2)
    assert register.looks == 7
    assert report.milliseconds == pytest.approx(70, abs=11)


@pytest.mark.parametrize("workers", [[Worker("stopped", GENERATION - 1)], []])
async def test_leases_are_waited_out_from_when_all_servers_had_the_change(workers):
    # A worker that does not acknowledge; or a server that was another one a moment ago, so that there may
    # be workers that are not in its register.
    register = Register(workers)
    if not workers:
        register.becomes(settled="before")
    report = await wait(register)
    assert (report.is_sure, report.workers, report.acknowledged) == (True, len(workers), 0)
    held_at = 1000.0 + STEP
    assert held_at + SPAN < register.now < held_at + SPAN + 3.5 * STEP
    assert register.holds[-1] == register.looks, "the last look asks whether all servers still have it"


async def test_an_empty_register_proves_nothing_under_a_stamp_that_is_not_settled():
    register = Register([])
    register.becomes(settled="another")
    report = await wait(register, patience=0.5)
    assert not report.is_sure
    assert report.sure_in_seconds == pytest.approx(SPAN - 0.5, abs=0.03)


async def test_acknowledgements_prove_nothing_under_a_stamp_that_is_not_settled():
    register = Register([Worker("a", GENERATION)])
    register.becomes(settled="another")
    assert not (await wait(register, patience=0.5)).is_sure


async def test_a_server_that_became_another_one_meanwhile_is_waited_out():
    late = Worker("late", GENERATION - 1)
    register = Register([late])

    def replaced():
        late.applied = GENERATION
        register.becomes(stamp="there", settled="there")

    register.happens[5] = replaced
    report = await wait(register)
    assert report.is_sure
    assert register.now > 1000.0 + STEP + SPAN


async def test_once_the_stamp_is_settled_by_others_nobody_waits_longer():
    register = Register([])
    register.becomes(settled="before")
    register.happens[9] = lambda: register.becomes(settled="here")
    assert (await wait(register)).is_sure
    assert register.looks == 9


async def test_the_embedded_server_is_settled_from_its_start():
    register = Register([])
    register.becomes(settled="")
    assert (await wait(register, is_settled=True)).is_sure
    assert register.looks == 1


async def test_what_was_waited_for_is_written_down_for_the_next_change():
    register = Register([Worker("stopped", GENERATION - 1)])
    await wait(register)
    [(seconds, settles)] = register.kept
    assert seconds > SPAN
    assert settles
    replaced = Register([Worker("stopped", GENERATION - 1)])
    replaced.happens[5] = lambda: replaced.becomes(stamp="there")
    await wait(replaced)
    assert [settles for _, settles in replaced.kept] == [False]


async def test_whoever_says_goodbye_is_not_waited_for():
    leaving = Worker("leaving", GENERATION - 1)
    register = Register([leaving])
    register.happens[5] = register.workers.clear
    report = await wait(register)
    assert (report.is_sure, report.acknowledged, register.looks) == (True, 0, 5)


async def test_one_that_is_known_to_be_silent_for_longer_than_a_lease_is_nobodys_concern():
    register = Register([Worker("dead", 1, SPAN + 0.1)])
    report = await wait(register)
    assert (report.is_sure, report.workers, register.looks) == (True, 0, 1)


async def test_silence_that_was_seen_on_another_server_says_nothing():
    register = Register([Worker("elsewhere", 1, 100.0, "there")])
    report = await wait(register, patience=0.5)
    assert (report.is_sure, report.workers) == (False, 1)


async def test_silence_that_grows_while_we_wait_is_not_counted_twice():
    stopped = Worker("stopped", GENERATION - 1)
    register = Register([stopped])
    for look in range(2, 1000):
        seen = look * STEP / 2  # other workers observe half of the silence
        register.happens[look] = lambda seen=seen: setattr(stopped, "silent_seconds", seen)
    report = await wait(register, degraded_periods=[DegradedPeriod(seconds=2.0)])
    assert report.is_sure
    assert register.now >= 1000.0 + STEP + SPAN + 2.0


async def test_silence_shortens_the_wait():
    register = Register([Worker("stopped", GENERATION - 1, 0.8)])
    assert (await wait(register)).is_sure
    assert 1000.0 + SPAN - 0.8 < register.now < 1000.0 + SPAN - 0.8 + 5 * STEP


async def test_the_leases_of_workers_may_be_longer_than_the_setting_of_whoever_waits():
    register = Register([Worker("stopped", GENERATION - 1)])
    register.becomes(lease_seconds=5.0)
    report = await wait(register)
    assert report.is_sure
    assert register.now > 1000.0 + 5.0 + MARGIN_SECONDS
    unsettled = Register([])
    unsettled.becomes(lease_seconds=5.0, settled="before")
    assert (await wait(unsettled)).is_sure
    assert unsettled.now > 1000.0 + 5.0 + MARGIN_SECONDS


async def test_patience_ends_and_says_until_when_it_is_not_sure():
    register = Register([Worker("stopped", GENERATION - 1)])
    report = await wait(register, patience=0.5)
    assert not report.is_sure
    assert report.sure_in_seconds == pytest.approx(SPAN - 0.5, abs=0.03)
    assert report.why


async def test_a_degraded_time_comes_on_top():
    register = Register([Worker("stopped", GENERATION - 1)])
    report = await wait(
        register, degraded_periods=[DegradedPeriod(seconds=5.0), DegradedPeriod(seconds=30.0)]
    )
    assert report.is_sure
    assert register.now > 1000.0 + SPAN + 30.0


async def test_a_degraded_time_comes_on_top_for_workers_that_are_not_in_the_register():
    register = Register([])
    register.becomes(settled="before")
    degraded_periods = [DegradedPeriod(seconds=30.0), DegradedPeriod(seconds=60.0, until_generation=5)]
    assert (await wait(register, degraded_periods=degraded_periods)).is_sure
    assert register.now > 1000.0 + SPAN + 60.0


async def test_one_that_is_past_its_lease_may_still_serve_what_was_last_known():
    register = Register([Worker("stopped", GENERATION - 1, 10.0)])
    report = await wait(register, patience=0.1, degraded_periods=[DegradedPeriod(seconds=30.0)])
    assert (report.is_sure, report.workers) == (False, 1)
    assert report.sure_in_seconds == pytest.approx(30.0 + SPAN - 10.0, abs=0.2)


async def test_a_time_that_was_shortened_counts_for_those_who_did_not_hear_of_it():
    # Its tenant was `last-known-good for 600 s` until generation 8. A worker at 7 still allows that.
    degraded_periods = [DegradedPeriod(seconds=600.0, until_generation=8)]
    for applied, is_sure in ((7, False), (8, True)):
        report = await wait(
            Register([Worker("stopped", applied)]), patience=2.0, degraded_periods=degraded_periods
        )
        assert report.is_sure is is_sure
        assert is_sure or report.sure_in_seconds > 590


# The servers of the group


async def test_what_not_all_servers_hold_is_never_sure_however_long_it_is_waited_for():
    register = Register([Worker("a", GENERATION)])
    register.becomes(servers=3, held=2)
    report = await wait(register, patience=50.0)
    assert (report.is_sure, report.held, report.servers, report.sure_in_seconds) == (False, 2, 3, None)
    assert "held by 2 of 3 servers" in report.why
    assert register.holds == list(range(1, register.looks + 1)), "each is a write of its own"
    assert register.kept == []


async def test_while_workers_are_waited_for_every_look_prompts_the_replicas():
    late = Worker("late", GENERATION - 1)
    register = Register([late])
    register.becomes(servers=3, held=3)
    register.happens[9] = lambda: setattr(late, "applied", GENERATION)
    assert (await wait(register)).is_sure
    assert (register.holds, register.prompts) == ([1], list(range(2, 10)))


async def test_it_is_waited_until_the_last_server_has_it():
    register = Register([Worker("a", GENERATION)])
    register.becomes(servers=3, held=2)
    register.happens[5] = lambda: register.becomes(held=3)
    report = await wait(register)
    assert (report.is_sure, report.held, report.servers) == (True, 3, 3)


async def test_a_server_that_came_while_the_replicas_were_waited_for_may_have_given_leases_elsewhere():
    # The look was answered, then the last server came and made the change held by all: it may have served
    # under another primary until now, and the silent worker with it.
    register = Register([Worker("elsewhere", 1, 100.0)])
    register.becomes(servers=3, held=3)
    register.happens[2] = lambda: register.becomes(stamp="one more")
    report = await wait(register)
    assert report.is_sure
    assert register.now > 1000.0 + STEP + SPAN


async def test_leases_are_counted_from_when_the_last_server_had_it():
    register = Register([Worker("stopped", GENERATION - 1)])
    register.becomes(servers=2, held=1)
    register.happens[50] = lambda: register.becomes(held=2)
    assert (await wait(register)).is_sure
    assert register.now > 1000.0 + 50 * STEP + SPAN


@pytest.mark.parametrize("lost", [{"is_ours": False}, {"is_known": False}])
@pytest.mark.parametrize("look", [1, 20])
async def test_a_change_that_was_taken_back_is_not_sure(lost, look):
    register = Register([Worker("stopped", GENERATION - 1)])
    register.happens[look] = lambda: register.becomes(**lost)
    report = await wait(register)
    assert (report.is_sure, report.sure_in_seconds) == (False, None)
    assert report.why


async def test_a_change_that_the_last_look_does_not_find_on_all_servers_is_not_sure():
    register = Register([Worker("stopped", GENERATION - 1)])
    register.becomes(servers=2, held=2)
    register.happens[60] = lambda: register.becomes(held=1)
    report = await wait(register)
    assert (report.is_sure, report.held, report.servers) == (False, 1, 2)
    assert register.kept == []


async def test_a_server_that_is_gone_is_a_failure():
    register = Register([Worker("stopped", GENERATION - 1)])
    register.happens[5] = lambda: setattr(register, "is_gone", True)
    with pytest.raises(Unavailable):
        await wait(register)
