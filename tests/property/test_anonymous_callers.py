"""Whatever keys and models anonymous callers invent, the memory for them is bounded and fully charged."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.errors import Reason
from gateway.model.names import KeyId, ModelId
from gateway.model.stamps import Leaf
from gateway.platform.budget import Budget
from gateway.platform.unknown_keys import RequestStart, UnknownKeys

GROUND = Leaf(b"ending of everything", None)


class Clock:
    time = 0.0

    def monotonic(self):
        return self.time


class Source:
    async def read(self, wanted):
        return 1, [GROUND, *(Leaf(name, None) for name in wanted[1:])]


def unknown_keys(clock, max_bytes):
    return UnknownKeys(
        source=Source(),
        budget=Budget(per_second=10_000, now=clock.monotonic),
        clock=clock,
        max_bytes=max_bytes,
    )


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.none() | st.text("aä/\U0001f600", min_size=1, max_size=200),
        st.floats(0, 5),
        st.floats(0, 3),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(events=EVENTS, max_bytes=st.integers(0, 20_000))
def test_any_denials_stay_within_the_bound_and_end_by_their_time(events, max_bytes):
    clock = Clock()
    memory = unknown_keys(clock, max_bytes)
    said = {}
    for number, text, seconds, pause in events:
        key, model = KeyId(f"key_{number:012}"), None if text is None else ModelId(text)
        start = RequestStart(asked=1, last_ending=GROUND, at=clock.time)
        memory.put(key, model, Reason.UPSTREAM_REFUSED, start, seconds)
        if clock.time + seconds > clock.time:  # one that has ended already replaces none
            said[key, model] = clock.time + seconds
        assert memory.memory.held_bytes <= max_bytes
        clock.time += pause
        for (one, about), until in said.items():
            if about is not None and asyncio.run(memory.find(one, about)) is not None:
                assert clock.time < until


@settings(max_examples=5, deadline=None)
@given(length=st.sampled_from([1, 64, 512, 1024]), letter=st.sampled_from("aä\U0001f600"))
def test_what_is_charged_is_no_less_than_what_is_held(length, letter):
    clock = Clock()
    memory = unknown_keys(clock, 1 << 30)

    def fill(count, start=0):
        for number in range(start, start + count):
            name = ModelId(f"{number:09}/" + letter * (length // len(letter.encode())))
            start = RequestStart(asked=(1 << 40) + number, last_ending=GROUND, at=clock.time + number / 7)
            memory.put(KeyId(f"key_{number:012}"), name, Reason.UPSTREAM_REFUSED, start, 1e9)

    fill(10)
    gc.collect()
    tracemalloc.start()
    before, charged = tracemalloc.get_traced_memory()[0], memory.memory.held_bytes
    fill(1000, start=10)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held <= memory.memory.held_bytes - charged
