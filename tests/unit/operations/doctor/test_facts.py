from __future__ import annotations

import asyncio
import dataclasses
import shutil

import pytest
from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_server import ServerReport
from gateway.identity.pepper import create_pepper
from gateway.operations.doctor.facts import (
    NEEDS_SERVER,
    check_facts,
    judge_clocks,
    judge_records,
    judge_server,
)
from gateway.operations.doctor.findings import Level

REPORT = ServerReport(
    where="here",
    product="valkey",
    version="9.1",
    role="master",
    maxmemory_policy="noeviction",
    is_aof_on=True,
    is_aof_healthy=True,
    appendfsync="always",
    has_waitaof=True,
)


def run_check(settings):
    return asyncio.run(check_facts(settings, SystemClock()))


def health(settings):
    return {one.name: one.health for one in run_check(settings).findings}


def test_an_installation_as_init_leaves_it_is_in_order(installed):
    found = run_check(installed.settings)
    assert {one.name: one.health for one in found.findings} == dict.fromkeys(
        ("redis", *NEEDS_SERVER), Level.OK
    )
    assert "acme/cars/1" in found.known_models


def test_a_server_that_is_down_is_one_failure_and_every_check_that_needs_it_says_so(installed):
    settings = dataclasses.replace(installed.settings, redis_url="redis://:hunter2@127.0.0.1:1/0")
    found = run_check(settings).findings
    assert [one.name for one in found] == ["redis", *NEEDS_SERVER]
    assert [one.health for one in found] == [Level.FAIL, *[Level.WARNING] * len(NEEDS_SERVER)]
    assert not any("hunter2" in one.found + one.advice for one in found)


def test_a_folder_that_was_never_set_up_is_not_made_by_looking(installed, tmp_path):
    settings = dataclasses.replace(installed.settings, state=tmp_path / "missing")
    assert health(settings)["redis"] is Level.FAIL
    assert not settings.state.exists()


def test_a_foreign_pepper_is_a_failure_and_stops_nothing_else(installed, tmp_path):
    with EmbeddedValkey(installed.settings.state).running() as url:
        (tmp_path / "state").mkdir(mode=0o700)
        create_pepper(tmp_path / "state" / "peppers")
        found = health(dataclasses.replace(installed.settings, redis_url=url, state=tmp_path / "state"))
    assert found.pop("pepper in redis") is Level.FAIL
    assert set(found.values()) == {Level.OK}


@pytest.fixture
def folder(installed, tmp_path):
    shutil.copytree(installed.settings.policies, tmp_path / "policies")
    return tmp_path / "policies"


def test_a_policy_folder_that_differs_is_a_warning(installed, folder):
    with (folder / "keys.cedar").open("a") as file:
        file.write("// another digest\n")
    assert health(dataclasses.replace(installed.settings, policies=folder))["policy folder"] is Level.WARNING


def test_a_policy_folder_that_may_not_be_applied_is_a_failure(installed, folder):
    (folder / "keys.cedar").write_text("permit (")
    found = health(dataclasses.replace(installed.settings, policies=folder))
    assert found["policy folder"] is Level.FAIL
    assert found["policy"] is Level.OK


def test_a_server_without_our_facts_is_told_from_one_with_them(installed, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    create_pepper(tmp_path / "state" / "peppers")
    found = health(dataclasses.replace(installed.settings, state=tmp_path / "state"))
    assert (found["redis"], found["facts"], found["policy"]) == (Level.OK, Level.FAIL, Level.FAIL)
    assert found["pepper in redis"] is Level.WARNING


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Level.OK),
        ({"maxmemory_policy": "allkeys-lru"}, Level.FAIL),
        ({"role": "slave"}, Level.FAIL),
        ({"is_aof_healthy": False}, Level.FAIL),
        ({"is_aof_on": False}, Level.WARNING),
    ],
)
def test_a_server_that_could_forget_revocations_is_a_failure(more, expected):
    assert judge_server(replace(REPORT, **more)).health is expected


def test_clocks_that_are_apart_warn_and_then_fail():
    found = [judge_clocks(before=1000.0, after=1000.1, theirs=1000.0 + apart) for apart in (0.5, -5.0, 500.0)]
    assert [one.health for one in found] == [Level.OK, Level.WARNING, Level.FAIL]


def test_a_question_that_took_long_is_no_difference_of_clocks():
    assert judge_clocks(before=1000.0, after=1070.0, theirs=1065.0).health is Level.OK
    assert judge_clocks(before=1000.0, after=1070.0, theirs=1075.0).health is Level.WARNING


def test_records_that_do_not_parse_are_a_failure_and_each_is_counted_once():
    found = judge_records(9, ["a", "b", "a"])
    assert found.health is Level.FAIL
    assert found.found.startswith("2 ")
