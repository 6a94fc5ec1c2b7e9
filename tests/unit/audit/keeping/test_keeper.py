"""Keeping the folder within bounds: what is packed, what is removed, and what `verify` says of it then."""

from __future__ import annotations

import json
import os
import shutil

import msgspec
import pytest

from gateway.audit import Damage, read_events, verify
from gateway.audit.head import Signer
from gateway.audit.keeping.keeper import Bounds, Keeper
from gateway.audit.limits import Durability
from gateway.audit.report import Verdict

DAY = 86_400.0


class Kept:
    """An audit folder with a keeper, whose files are as old as their records."""

    def __init__(self, audit):
        self.audit = audit

    def write_chain(self, records=60, **limits):
        log = self.audit.open(**{"segment_bytes": 8000, "head_records": 10, **limits})
        self.audit.write(log, records)
        return log

    def round(self, *, pack_seconds=None, **bounds):
        self.set_times()
        keeper = Keeper(
            self.audit.folder,
            "node-1",
            Signer(self.audit.key),
            Bounds(pack_seconds=pack_seconds, **bounds),
            lambda: self.audit.open(durability=Durability.PROCESS),
        )
        return keeper.run(self.audit.clock.time)

    def set_times(self):
        for path in self.audit.segments:
            last = json.loads(path.read_bytes().splitlines()[-1])["time"] if path.stat().st_size else None
            if last is not None:
                moment = _seconds(last)
                os.utime(path, (moment, moment))

    @property
    def packed(self):
        return sorted(self.audit.folder.glob("*.jsonl.zst"))

    def records(self, kind):
        return [event.record for event in read_events(self.audit.folder) if _kind(event) == kind]

    def needs(self, name, **document):
        folder = self.audit.folder / "needs"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_bytes(msgspec.json.encode({"schema": 1, **document}))


def _seconds(text):
    from datetime import datetime  # noqa: PLC0415

    return datetime.fromisoformat(text).timestamp()


def _kind(event):
    return json.loads(event.line)["kind"]


@pytest.fixture
def kept(audit):
    return Kept(audit)


def test_closed_segments_are_packed_and_read_as_before(kept, audit):
    log = kept.write_chain()
    before = [event.line for event in read_events(audit.folder)]
    count = len(audit.segments)
    assert count > 3
    audit.clock.time += 7200
    found = kept.round(pack_seconds=3600)
    assert found.packed == len(kept.packed) == count - 1  # not the one that is being written
    assert found.saved_bytes > 0
    assert [event.line for event in read_events(audit.folder)] == before
    assert audit.verify().is_intact
    log.close()
    assert audit.verify().verdict is Verdict.INTACT


def test_a_young_segment_and_one_that_is_written_are_not_packed(kept, audit):
    log = kept.write_chain()
    assert kept.round(pack_seconds=3600).packed == 0
    audit.clock.time += 7200
    assert kept.round().packed == 0
    log.close()


def test_a_segment_that_is_both_plain_and_packed_is_compared_and_then_packed(kept, audit):
    kept.write_chain().close()
    path = audit.segments[0]
    whole = path.read_bytes()
    audit.clock.time += 7200
    kept.round(pack_seconds=3600)
    path.write_bytes(whole)  # as when the round was killed before its last step
    assert audit.verify().is_intact
    assert kept.round(pack_seconds=3600).packed == 1
    assert not path.exists()
    path.write_bytes(whole[:-100])
    os.utime(path, (1, 1))
    kept.set_times = lambda: None
    report = audit.verify()
    assert not report.is_intact
    assert any("differ" in problem for problem in report.problems)
    assert kept.round(pack_seconds=3600).packed == 0
    assert path.exists()


def test_nothing_is_removed_unless_it_is_set(kept, audit):
    kept.write_chain().close()
    audit.clock.time += 10_000 * DAY
    assert kept.round().removed == 0


@pytest.mark.parametrize("is_packed", [False, True])
def test_old_segments_are_removed_with_a_note_and_what_is_left_verifies(kept, audit, is_packed):
    log = kept.write_chain()
    if is_packed:
        audit.clock.time += 7200
        assert kept.round(pack_seconds=3600).packed
    names = [path.name for path in audit.segments] + [path.name for path in kept.packed]
    audit.clock.time += 10 * DAY
    audit.write(log, 30)
    found = kept.round(keep_seconds=5 * DAY)
    assert found.removed > 3
    report = audit.verify()
    assert report.is_intact
    [chain] = [one for one in report.chains if one.removed_segments]
    assert len(chain.removed_segments) == found.removed
    assert set(chain.removed_segments) <= {name.removesuffix(".zst") for name in names}
    assert chain.missing_segments == ()
    [record] = kept.records("retention")
    assert (record.state, record.segments) == ("removing", found.removed)
    audit.write(log, 30)
    log.close()
    assert audit.verify().verdict is Verdict.INTACT


def test_a_whole_chain_is_removed_and_is_not_missing(kept, audit):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    kept.round(keep_seconds=5 * DAY)
    report = audit.verify()
    assert report.is_intact
    assert (len(report.removed_chains), report.missing_chains) == (1, ())
    # And again: the chain that recorded it, a week later.
    audit.clock.time += 10 * DAY
    kept.round(keep_seconds=5 * DAY)
    assert len(audit.verify().removed_chains) == 2


def test_without_the_note_it_is_missing(kept, audit):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    kept.round(keep_seconds=5 * DAY)
    (audit.folder / "retention.jsonl").unlink()
    report = audit.verify()
    assert not report.is_intact
    assert len(report.missing_chains) == 1


def test_a_note_covers_what_it_names_and_nothing_else(kept, audit):
    log = kept.write_chain()
    audit.clock.time += 10 * DAY
    audit.write(log, 60)
    log.close()
    kept.round(keep_seconds=5 * DAY)
    left = audit.segments
    left[0].unlink()
    report = audit.verify()
    assert not report.is_intact
    chain = next(one for one in report.chains if one.missing_segments)
    assert chain.missing_segments == (left[0].name,)
    for path in left[1:]:
        if path.name.startswith(chain.chain):
            path.unlink()
    assert chain.chain in audit.verify().missing_chains


@pytest.mark.parametrize("where", ["note", "signature", "link"])
def test_a_changed_note_proves_nothing(kept, audit, where):
    for _ in range(2):
        kept.write_chain().close()
        audit.clock.time += 10 * DAY
        kept.round(keep_seconds=5 * DAY)
    path = audit.folder / "retention.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    if where == "note":
        lines[0] = lines[0].replace(b'"first_seq":1,', b'"first_seq":2,', 1)
    elif where == "signature":
        at = lines[1].index(b'"signature":"') + 13
        lines[1] = lines[1][:at] + (b"0" if lines[1][at : at + 1] != b"0" else b"1") + lines[1][at + 1 :]
    else:
        del lines[0]
    path.write_bytes(b"".join(lines))
    report = audit.verify()
    assert not report.is_intact
    assert any("retention.jsonl" in problem for problem in report.problems)
    assert kept.round(keep_seconds=DAY).removed == 0  # nothing more is removed from such a log


def test_a_segment_that_was_tampered_with_stays_and_an_alarm_says_so(kept, audit):
    kept.write_chain().close()
    path = audit.segments[1]
    path.write_bytes(path.read_bytes().replace(b"curl/8.5.0", b"curl/9.5.0", 1))
    count = len(audit.segments)
    audit.clock.time += 10 * DAY
    found = kept.round(keep_seconds=5 * DAY)
    assert found.removed == 0
    assert any(Damage.EDITED in problem for problem in found.problems)
    assert [record.state for record in kept.records("retention")] == ["refused"]
    assert len(audit.segments) == count + 1
    kept.round(keep_seconds=5 * DAY)
    assert len(kept.records("retention")) == 1  # once a day


def test_the_time_of_a_file_removes_nothing_whose_records_are_young(kept, audit):
    kept.write_chain().close()
    for path in audit.segments:
        os.utime(path, (1, 1))
    kept.set_times = lambda: None
    assert kept.round(keep_seconds=5 * DAY).removed == 0


def test_the_size_of_the_log_is_kept(kept, audit):
    log = kept.write_chain(records=200)
    total = sum(path.stat().st_size for path in audit.segments)
    found = kept.round(keep_bytes=total // 2)
    assert found.removed > 0
    assert found.bytes < total
    assert audit.verify().is_intact
    log.close()


def test_a_consumer_is_waited_for_with_an_alarm_and_no_longer_than_the_limit(kept, audit):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    kept.needs("siem")
    count = len(audit.segments)
    bounds = {"keep_seconds": 5 * DAY, "wait_seconds": 3 * DAY}
    found = kept.round(**bounds)
    assert (found.removed, found.waiting, found.waits_for) == (0, count, ("siem",))
    [alarm] = kept.records("retention")
    assert (alarm.state, alarm.consumers, alarm.segments) == ("waiting", ("siem",), count)
    audit.clock.time += 2 * DAY
    assert kept.round(**bounds).removed == 0
    audit.clock.time += 2 * DAY
    found = kept.round(**bounds)
    assert (found.removed, found.overrun) == (count, ("siem",))
    assert kept.records("retention")[-1].consumers == ("siem",)
    assert audit.verify().is_intact


def test_no_consumer_is_passed_before_an_alarm(kept, audit):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    kept.needs("siem")
    assert kept.round(keep_seconds=5 * DAY, wait_seconds=0).removed == 0
    assert kept.round(keep_seconds=5 * DAY, wait_seconds=0).overrun == ("siem",)


def test_what_a_consumer_has_is_removed(kept, audit):
    kept.write_chain().close()
    last = [json.loads(path.read_bytes().splitlines()[-1]) for path in audit.segments]
    audit.clock.time += 10 * DAY
    kept.needs("siem", has={last[0]["chain"]: last[1]["seq"]})
    found = kept.round(keep_seconds=5 * DAY)
    assert (found.removed, found.waiting) == (2, len(last) - 2)
    kept.needs("siem", has_before="2999-01-01T00:00:00.000000Z")
    assert kept.round(keep_seconds=5 * DAY).waiting == 0


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema":2}', b'{"has":[]}', b"\0" * (2 << 20)])
def test_a_consumer_whose_file_does_not_parse_needs_everything(kept, audit, content):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    kept.needs("siem")
    (audit.folder / "needs" / "siem.json").write_bytes(content)
    assert kept.round(keep_seconds=5 * DAY).removed == 0


def test_a_round_that_was_killed_after_its_note_is_ended_by_the_next(kept, audit, monkeypatch):
    log = kept.write_chain()
    audit.clock.time += 10 * DAY
    audit.write(log, 30)
    whole = {path.name: path.read_bytes() for path in audit.segments}
    copy = audit.folder.with_name("copy")
    found = kept.round(keep_seconds=5 * DAY)
    removed = [name for name in whole if not (audit.folder / name).exists()]
    assert len(removed) == found.removed > 2
    for back in (removed, removed[1:], removed[-1:], removed[:1]):  # those that were not removed yet
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(audit.folder, copy)
        for name in back:
            (copy / name).write_bytes(whole[name])
        assert verify(copy).is_intact, back
        Keeper(
            copy, "node-1", Signer(audit.key), Bounds(keep_seconds=9e9, pack_seconds=None), audit.open
        ).run(audit.clock.time)
        assert not [name for name in removed if (copy / name).exists()]
        assert verify(copy).is_intact
    log.close()


def test_chains_of_other_nodes_are_left_alone(kept, audit):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    keeper = Keeper(
        audit.folder, "node-2", Signer(audit.key), Bounds(keep_seconds=DAY, pack_seconds=None), audit.open
    )
    assert keeper.run(audit.clock.time).removed == 0


def test_the_round_says_how_large_the_log_is_and_how_old(kept, audit):
    log = kept.write_chain()
    found = kept.round()
    assert found.bytes == sum(
        path.stat().st_size for path in audit.folder.iterdir() if path.suffix == ".jsonl"
    )
    first = json.loads(audit.lines()[0])["time"]
    assert found.oldest[:22] == first[:22]
    log.close()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
@pytest.mark.parametrize(
    "plant",
    [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")],
    ids=["a FIFO", "a folder", "a link to a device"],
)
def test_what_is_no_file_is_neither_read_nor_packed_nor_removed(kept, audit, plant, suffix):
    kept.write_chain().close()
    kept.set_times()
    kept.set_times = lambda: None
    path = audit.segments[0]
    planted = path.with_name(path.name.replace("-000001.jsonl", f"-000077{suffix}"))
    plant(planted)
    audit.clock.time += 10 * DAY
    kept.round(pack_seconds=60.0, keep_seconds=5 * DAY)
    assert os.path.lexists(planted)
    assert not audit.verify().is_intact


@pytest.mark.parametrize("name", ["keeping.json", "needs/siem.json"])
def test_a_fifo_in_place_of_a_file_of_ours_blocks_nothing(kept, audit, name):
    kept.write_chain().close()
    (audit.folder / "needs").mkdir()
    os.mkfifo(audit.folder / name)
    audit.clock.time += 10 * DAY
    found = kept.round(keep_seconds=5 * DAY)
    assert (found.removed > 0) == (name == "keeping.json")


def test_what_waits_is_not_verified_in_every_round(kept, audit, monkeypatch):
    kept.write_chain().close()
    audit.clock.time += 10 * DAY
    kept.needs("siem")
    kept.round(keep_seconds=5 * DAY)

    def walk(*_arguments, **_more):
        raise AssertionError("it is read again")

    monkeypatch.setattr("gateway.audit.walk.Walk.run", walk)
    monkeypatch.setattr("gateway.audit.keeping.keeper._last_record", walk)
    assert kept.round(keep_seconds=5 * DAY).waiting > 0


def test_many_segments_go_in_several_rounds(kept, audit, monkeypatch):
    monkeypatch.setattr("gateway.audit.keeping.keeper.MOST_IN_A_NOTE", 2)
    kept.write_chain().close()
    count = len(audit.segments)
    audit.clock.time += 10 * DAY
    removed = 0
    while (found := kept.round(keep_seconds=5 * DAY)).removed:
        assert found.removed <= 2
        removed += found.removed
        assert audit.verify().is_intact
    assert removed == count
