"""A segment that another process wrote to is detected before the next record, whatever kind that is.

"Before" matters: none of our bytes may be written after foreign bytes.
"""

from __future__ import annotations

import json

import pytest

from gateway.audit import Damage, Ending
from gateway.model.errors import Unavailable
from gateway.model.verdicts import Change

CHANGE = Change(actor="cli:root", action="keys.create", received_at=1.0)


def _reject(audit, log, _held):
    log.reject(audit.denial())


def _reject_a_stranger(audit, log, _held):
    log.reject(audit.nobody())


def _admit(audit, log, _held):
    admission = audit.admission()
    admission.release()
    log.admit(admission)


def _admit_several(audit, log, _held):
    log.record_all([audit.held_admission(), audit.held_admission()])


def _change(_room, log, _held):
    log.change(CHANGE)


def _end_a_change(_room, _log, held):
    held["change"].close(generation=1, result="done")


def _end_a_transfer(audit, _log, held):
    held["transfer"].close(audit.outcome())


def _write_what_was_left(audit, log, held):
    held["left"].close(audit.outcome())
    log.flush()


def _sign_a_head(audit, log, _held):
    audit.clock.time += 11
    log.tick(audit.clock.now())


def _tick(audit, log, _held):
    log.tick(audit.clock.now())


def _check(_room, log, _held):
    log.check()


def _close(_room, log, _held):
    log.close()


WRITES = [
    *(_reject, _reject_a_stranger, _admit, _admit_several, _change, _end_a_change, _end_a_transfer),
    *(_write_what_was_left, _sign_a_head, _tick, _check, _close),
]


def _a_byte(_room, path):
    with path.open("ab") as file:
        file.write(b"x")


def _a_line_end(_room, path):
    with path.open("ab") as file:
        file.write(b"\n")


def _a_record(audit, path):
    audit.forge(path)


def _its_own_last_line(_room, path):
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[-1])


FOREIGN = [_a_byte, _a_line_end, _a_record, _its_own_last_line]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_behind_what_somebody_else_wrote(audit, write, foreign):
    told = []
    log = audit.open(on_left=lambda: told.append("left"))
    transferred = audit.admission()
    held = {
        "change": log.change(CHANGE),
        "transfer": log.admit(transferred),
        "left": log.admit(audit.held_admission()),
    }
    [path] = audit.segments
    foreign(audit, path)
    spoilt = path.read_bytes()
    with pytest.raises(Unavailable):
        write(audit, log, held)
    assert path.read_bytes() == spoilt
    if write is _close:
        return
    audit.clock.time += 2
    log.reject(audit.denial())
    assert path.read_bytes() == spoilt  # nor later: another chain has begun
    log.close()
    chains = {chain.chain: chain for chain in audit.verify().chains}
    lost = chains[path.name.rpartition("-")[0]]
    assert lost.ending is Ending.ABANDONED
    [given_up] = [head for head in audit.listed() if head["state"] == "abandoned"]
    assert given_up["seq"] == 6  # opening, head, change, two allows: the records of the writer itself
    if foreign is _a_record:
        assert (lost.fault.damage, lost.fault.seq) == (Damage.AFTER_ABANDONED, 6)
    elif foreign is not _a_byte:  # a byte is an incomplete line, not a record
        assert lost.fault is not None
    assert lost.proven_seq == 5


def test_an_honest_chain_beside_it_is_disturbed_by_nothing(audit):
    first, second = audit.open(), audit.open()
    audit.write(second, 1)
    spoilt = next(
        path for path in audit.segments if path.stat().st_size < max(p.stat().st_size for p in audit.segments)
    )
    audit.forge(spoilt)
    audit.write(second, 2)
    with pytest.raises(Unavailable):
        audit.write(first, 1)
    assert second.is_healthy()


def test_what_was_refused_is_in_no_file(audit):
    log = audit.open()
    [path] = audit.segments
    audit.forge(path)
    with pytest.raises(Unavailable):
        log.reject(audit.denial())
    audit.clock.time += 2
    log.close()
    assert [json.loads(line)["kind"] for line in audit.lines()].count("decision") == 0
