"""The delivery to one consumer: everything, in order, at least once, from where it was."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.audit.consumers.delivery import MOST_CHAINS, NotDeliveredError
from gateway.audit.consumers.registry import ConsumerProgress
from gateway.audit.index import encode_cursor
from gateway.audit.keeping.needs import Needs, read_needs
from tests.unit.audit.consumers.conftest import NOW, ScriptedTarget

pytestmark = pytest.mark.anyio


async def test_all_records_are_delivered_once_and_in_order(indexed, deliver):
    indexed.write(50)
    indexed.registry.add("siem", "push", now=NOW)
    target = ScriptedTarget()
    await deliver("siem", target, records=7)
    assert target.got == indexed.ids()
    assert target.closed == 1


async def test_after_its_end_a_delivery_goes_on_where_it_was(indexed, deliver):
    indexed.write(20)
    indexed.registry.add("siem", "push", now=NOW)
    await deliver("siem", ScriptedTarget())
    indexed.write(20)
    again = ScriptedTarget()
    await deliver("siem", again, is_ending=lambda: indexed.ids()[-1] in again.got)
    assert again.got == indexed.ids()[-len(again.got) :]
    assert len(again.got) >= 20
    found = indexed.registry.find("siem")
    assert (found.progress.state, found.progress.delivered) == ("stopped", len(indexed.ids()))


async def test_a_consumer_that_was_added_now_gets_nothing_of_before(indexed, deliver):
    indexed.write(20)
    indexed.registry.add("siem", "push", now=NOW, cursor=encode_cursor(indexed.reader.end()))
    before = indexed.ids()
    indexed.write(5)
    target = ScriptedTarget()
    await deliver("siem", target, is_ending=lambda: indexed.ids()[-1] in target.got)
    assert target.got == indexed.ids()[len(before) :]


async def test_a_failed_delivery_is_tried_again_with_the_same_records(indexed, deliver, monkeypatch):
    monkeypatch.setattr("gateway.audit.consumers.delivery.FIRST_PAUSE_SECONDS", 0.001)
    indexed.write(20)
    indexed.registry.add("siem", "push", now=NOW)

    def fail(call):
        if call < 4:
            raise NotDeliveredError("it is down")

    target = ScriptedTarget(before=fail)
    delivery = await deliver("siem", target)
    assert target.got == indexed.ids()
    assert delivery.progress.failures == 3
    assert delivery.progress.error is None


async def test_while_it_fails_the_state_the_cause_and_the_lag_are_noted(indexed, deliver):
    indexed.write(20)
    indexed.registry.add("siem", "push", now=NOW)
    indexed.clock.time += 90

    def fail(_call):
        raise NotDeliveredError("it is down", pause_seconds=0.0)

    target = ScriptedTarget(before=fail)
    delivery = await deliver("siem", target, is_ending=lambda: target.calls > 3)
    assert delivery.progress.error == "it is down"
    assert delivery.progress.lag_records == len(indexed.ids())
    assert delivery.progress.lag_seconds == pytest.approx(90, abs=1)
    assert indexed.registry.find("siem").cursor == encode_cursor(indexed.reader.start())


async def test_retention_is_told_what_was_delivered_and_no_more(indexed, deliver):
    indexed.write(30)
    indexed.registry.add("siem", "push", now=NOW)

    def fail(call):
        if call > 2:
            raise NotDeliveredError("it is down", pause_seconds=0.0)

    target = ScriptedTarget(before=fail)
    await deliver("siem", target, is_ending=lambda: target.calls > 4, records=10)
    [chain] = {one.record.chain for one in indexed.reader.read(indexed.reader.start(), 100).records}
    assert read_needs(indexed.folder)["siem"].has == {chain: 20}


async def test_a_target_may_say_where_to_go_on(indexed, deliver):
    indexed.write(30)
    indexed.registry.add("stream", "stream", now=NOW)
    middle = indexed.reader.read(indexed.reader.start(), 12).cursor
    target = ScriptedTarget(goes_on_at=[middle])
    await deliver("stream", target, is_ending=lambda: indexed.ids()[-1] in target.got)
    assert target.got == indexed.ids()[12:]


async def test_a_removed_consumer_gets_nothing_more(indexed, deliver):
    indexed.write(5)
    indexed.registry.add("siem", "push", now=NOW)

    def remove(_call):
        indexed.registry.remove("siem")
        indexed.clock.time += 10  # its progress is due to be saved

    target = ScriptedTarget(before=remove)
    await deliver("siem", target, is_ending=lambda: False, records=2)
    assert target.calls == 1
    assert read_needs(indexed.folder) == {}


async def test_a_cursor_that_does_not_parse_is_the_start_of_the_log(indexed, deliver):
    indexed.write(5)
    registration = indexed.registry.add("siem", "push", now=NOW)
    indexed.registry.save(registration, ConsumerProgress(cursor="nonsense"))
    target = ScriptedTarget()
    await deliver("siem", target)
    assert target.got == indexed.ids()


async def test_of_very_many_chains_those_that_are_gone_are_forgotten(indexed, deliver):
    indexed.write(5)
    registration = indexed.registry.add("siem", "push", now=NOW)
    many = {f"node-1.{number:012x}-00000000": 1 for number in range(MOST_CHAINS + 10)}
    consumer = indexed.registry.find("siem")
    indexed.registry.save(registration, replace(consumer.progress), Needs(has=many))
    await deliver("siem", ScriptedTarget())
    has = read_needs(indexed.folder)["siem"].has
    assert set(has) == {one.record.chain for one in indexed.reader.read(indexed.reader.start(), 9).records}


async def test_forged_numbers_and_times_are_delivered_and_stop_nothing(indexed, deliver):
    indexed.write(5)
    [path] = indexed.folder.glob("*-000001.jsonl")
    line = next(one for one in path.read_bytes().splitlines() if b'"seq":3,' in one)
    forged = line.replace(b'"seq":3,', b'"seq":%d,' % 10**30).replace(b'"time":"20', b'"time":"at 20')
    (indexed.folder / "node-1.01a0c4506cfa-ffffffff-000001.jsonl").write_bytes(forged + b"\n")
    indexed.indexer.step()
    indexed.registry.add("siem", "push", now=NOW)
    target = ScriptedTarget()
    count = len(path.read_bytes().splitlines()) + 1
    delivery = await deliver("siem", target, records=1, is_ending=lambda: len(target.got) >= count)
    assert len(target.got) == count
    assert delivery.progress.error is None
    [needs] = read_needs(indexed.folder).values()
    assert set(needs.has.values()) <= set(range(20))
