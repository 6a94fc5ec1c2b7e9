"""The runner: a thread for each consumer, none of which holds up another."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest

from gateway.audit.consumers.delivery import Delivery
from gateway.audit.consumers.runner import ConsumerRunner
from gateway.audit.index import encode_cursor
from gateway.model.errors import Misconfigured
from tests.unit.audit.consumers.conftest import NOW, ScriptedTarget


class Reports:
    """What the runner reported last, by the consumer's name."""

    def __init__(self) -> None:
        self.last = {}
        self.changed = threading.Condition()

    def __call__(self, statuses):
        with self.changed:
            self.last = {one.name: one for one in statuses}
            self.changed.notify_all()

    def await_(self, holds, seconds=20.0):
        with self.changed:
            assert self.changed.wait_for(lambda: holds(self.last), seconds), self.last


@pytest.fixture
def running(indexed, monkeypatch):
    monkeypatch.setattr("gateway.audit.consumers.runner.FIRST_RESTART_SECONDS", 0.01)
    monkeypatch.setattr("gateway.audit.consumers.runner.END_SECONDS", 0.5)

    @contextmanager
    def run(targets):
        def make(consumer, is_ending):
            target = targets[consumer.registration.name]
            if isinstance(target, Exception):
                raise target
            return Delivery(
                indexed.folder, consumer, indexed.registry, indexed.reader, target,
                is_ending=is_ending, now=indexed.clock.now,
            )  # fmt: skip

        reports = Reports()
        runner = ConsumerRunner(
            indexed.registry, indexed.reader, make, reports, now=indexed.clock.now, monotonic=time.monotonic
        )
        thread = threading.Thread(target=runner.run, args=(0.01,))
        thread.start()
        yield reports
        runner.end()
        thread.join()

    return run


def test_a_target_that_hangs_holds_up_no_other(indexed, running):
    indexed.write(20)
    freed = threading.Event()
    hanging, good = ScriptedTarget(before=lambda _call: freed.wait()), ScriptedTarget()
    for name in ("hanging", "good"):
        indexed.registry.add(name, "push", now=NOW)
    with running({"hanging": hanging, "good": good}):
        good.await_all(indexed.ids())
        indexed.write(20)
        good.await_all(indexed.ids())
        assert hanging.got == []
        freed.set()
        hanging.await_all(indexed.ids())


def test_a_consumer_that_is_added_meanwhile_begins_and_one_that_is_removed_ends(indexed, running):
    indexed.write(5)
    one, two = ScriptedTarget(), ScriptedTarget()
    indexed.registry.add("one", "push", now=NOW)
    with running({"one": one, "two": two}) as reports:
        one.await_all(indexed.ids())
        indexed.registry.add("two", "push", now=NOW)
        two.await_all(indexed.ids())
        indexed.registry.remove("one")
        reports.await_(lambda found: set(found) == {"two"})


def test_a_defect_of_one_is_reported_and_it_is_started_again(indexed, running):
    indexed.write(5)

    def break_once(call):
        if call == 1:
            raise RuntimeError("a defect")

    target = ScriptedTarget(before=break_once)
    indexed.registry.add("one", "push", now=NOW)
    with running({"one": target}):
        target.await_all(indexed.ids())
    assert target.calls == 2
    assert target.closed == 2


def test_one_that_cannot_be_made_is_failing_with_its_cause(indexed, running):
    indexed.write(5)
    indexed.registry.add("one", "push", now=NOW)
    with running({"one": Misconfigured("secret.file", "cannot be read")}) as reports:
        reports.await_(lambda found: "one" in found and found["one"].state == "failing")
        assert "secret.file" in reports.last["one"].error
        assert not reports.last["one"].is_well


def test_a_reader_of_the_feed_is_not_delivered_to_and_its_lag_is_reported(indexed, running):
    indexed.write(5)
    cursor = indexed.reader.read(indexed.reader.start(), 2).cursor
    indexed.registry.add("reader", "feed", now=NOW, cursor=encode_cursor(cursor))
    indexed.clock.time += 30
    with running({}) as reports:
        reports.await_(lambda found: "reader" in found and found["reader"].lag_records > 0)
        assert reports.last["reader"].lag_records == len(indexed.ids()) - 2
        assert reports.last["reader"].lag_seconds == pytest.approx(30, abs=1)
