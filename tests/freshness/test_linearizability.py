"""I6 as a law: once a change has returned, no later request is answered from the facts before it.

Readers in processes of their own request a few resources all the time, over kept connections, while facts
are changed back and forth. Every answer is judged by the time line of its resource; allows and denials alike.
"""

from __future__ import annotations

import pytest

KINDS = {"grant", "tenant", "publish", "policy", "key"}


def change_under_load(fleet, watching, tools, *, changes, commands, **load):
    with watching(fleet, **load) as watched:

        async def work(session):
            changer = tools.Changer(session, fleet, watched.readers, watched.ledger)
            await changer.begin()
            for number in range(changes):
                await changer.step()
                if commands and number == changes // 2:
                    await changer.commands()

        fleet.installation.in_session(work)
    verdict = watched.judged()
    watched.report(verdict)
    assert all(one.is_sure for one in watched.ledger.barriers)
    assert watched.ledger.changes >= changes
    # Each kind of change was seen in both states, and what was not changed stayed as it was.
    for kind in KINDS:
        seen = {status for (one, status), count in verdict.checked.items() if one == kind and count}
        assert seen in ({tools.allowed, tools.nobody}, {tools.allowed, tools.hidden}), (kind, seen)
    assert {status for kind, status in verdict.checked if kind == "calm"} == {tools.allowed}
    # Every worker got requests: each process that records has a chain of its own.
    busy = [path for path in fleet.installation.audit.glob("*.jsonl") if path.stat().st_size > 10_000]
    assert len(busy) >= len(fleet.gateway.worker_pids())
    return verdict


def test_no_answer_follows_what_was_true_before_a_change_that_had_returned(build_fleet, watching, tools):
    verdict = change_under_load(build_fleet(), watching, tools, changes=150, commands=False)
    assert verdict.total > 500


@pytest.mark.slow
@pytest.mark.timeout(300)  # half a minute on two idle cores
def test_the_same_holds_for_two_thousand_changes_and_for_the_commands(build_fleet, watching, tools):
    # Some requests in the time of each change: readers that take all processors only make the changes slow.
    load = {"connections": 4, "pause_seconds": 0.01}
    verdict = change_under_load(build_fleet(), watching, tools, changes=2000, commands=True, **load)
    assert verdict.total > 5_000
