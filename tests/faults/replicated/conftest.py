"""Groups of servers that replicate each other, and trials over them: the fixtures."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from tests.conftest import Installation
from tests.faults.replicated.machines import Machine, Network
from tests.faults.replicated.servers import Group
from tests.faults.replicated.trial import Trial

ROUNDS = "CACHEGATE_TEST_ROUNDS"
DEFAULT_ROUNDS = 5


@pytest.fixture(scope="session")
def rounds():
    """How often each fault happens: `CACHEGATE_TEST_ROUNDS=20 make test-all` takes half an hour more."""
    return int(os.environ.get(ROUNDS, str(DEFAULT_ROUNDS)))  # noqa: TID251


@pytest.fixture
def closing():
    """What is closed at the end, the last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def new_group(closing, tmp_path_factory):
    """Make a group of servers, on machines or here."""

    def make(machines=(), **more):
        group = Group(tmp_path_factory.mktemp("group"), machines, **more)
        closing.callback(group.close)
        return group

    return make


@pytest.fixture
def network(closing):
    """Three machines that can be cut off."""
    made = Network(3)
    closing.callback(made.close)
    return made


@pytest.fixture
def new_trial(closing, new_installation, tmp_path_factory):
    """Start gateways and operators over some servers, and readers."""

    def without_init(name, **environment):
        return Installation(tmp_path_factory.mktemp(name), environment)

    new_installation.without_init = without_init

    def make(url, machines=None, **more):
        places = machines or [Machine()]
        trial = Trial(url, new_installation, tmp_path_factory.mktemp("seen"), machines=places, **more)
        closing.callback(trial.close)
        return trial

    return make
