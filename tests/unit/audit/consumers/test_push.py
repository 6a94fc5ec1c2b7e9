"""Push: what is signed, what is tried again, and what becomes of what a target refuses for good."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
from types import SimpleNamespace

import pytest

from gateway.audit.consumers.dead_letters import DeadLetters
from gateway.audit.consumers.delivery import NotDeliveredError
from gateway.audit.consumers.push import PushTarget, parse_secrets
from gateway.model.errors import BadNameError, Unavailable

pytestmark = pytest.mark.anyio

SECRET = b"0123456789abcdef0123456789abcdef"
RECORDS = [SimpleNamespace(line=b'{"seq":%d}' % number) for number in range(8)]


class Poster:
    """Answers with these statuses, one after the other, then 204; or as `answer_to` says."""

    def __init__(self, *statuses, retry_after=None, answer_to=None):
        self.statuses = list(statuses)
        self.retry_after = retry_after
        self.answer_to = answer_to
        self.posts = []

    async def post(self, body, headers):
        self.posts.append((body, dict(headers)))
        status = self.answer_to(body) if self.answer_to else self.statuses.pop(0) if self.statuses else 204
        if status is None:
            raise Unavailable("push", "siem.example did not answer")
        return SimpleNamespace(status=status, retry_after_seconds=self.retry_after)

    async def close(self):
        pass


@pytest.fixture
def make(tmp_path):
    def target(poster, *, most_bytes=1 << 20, secrets=(SECRET,)):
        made = PushTarget(
            poster,
            DeadLetters(tmp_path / "siem.refused.jsonl", most_bytes=most_bytes),
            node="node-1",
            load_secrets=lambda: secrets,
            note_refusal=lambda count, why: made.noted.append((count, why)),
            now=lambda: 1_900_000_000.75,
        )
        made.noted = []
        return made

    return target


async def test_a_batch_is_the_lines_with_a_signature_over_time_id_and_body(make):
    poster = Poster()
    await make(poster).deliver(RECORDS, None, None)
    [(body, headers)] = poster.posts
    assert body == b"".join(one.line + b"\n" for one in RECORDS)
    signed = f"1900000000.{headers['cachegate-delivery']}.".encode() + body
    expected = hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    assert headers["cachegate-signature"] == f"v1={expected}"
    assert (headers["cachegate-timestamp"], headers["cachegate-node"]) == ("1900000000", "node-1")


async def test_a_batch_that_is_tried_again_has_the_same_id(make):
    poster = Poster(503)
    target = make(poster)
    with pytest.raises(NotDeliveredError):
        await target.deliver(RECORDS, None, None)
    await target.deliver(RECORDS, None, None)
    await target.deliver(RECORDS[:3], None, None)
    first, second, other = [headers["cachegate-delivery"] for _, headers in poster.posts]
    assert first == second != other


async def test_while_a_secret_is_replaced_both_sign(make):
    poster = Poster()
    await make(poster, secrets=(SECRET, SECRET[::-1])).deliver(RECORDS, None, None)
    [(_, headers)] = poster.posts
    one, two = headers["cachegate-signature"].split(",")
    assert one.startswith("v1=")
    assert two.startswith("v1=")
    assert one != two


@pytest.mark.parametrize("status", [301, 308, 408, 429, 500, 503, None])
async def test_what_may_pass_is_tried_again_and_is_no_dead_letter(make, tmp_path, status):
    target = make(Poster(status, retry_after=7.0))
    with pytest.raises(NotDeliveredError) as caught:
        await target.deliver(RECORDS, None, None)
    assert caught.value.pause_seconds == (None if status is None else 7.0)
    assert list(tmp_path.iterdir()) == []
    assert target.noted == []


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
async def test_what_is_refused_for_good_goes_to_the_dead_letters_and_is_noted(make, tmp_path, status):
    target = make(Poster(status))
    handed = await target.deliver(RECORDS, None, None)
    assert handed.refused == len(RECORDS)
    path = tmp_path / "siem.refused.jsonl"
    letters = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [one["record"] for one in letters] == [json.loads(one.line) for one in RECORDS]
    assert {one["status"] for one in letters} == {status}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [(count, why)] = target.noted
    assert count == len(RECORDS)
    assert str(status) in why


async def test_a_batch_that_is_too_large_is_cut_until_only_what_really_is_too_large_is_refused(
    make, tmp_path
):
    def answer(body):
        return 413 if b'{"seq":5}' in body or len(body) > 40 else 204

    target = make(Poster(answer_to=answer))
    handed = await target.deliver(RECORDS, None, None)
    assert handed.refused == 1
    [letter] = (tmp_path / "siem.refused.jsonl").read_bytes().splitlines()
    assert json.loads(letter)["record"] == {"seq": 5}


async def test_when_the_dead_letters_are_full_delivery_stops_and_loses_nothing(make, tmp_path):
    target = make(Poster(400, 400, 400), most_bytes=1000)
    assert (await target.deliver(RECORDS, None, None)).refused == len(RECORDS)
    before = (tmp_path / "siem.refused.jsonl").read_bytes()
    with pytest.raises(NotDeliveredError) as caught:
        await target.deliver(RECORDS, None, None)
    assert caught.value.is_paused
    assert (tmp_path / "siem.refused.jsonl").read_bytes() == before
    (tmp_path / "siem.refused.jsonl").rename(tmp_path / "taken")
    assert (await target.deliver(RECORDS, None, None)).refused == len(RECORDS)


async def test_dead_letters_follow_no_link(make, tmp_path):
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "siem.refused.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(NotDeliveredError):
        await make(Poster(400)).deliver(RECORDS, None, None)
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.parametrize("raw", [b"", b"short\n", SECRET * 17, b"\n".join([SECRET] * 3)])
def test_a_file_without_a_good_secret_is_refused_and_not_repeated(raw):
    with pytest.raises(BadNameError) as caught:
        parse_secrets(raw)
    assert SECRET.decode() not in str(caught.value)


def test_a_file_may_hold_two_secrets_one_a_line():
    assert parse_secrets(SECRET + b"\r\n" + SECRET[::-1] + b"\n") == [SECRET, SECRET[::-1]]
