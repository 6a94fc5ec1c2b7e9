"""`AuditLog`: which fields of a decision, its outcome and a change are recorded, and which never are."""

from __future__ import annotations

import json
import os
import shutil
import stat
from uuid import UUID

import pytest
from msgspec.structs import replace

from gateway.audit import AuditLog, Durability
from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.questions import Answered, Evaluated, Question
from gateway.model.verdicts import Change


def _of_kind(audit, kind):
    return [record for record in map(json.loads, audit.lines()) if record["kind"] == kind]


def test_an_allow_names_the_whole_way_from_key_to_blob(audit):
    log = audit.open()
    receipt = log.admit(audit.admission())
    receipt.close(audit.outcome())
    (record,) = _of_kind(audit, "decision")
    assert record["id"] == receipt.record_id
    assert (record["decision"], record["reason"]) == ("allow", "permitted")
    assert (record["key_id"], record["tenant"], record["grant"]) == ("key_abcdefghijkl", "acme", "grant_1")
    assert record["resource"] == {
        "kind": "file",
        "requested": "acme/alias",
        "model": "acme/yolo",
        "package": "p1",
        "file": "weights.onnx",
        "md5": "d41d8cd98f00b204e9800998ecf8427e",
    }
    assert (record["policies"], record["generation"], record["size"]) == (["tenant-reads-own"], 7, 4096)
    assert record["request"] == {
        "method": "GET",
        "route": "/v1/models/{model}/-/{package}/{file}",
        "client": "192.0.2.7",
        "agent": "curl/8.5.0",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    assert record["time"] == "2026-09-21T14:13:20.250000Z"


def test_the_record_is_in_the_file_when_the_call_returns(audit):
    log = audit.open()
    record_id = log.reject(audit.denial())
    assert json.loads(audit.lines()[-1])["id"] == record_id


def test_a_refusal_says_who_asked_for_what_and_why_not(audit):
    log = audit.open()
    record_id = log.reject(audit.denial(Reason.MISSING_SCOPE))
    (record,) = _of_kind(audit, "decision")
    assert record["id"] == record_id
    assert (record["decision"], record["reason"], record["action"]) == ("deny", "missing-scope", "discover")
    assert record["resource"] == {"kind": "model", "requested": "globex/secret-model"}
    assert record["generation"] == 9


def test_the_questions_of_a_request_are_written_with_it_or_not_at_all(audit):
    log = audit.open()
    answered = Answered(question=Question(), is_yes=False, reason=Reason.NOT_PERMITTED)
    asked = replace(audit.admission(), found=Evaluated(answers=(answered,) * 3, is_batch=True))
    first = log.admit(asked)
    [second, plain] = log.record_all([asked, audit.admission()])
    questions = _of_kind(audit, "question")
    assert [one["item"] for one in questions] == [0, 1, 2, 0, 1, 2]
    assert [one["ask_id"] for one in questions] == [first.record_id] * 3 + [second.record_id] * 3
    assert len({one["id"] for one in questions}) == 6
    assert plain.record_id not in {one["ask_id"] for one in questions}
    for receipt in (first, second, plain):
        receipt.close(audit.outcome())
    log.close()
    assert audit.verify().is_intact
    before = len(list(audit.lines()))
    with pytest.raises(Unavailable):
        log.admit(asked)
    assert len(list(audit.lines())) == before


def test_record_ids_are_ascending_uuids_of_version_seven(audit):
    ids = audit.write(audit.open(), 50)
    assert all(UUID(record_id).version == 7 and len(record_id) == 36 for record_id in ids)
    assert ids == sorted(set(ids))


def test_closing_a_receipt_twice_writes_one_outcome(audit):
    log = audit.open()
    receipt = log.admit(audit.admission())
    receipt.close(audit.outcome())
    receipt.close(audit.outcome())
    (record,) = _of_kind(audit, "outcome")
    assert record["decision_id"] == receipt.record_id
    assert (record["ending"], record["status"], record["bytes"]) == ("complete", 200, 4096)
    assert (record["microseconds"], record["tenant"]) == (1235, "acme")


def test_a_change_and_what_became_of_it_are_two_records(audit):
    log = audit.open()
    change = Change(actor="cli:root", action="grants.add", tenant="acme", subject=("b/*",), received_at=1.0)
    receipt = log.change(change)
    receipt.close(generation=12, result="done")
    receipt.close(generation=13, result="done again")
    (ordered,), (made,) = _of_kind(audit, "change"), _of_kind(audit, "change-outcome")
    assert (ordered["actor"], ordered["action"], ordered["subject"]) == ("cli:root", "grants.add", ["b/*"])
    assert (made["change_id"], made["generation"], made["result"]) == (receipt.record_id, 12, "done")


def test_a_change_too_large_for_one_record_is_refused_and_the_log_stays_well(audit):
    log = audit.open()
    subject = tuple(f"acme/{'x' * 1000}{n}" for n in range(1000))
    with pytest.raises(Unavailable):
        log.change(Change(actor="cli:root", action="x", subject=subject, received_at=1.0))
    assert log.is_healthy()


def test_nothing_secret_of_a_request_reaches_the_disk(audit):
    log = audit.open()
    key = b"cg_live_0123456789abcdefghijklmn123456"
    log.admit(audit.admission(agent=b"curl/8 " + key, method="cg_live_secret")).close(audit.outcome())
    log.reject(audit.denial(agent=b"x/1 Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA", trace_id="cg_live_secret"))
    log.reject(audit.nobody(client="cg_live_secret"))
    log.close()
    written = b"".join(path.read_bytes() for path in audit.folder.rglob("*") if path.is_file())
    for secret in (b"secret-", b"-secret", b"cg_live", b"Zm9vYmFy", b"the name of a key", b"PRIVATE"):
        assert secret not in written.replace(b"globex/secret-model", b"")


def test_the_folder_and_its_files_are_for_the_owner_only(audit):
    audit.open().close()
    assert stat.S_IMODE(audit.folder.stat().st_mode) == 0o700
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in audit.folder.iterdir() if path.is_file()
    }
    assert set(modes.values()) == {0o600}
    assert {"heads.jsonl", "signing.pub"} < set(modes)


def test_two_logs_of_one_folder_never_share_a_chain(audit):
    first, second = audit.open(), audit.open()
    audit.write(first, 3)
    audit.write(second, 3)
    first.close()
    second.close()
    report = audit.verify()
    assert len(report.chains) == 2
    assert report.is_intact
    assert report.unproven == 0


def test_a_full_segment_is_followed_by_the_next(audit):
    log = audit.open(segment_bytes=4000)
    audit.write(log, 30)
    log.close()
    assert len(audit.segments) > 3
    assert all(path.stat().st_size < 4000 + 3000 for path in audit.segments)
    assert audit.verify().is_intact


def test_a_head_is_signed_every_so_many_records(audit):
    log = audit.open(head_records=10)
    audit.write(log, 25)
    assert len(_of_kind(audit, "head")) == 3  # at the start and twice later
    assert audit.verify().unproven < 10


def test_a_head_is_signed_by_time_alone(audit):
    log = audit.open(head_seconds=5.0)
    audit.write(log, 2)
    assert audit.verify().unproven == 2
    audit.clock.time += 6
    log.tick(audit.clock.now())
    assert audit.verify().unproven == 0
    audit.clock.time += 6
    log.tick(audit.clock.now())
    assert len(_of_kind(audit, "head")) == 2  # nothing new to sign


def test_a_head_names_the_live_chains_of_the_node(audit):
    first, second = audit.open(), audit.open()
    heads = [json.loads(line)["head"] for line in (audit.folder / "heads.jsonl").read_bytes().splitlines()]
    assert sorted(heads[-1]["live"]) == sorted({head["chain"] for head in heads})
    first.close()
    second.close()
    last = json.loads((audit.folder / "heads.jsonl").read_bytes().splitlines()[-1])["head"]
    assert (last["live"], last["state"]) == ([last["chain"]], "closed")
    assert list((audit.folder / "live").iterdir()) == []


def test_records_survive_a_power_cut_when_that_is_asked_for(audit, monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    log = audit.open(durability=Durability.POWER)
    before = len(synced)
    log.reject(audit.denial())
    assert len(synced) == before + 1
    log.close()
    assert audit.verify().is_intact


def test_a_closed_log_accepts_nothing(audit):
    log = audit.open()
    log.close()
    log.close()
    with pytest.raises(Unavailable) as refused:
        log.reject(audit.denial())
    assert refused.value.reason is Reason.NO_AUDIT


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_cannot_write_to_its_parents_chain(audit):
    log = audit.open()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log.reject(audit.denial())
        except Unavailable:
            log.close()  # must not disturb the parent
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    audit.write(log, 2)
    log.close()
    assert audit.verify().is_intact


@pytest.mark.parametrize("node", ["", "../x", "a/b", "-a", "a\n", "x" * 64])
def test_a_node_name_that_is_no_file_name_does_not_start(audit, node):
    with pytest.raises(Misconfigured):
        AuditLog(folder=audit.folder, node=node, signing_key=audit.key, clock=audit.clock)
    assert not audit.folder.exists()


def test_a_folder_that_others_may_write_is_not_written_to(audit):
    audit.folder.mkdir()
    for mode in (0o777, 0o1777):
        audit.folder.chmod(mode)
        with pytest.raises(Misconfigured):
            audit.open()
    assert list(audit.folder.iterdir()) == []


def test_a_folder_that_becomes_so_stops_what_follows_until_it_is_put_right(audit):
    log = audit.open(pause_seconds=0)
    log.reject(audit.denial())
    [segment] = audit.segments
    segment.unlink()
    audit.folder.chmod(0o777)
    for _ in range(2):
        with pytest.raises(Unavailable) as refused:
            log.reject(audit.denial())
        assert refused.value.reason is Reason.NO_AUDIT
    audit.folder.chmod(0o700)
    log.reject(audit.denial())
    assert len(_of_kind(audit, "decision")) == 1


def test_a_segments_name_that_somebody_took_is_got_round_by_another_chain(audit):
    log = audit.open(segment_bytes=3000)
    [first] = audit.segments
    taken = first.with_name(first.name.replace("-000001", "-000002"))
    taken.write_bytes(b"mine")
    with pytest.raises(Unavailable):
        audit.write(log, 30)
    audit.clock.time += 2
    audit.write(log, 3)
    assert taken.read_bytes() == b"mine"
    taken.unlink()
    log.close()
    assert audit.verify().is_intact
    assert len({path.name.rpartition("-")[0] for path in audit.segments}) == 2


def test_a_chain_whose_file_in_live_was_taken_away_is_named_as_live_again_with_the_next_head(audit):
    first, second = audit.open(), audit.open()
    chain = first._writer._links.chain
    (audit.folder / "live" / chain).unlink()
    audit.clock.time += 11
    audit.write(first, 1)
    audit.write(second, 1)
    assert chain in audit.listed()[-1]["live"]


def test_a_live_folder_that_was_taken_away_stops_nothing_for_long(audit):
    log = audit.open(segment_bytes=3000)
    shutil.rmtree(audit.folder / "live")
    refused = 0
    for _ in range(30):
        try:
            audit.write(log, 1)
        except Unavailable:
            refused += 1
            audit.clock.time += 2
    assert refused <= 2
    log.close()
    assert audit.verify().is_intact


def test_half_a_key_that_a_killed_process_left_spoils_no_file_of_keys(audit):
    audit.open().close()
    published = audit.folder / "signing.pub"
    whole = published.read_bytes()
    published.write_bytes(whole[:40])
    audit.open().close()
    assert audit.verify().is_intact


def test_the_lag_is_the_age_of_what_no_head_proves_and_ends_with_a_head(audit):
    log = audit.open()
    log.reject(audit.denial())
    audit.clock.time += 4.0
    assert log.gauges()["cachegate_audit_lag_seconds"] >= 4.0
    audit.clock.time += 7.0
    log.tick(audit.clock.time)  # a head is due after ten seconds
    assert log.gauges()["cachegate_audit_lag_seconds"] == 0.0


def test_a_quiet_log_has_no_lag(audit):
    log = audit.open()
    log.tick(audit.clock.time + 11.0)
    audit.clock.time += 3600.0
    assert log.gauges()["cachegate_audit_lag_seconds"] == 0.0


def test_outcomes_that_cannot_be_written_are_counted_as_waiting_and_no_others(audit):
    log = audit.open(on_left=lambda: None)
    for waiting in (0, 1):
        [receipt] = log.record_all([audit.held_admission()])
        receipt.close(audit.outcome())
        if waiting:
            shutil.rmtree(audit.folder)
        assert log.gauges()["cachegate_audit_waiting_records"] == waiting


def test_the_room_of_the_disk_is_told_and_is_left_out_where_the_folder_is_gone(audit):
    log = audit.open()
    room = {"cachegate_audit_disk_free_bytes", "cachegate_audit_disk_bytes"}
    assert room <= log.gauges().keys()
    shutil.rmtree(audit.folder)
    assert not room & log.gauges().keys()
