"""The clock of the servers is set, forth and back, while changes are made: nobody goes by it.

Each server runs under `libfaketime`, which takes what its clock shows from a file. Only the time of day is
moved, as an administrator or NTP would: no clock that cannot be set.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = (1, 0, 60, 0, -1, 0, -60, 0)  # seconds away from the true time, one after the other


@pytest.fixture
def clocks(tmp_path):
    """A file for each server, and the environment that has the server go by it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is not installed: apt-get install libfaketime"
    files = [tmp_path / f"clock{number}" for number in range(3)]
    for file in files:
        set_clock(file, 0)
    environments = [
        {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        for file in files
    ]
    return files, environments


def set_clock(file, seconds):
    """As a whole: a server reads it at any moment."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.replace(file)


def test_a_step_of_the_clock_makes_nothing_sure_that_is_not(clocks, new_group, new_trial, rounds):
    files, environments = clocks
    group = new_group(environments=environments)
    trial = new_trial(group.url)
    before = abs(clock_of(group.members[0]) - clock_of(group.members[1]))
    assert before < 1
    for number in range(max(rounds, len(STEPS))):
        trial.calm(1)
        seconds = STEPS[number % len(STEPS)]
        # The primary's alone, then everybody's.
        moved = [files[group.members.index(group.named())]] if number // len(STEPS) % 2 == 0 else files
        with trial.changing() as progress:
            for file in moved:
                set_clock(file, seconds)
            progress.await_changes()
        if moved is not files and seconds:
            primary, other = group.named(), group.replicas()[0]
            assert abs(clock_of(primary) - clock_of(other) - seconds) < 0.9
        trial.recover(group)
    trial.calm()
    trial.finish()


def clock_of(member):
    with member.client() as client:
        seconds, microseconds = client.time()
    return seconds + microseconds / 1e6
