"""A folder is verified while processes write to it: their writes are never reported as damage."""

from __future__ import annotations

import pytest

from gateway.audit import Damage, Ending, verify
from gateway.audit.heads_evidence import HeadsEvidence
from gateway.audit.heads_file import HeadsFile
from gateway.audit.segment import Segment, SegmentError, WriteRemedy
from gateway.audit.walk import Walk


@pytest.fixture
def between(monkeypatch):
    """Run an action at a moment of a verification: before or after the first or second reading."""

    def arrange(moment, action):
        done = []

        def once():
            if not done:
                done.append(True)
                action()

        read, run = HeadsEvidence.read, Walk.run

        def reading(self, *, is_again=False):
            if moment == ("before the second reading" if is_again else "before the first reading"):
                once()
            read(self, is_again=is_again)
            if moment == ("after the second reading" if is_again else "after the first reading"):
                once()

        def running(self, segments, **more):
            if moment == "before the walk":
                once()
            run(self, segments, **more)

        monkeypatch.setattr(HeadsEvidence, "read", reading)
        monkeypatch.setattr(Walk, "run", running)

    return arrange


MOMENTS = [
    *("before the first reading", "after the first reading", "before the walk"),
    *("before the second reading", "after the second reading"),
]


def _busy(audit):
    audit.log = audit.open(segment_bytes=4000, head_records=5)
    audit.write(audit.log, 23)
    audit.other = audit.open(head_records=5)
    audit.write(audit.other, 7)
    return audit


def _write(audit):
    audit.write(audit.log, 30)


def _begin_and_end_a_chain(audit):
    audit.clock.time += 1
    log = audit.open()
    audit.write(log, 12)
    log.close()


def _begin_a_chain_that_others_name(audit):
    audit.clock.time += 1
    audit.third = audit.open()
    audit.clock.time += 11
    audit.write(audit.log, 3)
    audit.write(audit.other, 3)


def _close(audit):
    audit.write(audit.log, 8)
    audit.log.close()


def _kill_and_recover(audit):
    audit.write(audit.log, 3)
    audit.kill(audit.log)
    audit.clock.time += 1
    audit.open().close()


ACTIONS = [_write, _begin_and_end_a_chain, _begin_a_chain_that_others_name, _close, _kill_and_recover]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_happens_meanwhile_is_no_damage(audit, between, moment, action):
    _busy(audit)
    between(moment, lambda: action(audit))
    report = audit.verify()
    assert report.is_intact, report
    assert verify(audit.folder).is_intact


@pytest.mark.parametrize("moment", MOMENTS[1:4])
def test_what_is_put_behind_a_chain_that_ended_meanwhile_is_named(audit, between, moment):
    _busy(audit)
    path = next(path for path in audit.segments if path.stat().st_size < 4000)
    killed = audit.log if audit.log._writer._links.chain in path.name else audit.other

    def forge_and_recover():
        audit.write(killed, 1)
        audit.kill(killed)
        audit.clock.time += 1
        audit.open().close()
        audit.forge(max(audit.folder.glob(f"{path.name[:-12]}*")))

    between(moment, forge_and_recover)
    report = audit.verify()
    chain = next(one for one in report.chains if one.chain == path.name[:-13])
    assert chain.ending is Ending.RECOVERED
    if moment != "before the second reading":  # the walk saw it; if later, the next verification does
        assert chain.fault.damage is Damage.AFTER_RECOVERED
    assert not audit.verify().is_intact


def test_no_head_names_a_chain_before_it_has_one_of_its_own(audit, monkeypatch):
    """A process that is killed between creating its chain's file and its first head must not be missed."""
    other = audit.open()

    def killed(self):
        audit.clock.time += 11
        audit.write(other, 1)  # signs a head, which names the chains that live
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            audit.open()
    other.close()
    report = audit.verify()
    assert report.missing_chains == ()
    assert report.is_intact


def test_a_chain_whose_first_head_cannot_be_listed_is_not_left_behind(audit, monkeypatch):
    other = audit.open()

    def fail(*_args, **_options):
        audit.clock.time += 11
        other._writer._write(other._writer._seal_head(audit.clock.now(), "live"))  # names all that live
        raise SegmentError("no space left", WriteRemedy.RETRY)

    with monkeypatch.context() as patch:
        patch.setattr(HeadsFile, "append", fail)
        with pytest.raises(SegmentError):
            audit.open()
    other.close()
    report = audit.verify()
    assert (report.is_intact, len(report.chains)) == (True, 1)
