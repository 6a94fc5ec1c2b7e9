"""The limits for what a client sends before anything is decided, over raw sockets against a real instance."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from gateway.problems import UNRECORDED
from gateway.server.early_refusal import EarlyRefusal
from gateway.server.protocol import (
    MAX_PIPELINED,
)

GET = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def assert_problem(answer, refusal):
    """Check that the answer is this refusal, complete, and that nothing follows it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.lower() for line in head.split(b"\r\n")]
    assert lines[0].startswith(b"http/1.1 %d " % refusal.status)
    assert b"content-type: application/problem+json" in lines
    assert b"connection: close" in lines
    assert b"content-length: %d" % len(body) in lines
    assert not any(line.startswith(b"server:") for line in lines)
    problem = json.loads(body)
    assert (problem["type"], problem["status"]) == (f"urn:cachegate:problem:{refusal}", refusal.status)
    assert set(problem) == {"type", "title", "status", "detail", "record"}
    assert b"cachegate-record: " + problem["record"].encode() in lines
    assert re.search(rb"\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n", head)


def test_the_longest_target_is_served(instance):
    target = b"a" * (MAX_TARGET_BYTES - 1)
    answer = instance.send(b"GET /%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % target)
    assert statuses(answer) == [200]


@pytest.mark.parametrize("length", [MAX_TARGET_BYTES, 100_000, 1_000_000])
def test_a_longer_target_is_414(instance, length):
    assert_problem(instance.send(GET % (b"a" * length)), EarlyRefusal.PATH_TOO_LONG)


def test_a_long_target_that_comes_in_pieces_is_414(instance):
    answer = instance.send(b"GET /", *[b"a" * 1000] * 9)
    assert_problem(answer, EarlyRefusal.PATH_TOO_LONG)


def test_the_largest_header_block_is_served(instance):
    value = b"a" * (MAX_HEADER_BYTES - len("hostx") - len("connectionclose") - len("big") - 3 * 4)
    answer = instance.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nbig: %b\r\n\r\n" % value)
    assert statuses(answer) == [200]
    answer = instance.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nbig: %ba\r\n\r\n" % value)
    assert_problem(answer, EarlyRefusal.HEADERS_TOO_LARGE)


def test_a_megabyte_of_one_header_is_431(instance):
    answer = instance.send(b"GET / HTTP/1.1\r\nbig: ", *[b"a" * 10_000] * 100)
    assert_problem(answer, EarlyRefusal.HEADERS_TOO_LARGE)


def test_a_megabyte_of_many_headers_is_431(instance):
    answer = instance.send(b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 170_000)
    assert_problem(answer, EarlyRefusal.HEADERS_TOO_LARGE)


def test_one_header_too_many_is_431(instance):
    fields = b"a: b\r\n" * (MAX_HEADER_COUNT - 2)
    assert statuses(instance.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n" % fields)) == [
        200
    ]
    answer = instance.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%ba: b\r\n\r\n" % fields)
    assert_problem(answer, EarlyRefusal.HEADERS_TOO_LARGE)


def test_an_endless_header_does_not_grow_the_worker(instance):
    def peak_kib():
        pid = instance.get("/")["pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    instance.send(b"GET / HTTP/1.1\r\nbig: ", *[b"a" * 100_000] * 10)
    before = peak_kib()
    for _ in range(5):
        instance.send(b"GET / HTTP/1.1\r\nbig: ", *[b"a" * 1_000_000] * 20)
    assert peak_kib() - before < 4 * 1024


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na : b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET / HTTP/0.9\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.2\r\nhost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: x\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /# HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /a?b#c HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://x/a#b HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400_in_the_shape_of_every_refusal(instance, garbage):
    assert_problem(instance.send(garbage), EarlyRefusal.MALFORMED_REQUEST)


def test_a_websocket_upgrade_is_refused(instance):
    answer = instance.send(
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert_problem(answer, EarlyRefusal.MALFORMED_REQUEST)


def test_another_upgrade_is_ignored_but_ends_the_connection(instance):
    offer = b"host: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    assert statuses(instance.send(b"GET /a HTTP/1.1\r\n%b\r\n" % offer + GET % b"b")) == [200]


def test_an_upgrade_with_a_body_is_refused_because_the_body_would_read_as_a_request(instance):
    offer = b"host: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n" % len(LAST)
    answer = instance.send(b"POST /a HTTP/1.1\r\n%b\r\n" % offer, LAST)
    assert_problem(answer, EarlyRefusal.MALFORMED_REQUEST)


def test_nothing_that_follows_a_refusal_is_served(instance):
    before = instance.status()["counters"]["requests"]
    answer = instance.send(b"garbage\r\n\r\n" + GET % b"smuggled", GET % b"smuggled")
    assert_problem(answer, EarlyRefusal.MALFORMED_REQUEST)
    assert instance.status()["counters"]["requests"] == before


def test_answers_that_are_owed_come_before_a_refusal(instance):
    answer = instance.send(GET % b"slow" + GET % b"b" + b"garbage\r\n\r\n" + GET % b"c")
    assert statuses(answer) == [200, 200, 400]
    assert [path in answer for path in (b'"/slow"', b'"/b"', b'"/c"')] == [True, True, False]


def test_a_body_that_breaks_off_is_answered_400(instance):
    answer = instance.send(
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nhello\r\nZZ\r\n"
    )
    assert_problem(answer, EarlyRefusal.MALFORMED_REQUEST)


def test_a_queued_request_whose_body_breaks_off_is_not_served(instance):
    broken = b"POST /broken HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n"
    answer = instance.send(GET % b"slow" + broken)
    assert statuses(answer) == [200, 400]
    assert b"/broken" not in answer


def test_a_trailer_does_not_become_a_header(instance):
    answer = instance.send(
        b"POST /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\nx-api-key: late\r\n\r\n"
    )
    assert statuses(answer) == [200]
    assert b"x-api-key" not in answer


def test_endless_trailers_are_refused(instance):
    answer = instance.send(
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 20_000
    )
    assert_problem(answer, EarlyRefusal.HEADERS_TOO_LARGE)


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(instance):
    answer = instance.send(GET % b"a" * MAX_PIPELINED + LAST)
    assert statuses(answer) == [200] * (MAX_PIPELINED + 1)
    answer = instance.send(GET % b"a" * (MAX_PIPELINED + 2))
    assert statuses(answer) == [200] * (MAX_PIPELINED + 1) + [400]


def test_a_connection_is_kept_between_requests(instance):
    with instance.connect() as connection:
        for _ in range(3):
            connection.sendall(GET % b"a")
            answer = b""
            while not answer.endswith(b"}"):  # head and body may come in two pieces
                answer += connection.recv(65536)
            assert statuses(answer) == [200]


@pytest.mark.slow
def test_headers_that_drip_are_cut_off(instance):
    answers = []
    with instance.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        connection.settimeout(1)
        while not any(answers):
            connection.sendall(b"a: b\r\n")
            answers.append(receive_within_the_second(connection))
    assert len(answers) > 3  # the first ones were taken: what drips is not refused at once
    assert_problem(answers[-1], EarlyRefusal.SLOW_REQUEST)


@pytest.mark.slow
@pytest.mark.parametrize("drip", [b"", b"\r\n"])
def test_a_connection_that_never_begins_a_request_is_closed(instance, drip):
    waits = 0
    with instance.connect() as connection, suppress(ConnectionError):
        connection.settimeout(1)
        connection.sendall(drip)
        while (answer := receive_within_the_second(connection)) is None:
            waits += 1
            connection.sendall(drip)
        assert answer == b""
    assert waits >= 3  # it may wait for a while before it begins


def receive_within_the_second(connection):
    """What came, or None where nothing did: a second passes between two drips."""
    try:
        return connection.recv(65536)
    except TimeoutError:
        return None


def test_refusals_are_reported_with_the_peer(serving):
    with serving() as running:
        running.send(b"garbage\r\n\r\n")
        running.send(GET % (b"a" * 100_000))
        running.send(GET % (b"a" * 100_000))
        counters = running.status()["counters"]
    assert counters["malformed-request@127.0.0.1"] == 1
    assert counters["path-too-long@127.0.0.1"] == 2
    assert counters["requests"] == 0


def record_of(answer):
    return json.loads(answer.partition(b"\r\n\r\n")[2])["record"]


def test_a_refusal_names_the_record_that_was_made_of_it(serving):
    with serving() as running:
        assert record_of(running.send(b"garbage\r\n\r\n")) == "record-1"
        assert (
            record_of(running.send(GET % b"slow" + b"garbage\r\n\r\n").partition(b"HTTP/1.1 400")[2])
            == "record-2"
        )


def test_a_refusal_that_was_not_recorded_says_so(serving):
    with serving(argument={"records_nothing": True}) as running:
        assert record_of(running.send(b"garbage\r\n\r\n")) == UNRECORDED


def test_http_1_0_needs_no_host(instance):
    assert statuses(instance.send(b"GET / HTTP/1.0\r\n\r\n")) == [200]
