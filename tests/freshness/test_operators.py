"""Concurrent commands of many operators: none takes another's change for a server that went back in time."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from gateway.directory.edits import tenants
from gateway.model.names import parse_tenant_id

OPERATORS, COMMANDS = 4, 25


@pytest.fixture(scope="module")
def fleet(build_fleet):
    return build_fleet(workers=2)


def test_commands_that_run_at_the_same_time_are_all_carried_out(fleet):
    faults, barriers = [], []

    def operate(number):
        try:
            for command in range(COMMANDS):
                tenant = parse_tenant_id(f"tenant-{number}-{command}")
                create = partial(tenants.create_tenant, tenant_id=tenant, name=tenant, now=0.0)
                barriers.append(fleet.change(create).barrier)
        except Exception as error:  # noqa: BLE001 -- whatever it was, it is shown below
            faults.append(error)

    threads = [threading.Thread(target=operate, args=(number,)) for number in range(OPERATORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(barriers) == OPERATORS * COMMANDS
    # A command that asked Redis while all cores were busy may say that it is not sure; that is correct.
    assert sum(one.is_sure for one in barriers) >= 0.9 * len(barriers)
