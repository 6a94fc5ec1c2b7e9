"""A policy folder that others could have written is not applied; commands that only read warn."""

from __future__ import annotations

import shutil

import pytest

from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.model.errors import Misconfigured
from gateway.operations import policy_folder
from gateway.operations.policy_folder import check_folder, load_folder


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(CHECKOUT_POLICIES, tmp_path / "policies")
    (tmp_path / "policies/tenants/a.toml").write_text('[tenant]\nid = "a"\n')
    return tmp_path / "policies"


NAMES = [".", "schema.cedarschema", "grants.cedar", "tenants", "tenants/a.toml", "tests", "tests/grants.toml"]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_of_it_others_may_write_stops_it(folder, name):
    assert load_folder(folder).documents
    (folder / name).chmod(0o777)
    with pytest.raises(Misconfigured, match="CACHEGATE_POLICIES"):
        load_folder(folder)
    assert not check_folder(folder).has_passed


@pytest.mark.parametrize("name", NAMES)
def test_told_to_go_on_it_is_checked_all_the_same(folder, name):
    (folder / name).chmod(0o777)
    told = []
    assert check_folder(folder, on_distrust=told.append).has_passed
    assert {one.culprit for one in told} == {str((folder / name).absolute())}


@pytest.mark.parametrize("is_program_open", [True, False])
def test_the_shipped_rules_are_as_trusted_as_the_program_beside_them(folder, monkeypatch, is_program_open):
    """In a checkout with a umask of 002, or one of another user's, both have the same owner and mode."""
    program = folder.parent / "gateway"
    program.mkdir()
    monkeypatch.setattr(policy_folder, "CHECKOUT_POLICIES", folder)
    monkeypatch.setattr(policy_folder, "_PROGRAM", program)
    folder.chmod(0o777)
    program.chmod(0o777 if is_program_open else 0o755)
    assert check_folder(folder).has_passed is is_program_open


def test_rules_of_ones_own_are_judged_whoever_may_write_the_program(folder, monkeypatch):
    monkeypatch.setattr(policy_folder, "_PROGRAM", folder.parent)
    folder.parent.chmod(0o777)
    assert not check_folder(folder).has_passed
