"""Syslog: the form of a message, and what is sent again after a connection broke."""

from __future__ import annotations

import json
import re

import pytest

from gateway.audit.consumers.delivery import NotDeliveredError
from gateway.audit.consumers.syslog import SyslogTarget, format_message
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

FORM = re.compile(
    r'<(?P<priority>\d{1,3})>1 (?P<time>\S+) (?P<host>\S+) cachegate - (?P<kind>[a-z-]+) '
    r'\[cachegate@32473 id="(?P<id>[^"]+)" chain="(?P<chain>[^"]+)" seq="(?P<seq>\d+)" '
    r'hash="(?P<hash>[0-9a-f]{64})"\] (?P<message>.*)'
)  # fmt: skip


class Sender:
    """Keeps what it sent; `is_open` and failures are set by the test."""

    def __init__(self):
        self.is_open = False
        self.sent = []
        self.fails = 0

    def send(self, messages):
        if self.fails:
            self.fails -= 1
            self.is_open = False
            raise Unavailable("syslog", "it broke off")
        self.is_open = True
        self.sent += messages

    def close(self):
        self.is_open = False


def records(indexed, count):
    indexed.write(count)
    return indexed.reader.read(indexed.reader.start(), 10_000).records


def test_a_message_has_the_record_and_what_proves_it(indexed):
    [one, *_] = records(indexed, 3)
    match = FORM.fullmatch(format_message(one).decode())
    assert match
    record = json.loads(match["message"])
    assert match["message"].encode() == one.line
    assert (match["id"], match["chain"], match["hash"]) == (record["id"], record["chain"], record["hash"])
    assert (int(match["seq"]), match["time"], match["host"]) == (
        record["seq"],
        record["time"],
        record["node"],
    )
    assert match["kind"] == record["kind"]
    assert int(match["priority"]) == 13 * 8 + 6


def test_a_record_that_is_too_large_is_replaced_by_what_finds_it_in_the_log(indexed):
    [one, *_] = records(indexed, 3)
    most = len(format_message(one)) - 1
    message = format_message(one, most=most)
    match = FORM.fullmatch(message.decode())
    assert match
    assert match["id"] == one.record.id
    assert json.loads(match["message"])["omitted_bytes"] == len(one.line)
    assert len(message) <= most


async def test_what_was_sent_in_the_last_seconds_is_sent_again_after_a_break(indexed):
    clock = indexed.clock
    page = records(indexed, 30)
    start = indexed.reader.start()
    sender = Sender()
    target = SyslogTarget(sender, now=clock.now)
    cursors = [start, *(one.cursor for one in page)]
    await target.deliver(page[:5], cursors[0], cursors[5])
    clock.time += 10
    await target.deliver(page[5:10], cursors[5], cursors[10])
    await target.deliver(page[10:15], cursors[10], cursors[15])
    sender.is_open = False
    handed = await target.deliver(page[15:20], cursors[15], cursors[20])
    assert handed.goes_on_at == cursors[5]
    assert (await target.deliver(page[5:10], cursors[5], cursors[10])).goes_on_at is None


async def test_a_receiver_that_stays_away_is_tried_at_growing_pauses_and_not_started_over(indexed):
    page = records(indexed, 10)
    start = indexed.reader.start()
    sender = Sender()
    sender.fails = 3
    target = SyslogTarget(sender, now=indexed.clock.now)
    for _ in range(3):
        with pytest.raises(NotDeliveredError):
            await target.deliver(page, start, page[-1].cursor)
    assert (await target.deliver(page, start, page[-1].cursor)).goes_on_at is None
    assert len(sender.sent) == len(page)
