"""Small files from memory: the same answers and records as through the application, and as quick to end.

A request whose bytes are known is answered without being parsed. Whatever would have made the application
answer otherwise (a key revoked, a blob exchanged, a log that cannot be written) has to take effect all the
same, on the very next request.
"""

from __future__ import annotations

import os
from hashlib import sha256

import pytest

from gateway.directory.edits import keys as key_operations
from gateway.model.names import parse_key_id

AT_ONCE = "cachegate_answers_at_once_total"
VARYING = {"id", "seq", "prev", "time", "hash", "decision_id", "microseconds"}
ETAG = f'"{sha256(b"small enough to be sent at once" + bytes([10])).hexdigest()}"'

REQUESTS = [
    ("GET", ()),
    ("HEAD", ()),
    ("GET", (("User-Agent", "curl/8.5.0"),)),
    ("GET", (("Accept", "*/*"), ("Cookie", "a=b"), ("X-Forwarded-For", "203.0.113.9"))),
    ("GET", (("Range", "bytes=2-5"),)),
    ("HEAD", (("Range", "bytes=2-5"),)),
    ("GET", (("Range", "bytes=999-"),)),
    ("GET", (("Range", "lines=1-2"),)),
    ("HEAD", (("If-None-Match", ETAG),)),
    ("GET", (("If-None-Match", '"another"'),)),
    ("GET", (("If-Match", '"another"'),)),
    ("GET", (("If-Range", ETAG), ("Range", "bytes=2-5"))),
    ("GET", (("Want-Repr-Digest", "sha-256=0"),)),
    ("GET", (("If-Modified-Since", "Fri, 20 Nov 2026 14:23:33 GMT"),)),
    ("GET", (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)),
]


@pytest.fixture
def running(site, serve, paths, eventually):
    """A gateway that answers the small file from memory."""
    gateway = serve(site.installation)

    def is_at_once():
        before = gateway.metrics()[AT_ONCE]
        with gateway.wire.talk() as talk:
            for _ in range(3):
                assert talk.get(paths.small, site.token).body == paths.content
        return gateway.metrics()[AT_ONCE] >= before + 3

    eventually(is_at_once)  # a file that has just been written is not kept in memory yet
    return gateway


def comparable(records):
    """Records without the fields that always differ."""
    return [{name: value for name, value in one.items() if name not in VARYING} for one in records]


def test_both_ways_answer_and_record_alike(running, site, paths, eventually):
    """A query makes the request go to the application; it is no part of an answer or a record."""
    pairs, before = [], running.metrics()[AT_ONCE]
    for method, headers in REQUESTS:
        with running.wire.talk() as talk:
            known = [talk.request(method, paths.small, site.token, headers) for _ in range(3)]
            long = talk.request(method, paths.small + "?long=way", site.token, headers)
        assert [one.comparable() for one in known] == [long.comparable()] * 3, (method, headers)
        pairs.append((known[1].record_id, known[2].record_id, long.record_id))
    assert running.metrics()[AT_ONCE] - before >= 3 * 5
    wanted = {record_id for ids in pairs for record_id in ids}

    def all_closed():
        return {one["decision_id"] for one in site.records("outcome")} >= wanted

    eventually(all_closed)
    decisions = {one["id"]: one for one in site.records("decision")}
    outcomes = {one["decision_id"]: one for one in site.records("outcome")}
    for ids in pairs:
        one, *others = (comparable([decisions[record_id], outcomes[record_id]]) for record_id in ids)
        assert others == [one] * 2
    assert running.metrics()["cachegate_defects_total"] == 0


def test_both_ways_count_alike(running, site, paths):
    names = ("decisions_total{", "responses_total{", "sent_bytes_total")

    def counted(path):
        before = running.metrics()
        with running.wire.talk() as talk:
            for _ in range(10):
                assert talk.get(path, site.token).status == 200
        after = running.metrics()
        moved = {name: after[name] - before.get(name, 0) for name in after}
        return {name: by for name, by in moved.items() if by and any(one in name for one in names)}

    assert counted(paths.small) == counted(paths.small + "?long=way") != {}


def test_many_clients_and_pipelined_requests_get_each_their_own_answer(running, site, paths):
    request = f"GET {paths.small} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {{}}\r\n\r\n"
    good, bad = (request.format(token).encode() for token in (site.token, site.token[:-1] + "x"))
    order = [good, good, bad, good, bad, bad, good] * 3
    for _ in range(2):
        received = exchange(running.wire, b"".join(order))
        assert statuses(received) == [200 if one is good else 401 for one in order]
    ids = [line for line in received.split(b"\r\n") if line.startswith(b"cachegate-record: ")]
    assert len(set(ids)) >= order.count(good)


def exchange(wire, raw):
    received = b""
    with wire.connect(1.0) as connection:
        connection.sendall(raw)
        try:
            while piece := connection.recv(1 << 16):
                received += piece
        except TimeoutError:
            pass
    return received


def statuses(received):
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def test_a_key_that_is_revoked_gets_nothing_from_memory_any_more(running, site, paths):
    with running.wire.talk() as talk:
        assert talk.get(paths.small, site.token).status == 200
        site.installation.in_session(lambda session: revoke(session, site.key_id))
        before = running.metrics()[AT_ONCE]
        for _ in range(3):
            assert talk.get(paths.small, site.token).status == 401
    assert running.metrics()[AT_ONCE] == before


async def revoke(session, key_id):
    async def work(changes):
        await key_operations.revoke_key(changes, key_id=parse_key_id(key_id), now=session.clock.now())

    await session.perform("keys.revoke", work)


def rewrite(blob):
    blob.write_bytes(b"x" * blob.stat().st_size)


def exchange_blob(blob):
    other = blob.with_name("other")
    other.write_bytes(b"x" * blob.stat().st_size)
    other.replace(blob)


@pytest.mark.parametrize(
    "change", [rewrite, exchange_blob, lambda blob: os.truncate(blob, 3), lambda blob: blob.unlink()]
)
def test_a_blob_that_changed_between_two_reads_is_not_served_as_the_old_one(change, running, site, paths):
    with running.wire.talk() as talk:
        assert talk.get(paths.small, site.token).body == paths.content
        change(site.place_of("small.bin"))
        for _ in range(2):
            answer = talk.get(paths.small, site.token)
            assert answer.status == 404
            assert paths.content not in answer.body


def test_nothing_is_served_from_memory_that_cannot_be_recorded(running, site, paths, eventually):
    with running.wire.talk() as talk:
        assert talk.get(paths.small, site.token).status == 200
        for segment in site.installation.audit.glob("*-0*.jsonl"):
            segment.unlink()
        assert talk.get(paths.small, site.token).status == 503
        eventually(lambda: talk.get(paths.small, site.token).status == 200)


def test_nothing_is_served_from_memory_without_a_lease(running, site, paths, eventually):
    with running.wire.talk() as talk:
        assert talk.get(paths.small, site.token).status == 200
        with site.stopped_valkey():
            eventually(lambda: talk.get(paths.small, site.token).status == 503)
        eventually(lambda: talk.get(paths.small, site.token).status == 200)
    site.installation.verify_audit()


def test_every_answer_from_memory_is_recorded_and_closed(running, site, paths, eventually):
    with running.wire.talk() as talk:
        ids = [talk.get(paths.small, site.token).record_id for _ in range(200)]
    assert len(set(ids)) == 200
    eventually(lambda: {one["decision_id"] for one in site.records("outcome")} >= set(ids))
    closed = [one for one in site.records("outcome") if one["decision_id"] in set(ids)]
    assert [(one["ending"], one["status"], one["bytes"]) for one in closed] == [
        ("complete", 200, len(paths.content))
    ] * 200
    assert running.stop() == 0
    site.installation.verify_audit()
