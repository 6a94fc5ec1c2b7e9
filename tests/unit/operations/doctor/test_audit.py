from __future__ import annotations

import dataclasses
import shutil

import pytest

from gateway.audit.folder import chain_started, group_segments
from gateway.operations.audit_indexing import extend
from gateway.operations.doctor import audit as doctor_audit
from gateway.operations.doctor.audit import FULL_BYTES, LOW_BYTES, check_audit, judge_space
from gateway.operations.doctor.findings import Level


@pytest.fixture
def settings(installed, tmp_path):
    shutil.copytree(installed.settings.audit_folder, tmp_path / "audit")
    return dataclasses.replace(installed.settings, audit_dir=tmp_path / "audit")


def health(settings):
    return {one.name: one.health for one in check_audit(settings)}


def test_a_log_as_it_was_written_is_in_order(settings):
    rows = ("audit folder", "audit space", "audit log", "audit chain", "audit consumers", "audit index")
    assert health(settings) == dict.fromkeys(rows, Level.OK)


def test_an_index_that_is_far_behind_is_something_to_know(settings, monkeypatch):
    monkeypatch.setattr(doctor_audit, "FULL_BYTES", 0)
    assert health(settings)["audit index"] is Level.WARNING
    assert extend(settings.audit_folder, settings.node)
    assert health(settings)["audit index"] is Level.OK


def test_damage_of_the_last_chain_is_a_failure(settings):
    chains = group_segments(settings.audit_folder.iterdir())
    [(_, path)] = chains[max(chains, key=chain_started)]
    path.write_bytes(path.read_bytes().replace(b'"node":"demo"', b'"node":"dome"', 1))
    assert health(settings)["audit chain"] is Level.FAIL


def test_an_empty_folder_is_something_to_know_and_no_failure(settings):
    shutil.rmtree(settings.audit_folder)
    assert set(health(settings).values()) == {Level.WARNING}
    settings.audit_folder.mkdir()
    assert health(settings)["audit chain"] is Level.WARNING


def test_a_disk_that_is_nearly_full_warns_and_a_full_one_fails():
    states = [judge_space(free).health for free in (FULL_BYTES - 1, LOW_BYTES - 1, LOW_BYTES)]
    assert states == [Level.FAIL, Level.WARNING, Level.OK]
