from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from gateway.audit import read_events
from gateway.cli.main import run
from gateway.demo.world import SETTINGS_FILE, demo_settings
from gateway.directory.transfer.whole import each_fact
from gateway.operations.session import open_session
from gateway.operations.setup import set_up


@pytest.fixture
def exported(installed, command_json, tmp_path):
    file = tmp_path / "facts.ndjson"
    status, said = command_json("directory", "export", str(file))
    assert status == 0
    assert said["facts"] == len(file.read_bytes().splitlines()) - 2
    return file


@pytest.fixture
def elsewhere(installed, monkeypatch, capsys):
    """Another installation, with only what `init` makes and the peppers of the first."""
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))
    settings = demo_settings(folder)
    settings.state.mkdir(mode=0o700)
    shutil.copytree(installed.settings.pepper_folder, settings.pepper_folder)
    asyncio.run(set_up(settings))

    def call(*arguments):
        monkeypatch.setenv("CACHEGATE_CONFIG", str(folder / SETTINGS_FILE))
        capsys.readouterr()
        status = run(arguments)
        return status, capsys.readouterr()

    call.settings = settings
    yield call
    shutil.rmtree(folder)


def facts_of(settings):
    async def gather():
        async with open_session(settings) as session:
            return [fact async for fact in each_fact(session.listing)]

    return asyncio.run(gather())


def test_an_import_into_a_new_server_reproduces_every_fact(installed, exported, elsewhere):
    made_by_init = facts_of(elsewhere.settings)
    status, printed = elsewhere("directory", "import", str(exported), "--json")
    assert status == 0, printed.err
    said = json.loads(printed.out)
    wanted = facts_of(installed.settings)
    assert said["new"] + said["same"] == len(wanted)
    found = facts_of(elsewhere.settings)
    assert [fact for fact in found if fact in wanted] == wanted
    assert [fact for fact in found if fact not in wanted] == [
        fact for fact in made_by_init if fact not in wanted
    ]
    again = json.loads(elsewhere("directory", "import", str(exported), "--json")[1].out)
    assert (again["new"], again["same"], again["replaced"]) == (0, len(wanted), 0)


def test_an_import_overwrites_nothing_unless_it_may_merge(exported, elsewhere):
    assert elsewhere("directory", "import", str(exported))[0] == 0
    assert elsewhere("tenants", "degraded", "acme", "60s")[0] == 0
    before = facts_of(elsewhere.settings)
    status, printed = elsewhere("directory", "import", str(exported))
    assert status == 1
    assert "tenant acme" in printed.err
    assert facts_of(elsewhere.settings) == before
    assert elsewhere("directory", "import", str(exported), "--merge")[0] == 0
    assert facts_of(elsewhere.settings) != before


def test_a_tenant_of_the_same_name_is_never_replaced_by_another_record(exported, elsewhere):
    assert elsewhere("tenants", "create", "acme")[0] == 0
    before = facts_of(elsewhere.settings)
    for options in ([], ["--merge"]):
        status, printed = elsewhere("directory", "import", str(exported), *options)
        assert status == 1
        assert "is another one than the one here" in printed.err
        assert facts_of(elsewhere.settings) == before


def test_a_damaged_file_changes_nothing(exported, elsewhere, tmp_path):
    before = facts_of(elsewhere.settings)
    lines = exported.read_bytes().splitlines(keepends=True)
    damages = {
        "short": lines[:-1],
        "line": [*lines[:3], b"{}\n", *lines[4:]],
        "policy": [line.replace(b"permit", b"permti") for line in lines],
        "digest": [line.replace(b"permit", b"forbid") for line in lines],
        "pepper": [lines[0].replace(b'"p1":"', b'"p1":"0'), *lines[1:]],
    }
    for name, damaged in damages.items():
        assert damaged != lines
        file = tmp_path / name
        file.write_bytes(b"".join(damaged))
        assert elsewhere("directory", "import", str(file))[0] == 2, name
    assert elsewhere("directory", "import", str(tmp_path / "nowhere"))[0] == 2
    assert facts_of(elsewhere.settings) == before


def test_an_export_is_for_its_owner_alone_and_replaces_no_file(exported, command):
    assert exported.stat().st_mode & 0o777 == 0o600
    before = exported.read_bytes()
    assert command("directory", "export", str(exported))[0] == 2
    assert exported.read_bytes() == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_an_export_holds_no_secret(installed, exported):
    text = exported.read_text()
    for key in installed.world.keys.values():
        assert key.token not in text
        assert key.token[-30:] not in text
    for pepper in installed.settings.pepper_folder.iterdir():
        assert pepper.read_text().strip() not in text


def changes_in(settings, action):
    records = [json.loads(event.line) for event in read_events(settings.audit_folder)]
    return [one["subject"] for one in records if one.get("action") == action]


def test_export_and_import_are_in_the_audit_log(installed, exported, elsewhere):
    elsewhere("directory", "import", str(exported))
    assert any(exported.name in subject for subject in changes_in(installed.settings, "directory.export"))
    brought = changes_in(elsewhere.settings, "directory.import")
    assert any(any(part.startswith("facts 1 to ") for part in subject) for subject in brought)


def test_an_import_that_changes_the_rules_names_them_in_its_record(exported, elsewhere, tmp_path):
    folder = tmp_path / "policies"
    shutil.copytree(elsewhere.settings.policies, folder, ignore=shutil.ignore_patterns("tests"))
    (folder / "hold.cedar").write_text('@id("hold") forbid (principal, action, resource is Package);\n')
    assert elsewhere("policy", "apply", str(folder), "--yes")[0] == 0
    assert elsewhere("directory", "import", str(exported), "--merge")[0] == 0
    records = [json.loads(event.line) for event in read_events(elsewhere.settings.audit_folder)]
    subjects = [one["subject"] for one in records if one.get("action") == "directory.import"]
    assert any("- rule hold: was forbid, hold.cedar:1" in subject for subject in subjects)


def test_a_file_that_others_could_have_written_is_not_brought_in(exported, elsewhere):
    before = facts_of(elsewhere.settings)
    exported.chmod(0o666)
    status, printed = elsewhere("directory", "import", str(exported))
    assert status == 2
    assert f"chmod go-w {exported}" in " ".join(printed.err.split())
    assert facts_of(elsewhere.settings) == before
