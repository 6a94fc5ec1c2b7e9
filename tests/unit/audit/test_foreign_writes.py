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


def _reject(room, log, _held):
    log.reject(room.denial())


def _reject_a_stranger(room, log, _held):
    log.reject(room.nobody())


def _admit(room, log, _held):
    admission = room.admission()
    admission.let_go()
    log.admit(admission)


def _admit_several(room, log, _held):
    log.admit_all([room.held_admission(), room.held_admission()])


def _change(_room, log, _held):
    log.change(CHANGE)


def _end_a_change(_room, _log, held):
    held["change"].close(generation=1, result="done")


def _end_a_transfer(room, _log, held):
    held["transfer"].close(room.outcome())


def _write_what_was_left(room, log, held):
    held["left"].close(room.outcome())
    log.flush()


def _sign_a_head(room, log, _held):
    room.clock.time += 11
    log.tick(room.clock.now())


def _tick(room, log, _held):
    log.tick(room.clock.now())


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


def _a_record(room, path):
    room.forge(path)


def _its_own_last_line(_room, path):
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[-1])


FOREIGN = [_a_byte, _a_line_end, _a_record, _its_own_last_line]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_behind_what_somebody_else_wrote(room, write, foreign):
    told = []
    log = room.open(on_left=lambda: told.append("left"))
    transferred = room.admission()
    held = {
        "change": log.change(CHANGE),
        "transfer": log.admit(transferred),
        "left": log.admit(room.held_admission()),
    }
    [path] = room.segments
    foreign(room, path)
    spoilt = path.read_bytes()
    with pytest.raises(Unavailable):
        write(room, log, held)
    assert path.read_bytes() == spoilt
    if write is _close:
        return
    room.clock.time += 2
    log.reject(room.denial())
    assert path.read_bytes() == spoilt  # nor later: another chain has begun
    log.close()
    chains = {chain.chain: chain for chain in room.verify().chains}
    lost = chains[path.name.rpartition("-")[0]]
    assert lost.ending is Ending.ABANDONED
    [given_up] = [head for head in room.listed() if head["state"] == "abandoned"]
    assert given_up["seq"] == 6  # opening, head, change, two allows: the records of the writer itself
    if foreign is _a_record:
        assert (lost.fault.damage, lost.fault.seq) == (Damage.AFTER_ABANDONED, 6)
    elif foreign is not _a_byte:  # a byte is an incomplete line, not a record
        assert lost.fault is not None
    assert lost.proven_seq == 5


def test_an_honest_chain_beside_it_is_disturbed_by_nothing(room):
    first, second = room.open(), room.open()
    room.write(second, 1)
    spoilt = next(
        path for path in room.segments if path.stat().st_size < max(p.stat().st_size for p in room.segments)
    )
    room.forge(spoilt)
    room.write(second, 2)
    with pytest.raises(Unavailable):
        room.write(first, 1)
    assert second.is_healthy()


def test_what_was_refused_is_in_no_file(room):
    log = room.open()
    [path] = room.segments
    room.forge(path)
    with pytest.raises(Unavailable):
        log.reject(room.denial())
    room.clock.time += 2
    log.close()
    assert [json.loads(line)["kind"] for line in room.lines()].count("decision") == 0
