"""`cachegate cache resolutions`: whose entries there are, which outlive their keys, and the purge."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from datetime import UTC, datetime

import pytest

from gateway.assembly.credential_marks import note_mark
from gateway.engine.credential_hash import credential_hash
from gateway.operations.cache.resolutions import SHOWN_NAME_CHARACTERS
from gateway.operations.session import open_session

HOUR = 3600


class Volume:
    """An engine's home of a test's own, with entries as the engine writes them."""

    def __init__(self, path):
        self.path = path
        self.folder = path / "auto-resolution-cache"
        self.folder.mkdir()

    def put(self, key, model="acme/cars/1", age=0.0):
        created = datetime.fromtimestamp(time.time() - age, UTC).astimezone().replace(tzinfo=None)  # noqa: TID251
        document = {
            "model_id": model,
            "cache_model_id": model,
            "canonical_model_id": model,
            "credential_hash": credential_hash(key),
            "model_package_id": "pkgA1",
            "resolved_files": ["/x"],
            "task_type": "classification",
            "model_architecture": "resnet",
            "backend_type": "onnx",
            "created_at": created.isoformat(),
        }
        name = hashlib.sha256(uuid.uuid4().bytes).hexdigest() + ".json"
        (self.folder / name).write_text(json.dumps(document))
        return name

    def names(self):
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path)


@pytest.fixture(scope="session")
def marked(installed):
    """The demo's keys, marked as a worker does when it first sees them."""

    async def work():
        async with open_session(installed.settings) as session:
            for key in installed.world.keys.values():
                await note_mark(session.store, session.peppers, key.key_id, key.token)

    asyncio.run(work())
    return {name: key.token for name, key in installed.world.keys.items()}


@pytest.fixture
def listed(command_json, volume):
    """The entries as JSON, by the first characters of their names."""

    def call(*arguments):
        status, document = command_json("cache", "resolutions", "--volume", str(volume.path), *arguments)
        assert status == 0
        return {one["entry"]: one for one in document["entries"]}

    return call


def shown(name):
    return name[:SHOWN_NAME_CHARACTERS]


def test_an_entry_is_shown_as_its_keys(installed, marked, volume, listed):
    name = volume.put(marked["acme"])
    entry = listed()[shown(name)]
    assert (entry["tenant"], entry["key_id"]) == ("acme", installed.key_id("acme"))
    assert (entry["key_state"], entry["honoured"], entry["outlives_its_key"]) == ("live", True, False)
    assert (entry["model"], entry["package"]) == ("acme/cars/1", "pkgA1")
    assert 0 <= entry["age_seconds"] < 60


@pytest.mark.parametrize(("name", "state"), [("acme-revoked", "revoked"), ("acme-expired", "expired")])
def test_an_entry_that_outlives_its_key_stands_out_first(marked, volume, listed, command, name, state):
    volume.put(marked["acme"])
    left = volume.put(marked[name], age=HOUR)
    entry = next(iter(listed().values()))
    assert entry["entry"] == shown(left)
    assert (entry["key_state"], entry["outlives_its_key"]) == (state, True)
    _, table, said = command("cache", "resolutions", "--volume", str(volume.path))
    [row] = [line for line in table.splitlines() if line.startswith(shown(left))]
    assert "STILL LOAD BY IT" in row
    assert "1 would still be honoured" in said


def test_an_entry_of_a_suspended_tenant_outlives_its_key(command, command_json, volume, listed):
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    command("tenants", "create", tenant)
    _, made = command_json("keys", "create", "--tenant", tenant)
    name = volume.put(made["token"])
    assert not listed()[shown(name)]["outlives_its_key"]
    command("tenants", "suspend", tenant)
    assert (listed()[shown(name)]["key_state"], listed()[shown(name)]["outlives_its_key"]) == (
        "suspended",
        True,
    )


@pytest.mark.parametrize(
    ("age", "minutes", "is_honoured"), [(25, None, False), (23, None, True), (1, 0, False), (1, 61, True)]
)
def test_how_long_engines_honour_an_entry_is_what_they_are_set_to(
    marked, volume, listed, age, minutes, is_honoured
):
    name = volume.put(marked["acme-revoked"], age=age * HOUR)
    arguments = () if minutes is None else ("--client-minutes", str(minutes))
    entry = listed(*arguments)[shown(name)]
    assert entry["honoured"] is entry["outlives_its_key"] is is_honoured


@pytest.mark.parametrize(("key", "state"), [(None, "no-key"), ("", "no-key"), ("never-seen-here", "unknown")])
def test_an_entry_of_nobody_is_shown_as_nobodys(marked, volume, listed, key, state):
    entry = listed_one(listed, volume.put(key))
    assert (entry["key_state"], entry["tenant"], entry["outlives_its_key"]) == (state, None, False)


def listed_one(listed, name):
    return listed()[shown(name)]


def test_keys_made_adopted_or_rotated_here_are_known_before_they_are_used(
    command, command_json, volume, listed, monkeypatch
):
    _, made = command_json("keys", "create", "--tenant", "initech")
    _, rotated = command_json("keys", "rotate", made["key_id"])
    opaque = uuid.uuid4().hex
    monkeypatch.setattr("sys.stdin", iter_lines(opaque))
    _, adopted = command_json("keys", "import", "--tenant", "initech", "--stdin")
    expected = {made["token"]: made, rotated["token"]: rotated, opaque: adopted}
    names = {volume.put(key): document["key_id"] for key, document in expected.items()}
    found = listed("--tenant", "initech")
    assert {name: found[shown(name)]["key_id"] for name in names} == names


def iter_lines(text):
    import io  # noqa: PLC0415

    return io.StringIO(text + "\n")


def test_of_one_tenant_only_its_own_entries_are_shown(marked, volume, listed):
    own, other = volume.put(marked["acme"]), volume.put(marked["globex"])
    volume.put(None)
    assert set(listed("--tenant", "acme")) == {shown(own)}
    assert set(listed("--tenant", "globex")) == {shown(other)}


def test_an_entry_that_does_not_parse_is_shown_with_its_fault(volume, listed, command):
    name = "0" * 64 + ".json"
    (volume.folder / name).write_text("[]")
    assert listed_one(listed, name)["fault"]
    assert "unreadable" in command("cache", "resolutions", "--volume", str(volume.path))[1]


def test_no_whole_name_and_no_hash_of_a_key_is_printed(marked, volume, command):
    name = volume.put(marked["acme"])
    for arguments in ((), ("--json",)):
        _, out, said = command("cache", "resolutions", "--volume", str(volume.path), *arguments)
        assert name not in out + said
        assert credential_hash(marked["acme"]) not in out + said


def test_without_a_volume_the_cache_root_is_looked_at(installed, command_json):
    _, document = command_json("cache", "resolutions")
    assert document["root"] == str(installed.settings.cache_root)
    assert document["entries"]


def test_an_empty_volume_has_no_entry(volume, command, listed):
    assert listed() == {}
    assert "No entry" in command("cache", "resolutions", "--volume", str(volume.path))[2]


# The purge


def purge(command, volume, *arguments):
    return command("cache", "resolutions", "--purge", *arguments, "--volume", str(volume.path))


def test_a_purge_wants_to_be_told_whose_where_and_yes(marked, volume, command):
    name = volume.put(marked["acme"])
    assert purge(command, volume, "--tenant", "acme")[0] == 2
    assert purge(command, volume, "--yes")[0] == 2
    assert command("cache", "resolutions", "--purge", "--tenant", "acme", "--yes")[0] == 2
    assert purge(command, volume, "--tenant", "nobody", "--yes")[0] == 1
    assert volume.names() == {name}


def test_a_purge_takes_one_tenants_entries_and_no_others(marked, volume, command):
    volume.put(marked["acme"])
    volume.put(marked["acme-revoked"], age=30 * HOUR)
    kept = {volume.put(marked["globex"]), volume.put(None), volume.put("never-seen-here")}
    status, out, _ = purge(command, volume, "--tenant", "acme", "--yes", "--json")
    assert (status, json.loads(out)["removed"]) == (0, 2)
    assert volume.names() == kept


def test_a_purge_is_on_record_before_and_after(installed, marked, volume, command):
    volume.put(marked["acme"])
    purge(command, volume, "--tenant", "acme", "--yes")
    lines = b"\n".join(path.read_bytes() for path in installed.settings.audit_folder.glob("*.jsonl"))
    records = [json.loads(line) for line in lines.split(b"\n") if line]
    [change] = [one for one in records if f"volume {volume.path}" in one.get("subject", ())]
    assert (change["action"], change["tenant"]) == ("cache.purge-resolutions", "acme")
    [outcome] = [one for one in records if one.get("change_id") == change["id"]]
    assert outcome["result"] == "removed 1, failed 0"


def test_a_purge_of_what_is_no_engines_home_removes_nothing(tmp_path, command):
    other = tmp_path / "other"
    other.mkdir()
    status, _, said = command(
        "cache", "resolutions", "--purge", "--tenant", "acme", "--volume", str(other), "--yes"
    )
    assert status == 1
    assert "INFERENCE_HOME" in said
