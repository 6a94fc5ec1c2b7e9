"""Laws of the audit log: no single byte of it can change unnoticed, and what was written reads back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import AuditLog, Damage, Limits, verify
from gateway.audit.record import parse_line, parse_link, split_hash, split_signature
from gateway.audit.scrub import MAX_AGENT_CHARACTERS, clean_agent
from gateway.audit.timeline import RecordIds, Timestamps, parse_record_id
from gateway.model.errors import Reason
from gateway.model.verdicts import Rejection
from tests import samples
from tests.examples import examples

AGENTS = (b"curl/8.5.0", b"", '\\"quoted"\\ é'.encode())


class _Clock:
    def __init__(self):
        self.time = 1_790_000_000.0

    def now(self):
        self.time += 0.001
        return self.time


def _request(agent):
    return samples.wire_request(headers=((b"user-agent", agent),), client="192.0.2.1", route="/v1/models")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small closed log of three segments."""
    folder = tmp_path_factory.mktemp("written") / "audit"
    log = AuditLog(
        folder=folder,
        node="n",
        signing_key=Ed25519PrivateKey.generate(),
        clock=_Clock(),
        limits=Limits(segment_bytes=2500, head_records=5),
    )
    for index in range(8):
        log.reject(
            Rejection(
                request=_request(AGENTS[index % 3]), reason=Reason.NO_CREDENTIAL, claimed_key_id="key_a"
            )
        )
    log.close()
    assert verify(folder).is_intact
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _laid_out(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_no_byte_of_any_record_changes_without_being_named(written, data):
    name = data.draw(st.sampled_from(sorted(name for name in written if "-0" in name)))
    position = data.draw(st.integers(0, len(written[name]) - 1))
    mask = data.draw(st.integers(1, 255))
    content = bytearray(written[name])
    content[position] ^= mask
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _laid_out({**written, name: bytes(content)}, folder)
        (chain,) = verify(folder).chains
    fault = chain.fault
    assert fault is not None
    assert fault.file == name
    line = written[name][:position].count(b"\n") + 1
    assert fault.line == line


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_no_cut_at_the_end_of_a_closed_chain_goes_unnoticed(written, data):
    name = max(name for name in written if "-0" in name)
    kept = data.draw(st.integers(0, len(written[name]) - 1))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _laid_out({**written, name: written[name][:kept]}, folder)
        (chain,) = verify(folder).chains
    assert chain.fault is not None
    assert chain.fault.damage is Damage.TRUNCATED
    assert chain.fault.line == written[name][:kept].count(b"\n") + 1


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_no_changed_byte_of_the_heads_file_makes_verification_fail_to_answer(written, data):
    content = bytearray(written["heads.jsonl"])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _laid_out({**written, "heads.jsonl": bytes(content)}, folder)
        report = verify(folder)
    # Half a line at the very end may be a head that is just being written; its chain has it.
    assert not report.is_intact or content[-1:] != b"\n"


@given(line=st.binary(max_size=300))
@pytest.mark.parametrize("parse", [parse_line, parse_link, split_hash, split_signature])
def test_a_line_parses_or_is_refused_and_nothing_else(parse, line):
    try:
        parse(line)
    except ValueError:
        return


@given(agent=st.binary(max_size=2000))
def test_any_agent_becomes_a_short_printable_line(agent):
    cleaned = clean_agent(agent)
    assert cleaned.isascii()
    assert not cleaned or cleaned.isprintable()
    assert len(cleaned) <= MAX_AGENT_CHARACTERS


@given(
    before=st.text("ab /;", max_size=400),
    key=st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=24, max_size=60),
    after=st.text("ab /;", max_size=400),
)
def test_no_piece_of_a_key_survives_wherever_it_stands(before, key, after):
    cleaned = clean_agent(f"{before}cg_live_{key}{after}".encode())
    assert not set(cleaned) & set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@given(times=st.lists(st.floats(0, 4_000_000_000), min_size=2, max_size=50))
def test_ids_ascend_however_the_clock_jumps(times):
    ids = RecordIds()
    made = [ids.next(now) for now in times]
    assert made == sorted(set(made))
    assert all(parse_record_id(record_id) >= 0 for record_id in made)


@given(first=st.floats(0, 4_000_000_000), second=st.floats(0, 4_000_000_000))
def test_the_order_of_time_texts_is_the_order_of_times(first, second):
    times = Timestamps()
    earlier, later = sorted((first, second))
    assert times.text(earlier) <= times.text(later)
    assert len(times.text(first)) == 27
