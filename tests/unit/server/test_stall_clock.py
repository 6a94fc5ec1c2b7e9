"""The stall clock, on a clock of the test's own: what counts as progress, and when a connection is cut."""

from __future__ import annotations

import heapq
from itertools import count

import pytest

from gateway.server.stall_clock import LEAST_BYTES_PER_SECOND, StallClock

SECONDS = 60.0
LEAST = int(LEAST_BYTES_PER_SECOND * SECONDS)
LATEST = 1.26 * SECONDS  # when a stalled client is cut at the latest, with the interval of the checks


class Loop:
    """An event loop's timers."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []
        self.order = count()

    def time(self):
        return self.now

    def call_later(self, delay, call):
        timer = Timer(call)
        heapq.heappush(self.timers, (self.now + delay, next(self.order), timer))
        return timer

    def advance(self, seconds):
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            self.now, _, timer = heapq.heappop(self.timers)
            if not timer.is_cancelled:
                timer.call()
        self.now = until


class Timer:
    def __init__(self, call):
        self.call = call
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


class Client:
    """What was written to a client, what it acknowledged, and when it was cut."""

    def __init__(self, loop):
        self.loop = loop
        self.written = self.taken = 0
        self.cut_at = None

    def take(self, wanted):
        self.taken = min(self.written, self.taken + wanted)

    def unsent_bytes(self):
        return self.written - self.taken

    def acknowledged_bytes(self):
        return self.taken

    def abort(self):
        assert self.cut_at is None
        self.cut_at = self.loop.now


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def client(loop):
    return Client(loop)


@pytest.fixture
def clock(loop, client):
    clock = StallClock(client, loop, SECONDS, on_stall=lambda: None)
    clock.start()
    return clock


def test_a_client_that_takes_in_nothing_is_cut_in_time_and_once(loop, client, clock):
    loop.advance(500)  # an idle connection is not stalled
    assert client.cut_at is None
    written_at = loop.now
    client.written = 100
    loop.advance(10 * SECONDS)
    assert SECONDS <= client.cut_at - written_at <= LATEST
    assert not loop.timers


def test_what_is_written_anew_is_no_progress(loop, client, clock):
    """Otherwise a client could keep an answer for ever by requesting another one now and then."""
    written_at = loop.now
    for _ in range(int(LATEST)):
        client.written += 700
        loop.advance(1)
    assert client.cut_at - written_at <= LATEST


def test_a_client_that_takes_one_byte_a_second_is_cut(loop, client, clock):
    client.written = 10 * LEAST
    for _ in range(int(LATEST)):
        client.take(1)
        loop.advance(1)
    assert client.cut_at is not None


def test_a_client_that_takes_the_least_there_may_be_goes_on(loop, client, clock):
    client.written = 100 * LEAST
    for _ in range(50):
        loop.advance(SECONDS - 1)
        client.take(LEAST)
        loop.advance(1)
    assert client.cut_at is None
    loop.advance(LATEST)
    assert client.cut_at is not None


def test_taking_all_there_is_is_enough_however_little_that_is(loop, client, clock):
    for _ in range(50):
        client.written += 10
        loop.advance(SECONDS - 1)
        client.take(10)
        loop.advance(1)
    assert client.cut_at is None


def test_taking_all_that_was_there_is_enough_though_more_has_come(loop, client, clock):
    client.written = 10
    for _ in range(50):
        loop.advance(SECONDS / 2)
        client.written += 10
        client.take(10)  # there is always something unsent
        assert client.unsent_bytes() == 10
        loop.advance(SECONDS / 2 - 1)
    assert client.cut_at is None


def test_a_client_that_goes_on_after_a_while_is_given_the_whole_time_again(loop, client, clock):
    client.written = 100 * LEAST
    loop.advance(SECONDS - 1)
    client.take(LEAST)
    taken_at = loop.now
    loop.advance(10 * SECONDS)
    assert SECONDS <= client.cut_at - taken_at <= LATEST


def test_a_connection_that_is_lost_is_looked_at_no_more(loop, client, clock):
    client.written = 100
    loop.advance(SECONDS / 2)
    clock.stop()
    loop.advance(10 * SECONDS)
    assert client.cut_at is None
    clock.stop()


def test_a_connection_of_which_the_kernel_says_nothing_any_more_is_no_stalled_one(loop, client, clock):
    client.written = 2 * LEAST
    client.take(LEAST)
    loop.advance(SECONDS / 2)
    client.written = client.taken = 0  # the socket is closed already, the loss not reported yet
    loop.advance(10 * SECONDS)
    assert client.cut_at is None


def test_somebody_is_told_before_the_cut(loop, client):
    told = []
    StallClock(client, loop, SECONDS, on_stall=lambda: told.append(client.cut_at)).start()
    client.written = 100
    loop.advance(10 * SECONDS)
    assert told == [None]
