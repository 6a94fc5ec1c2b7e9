from __future__ import annotations

from gateway.audit.report import ChainReport, Damage, Ending, Fault, VerifyReport
from gateway.cli.audit.report import MANY_CHAINS, chain_state, complaints, plain_report, shown_report


def chain(name="n.1", **more):
    values = {
        "chain": name,
        "records": 5,
        "last_seq": 5,
        "proven_seq": 5,
        "unproven": 0,
        "ending": Ending.CLOSED,
        "missing_segments": (),
        "torn_tail": None,
        "fault": None,
    }
    return ChainReport(**{**values, **more})


def report(*chains, **more):
    values = {"missing_chains": (), "problems": (), "key_source": "given", "signers": ("ab",)}
    return VerifyReport(chains=chains, **{**values, **more})


def print_all(found):
    for item in shown_report("here", found):
        item.print()


FAULT = Fault(damage=Damage.EDITED, file="n-000001.jsonl", line=3, seq=3, why="\x1b[2Jits bytes differ")


def test_a_fault_is_named_with_file_line_record_and_what_is_wrong():
    [line] = complaints(report(chain(fault=FAULT)))
    assert "n-000001.jsonl, line 3 (record 3): edited" in line
    assert line.isprintable()


def test_missing_segments_chains_and_heads_are_each_named():
    found = list(
        complaints(
            report(chain(missing_segments=("n-000002.jsonl",)), missing_chains=("n.9",), problems=("heads",))
        )
    )
    assert len(found) == 3
    assert "n-000002.jsonl" in found[0]
    assert "n.9" in found[1]


def test_an_intact_report_has_no_complaint():
    assert list(complaints(report(chain()))) == []


def test_states_tell_damage_from_a_torn_tail_and_from_a_chain_that_is_still_written():
    states = [
        chain_state(one)
        for one in (chain(fault=FAULT), chain(torn_tail="x"), chain(ending=Ending.OPEN), chain())
    ]
    assert states == ["DAMAGED", "ends in half a line", "open", "closed"]


def test_of_many_chains_the_damaged_one_is_shown_and_the_dull_ones_are_counted(capsys):
    dull = [chain(f"n.{number}") for number in range(MANY_CHAINS)]
    print_all(report(*dull, chain("the-bad-one", fault=FAULT)))
    out = capsys.readouterr().out
    assert "the-bad-one" in out
    assert f"and {MANY_CHAINS} more chains" in out


def test_the_key_and_where_it_came_from_are_always_said(capsys):
    print_all(report(chain(), key_source="/copy/signing.pub"))
    assert "ab (from /copy/signing.pub)" in capsys.readouterr().err


def test_scripts_get_the_answer_for_the_whole_and_for_each_chain():
    plain = plain_report("here", report(chain(fault=FAULT), chain("n.2")))
    assert plain["intact"] is False
    assert [one["intact"] for one in plain["chains"]] == [False, True]
    assert plain["chains"][0]["fault"]["line"] == 3
