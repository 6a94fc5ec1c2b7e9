from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import count

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.adapters.clock import SystemClock
from gateway.assembly.signing import create_signing_key, load_signing_key
from gateway.audit.head import fingerprint
from gateway.audit.log import AuditLog
from gateway.demo.world import SETTINGS_FILE
from gateway.model.verdicts import Change


@pytest.fixture
def copy(installed, tmp_path):
    """A copy of the audit folder, as an auditor would have it."""
    shutil.copytree(installed.settings.audit_folder, tmp_path / "audit")
    return tmp_path / "audit"


def segments(folder):
    return sorted(path for path in folder.glob("*.jsonl") if path.name != "heads.jsonl")


def test_the_log_of_the_settings_verifies(command_json):
    status, found = command_json("audit", "verify")
    assert (status, found["intact"]) == (0, True)
    assert found["checked"][0]["records"] > 0


def test_a_copy_verifies_where_there_is_no_state_folder_and_no_setting_is_right(copy, tmp_path):
    environment = {"PATH": os.defpath, "CACHEGATE_NO_SUCH_SETTING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "verify", str(copy)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Intact" in done.stderr


def test_an_edited_record_is_damage_and_is_named_with_file_and_line(command_json, copy):
    bad = segments(copy)[0]
    lines = bad.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"node":"demo"', b'"node":"dome"')
    bad.write_bytes(b"".join(lines))
    status, found = command_json("audit", "verify", str(copy))
    assert (status, found["intact"]) == (1, False)
    faults = [one["fault"] for one in found["checked"][0]["chains"] if one["fault"]]
    assert [(one["file"], one["line"], one["damage"]) for one in faults] == [(bad.name, 2, "edited")]


def test_a_missing_chain_is_damage(command_json, copy):
    segments(copy)[0].unlink()
    status, found = command_json("audit", "verify", str(copy))
    assert status == 1
    assert len(found["checked"][0]["missing_chains"]) == 1


def test_nothing_to_verify_is_not_an_intact_log(command, tmp_path):
    assert command("audit", "verify", str(tmp_path))[0] == 2
    assert command("audit", "verify", str(tmp_path / "missing"))[0] == 2


def test_a_key_from_outside_is_used_in_the_place_of_the_copys_own(command_json, copy, tmp_path):
    key = (copy / "signing.pub").rename(tmp_path / "trusted.pem")
    status, found = command_json("audit", "verify", str(copy), "--public-key", str(key))
    assert (status, found["checked"][0]["key_source"]) == (0, "given")


def test_each_folder_is_verified_by_itself(command_json, copy, tmp_path):
    shutil.copytree(copy, tmp_path / "other")
    segments(copy)[0].unlink()
    status, found = command_json("audit", "verify", str(tmp_path / "other"), str(copy))
    assert status == 1
    assert [one["intact"] for one in found["checked"]] == [True, False]


def test_tail_shows_the_latest_records_as_they_were_written(command, installed):
    status, out, _ = command("audit", "tail", "-n", "3", "--json")
    written = {
        line for path in segments(installed.settings.audit_folder) for line in path.read_text().splitlines()
    }
    assert status == 0
    assert len(out.splitlines()) == 3
    assert set(out.splitlines()) <= written


def test_search_finds_what_matches_all_that_is_given_and_nothing_else(command, installed):
    key_id = installed.key_id("acme-revoked")
    _, out, _ = command("audit", "search", "--tenant", "acme", "--key-id", key_id, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert {one["key_id"] for one in found} == {key_id}
    assert {one.get("action") for one in found} >= {"keys.create"}
    assert command("audit", "search", "--tenant", "globex", "--key-id", key_id)[1] == ""


def test_since_counts_a_duration_back_from_now(command):
    assert command("audit", "search", "--since", "1h")[1] != ""
    assert command("audit", "search", "--until", "1h")[1] == ""


@pytest.mark.parametrize(
    "option", [("--decision", "maybe"), ("--reason", "bad-mood"), ("--since", "yesterday")]
)
def test_a_search_that_can_find_nothing_by_mistake_is_a_usage_error(command, option):
    assert command("audit", "search", *option)[0] == 2


@pytest.fixture
def following(installed):
    """`audit tail --follow` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "audit", "tail", "-n", "1", "--follow", "--json"],
        env={"PATH": os.defpath, "CACHEGATE_CONFIG": str(installed.folder / SETTINGS_FILE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate()


def test_follow_shows_what_is_written_meanwhile_and_ends_quietly_on_ctrl_c(following, command):
    first = json.loads(following.stdout.readline())
    assert command("tenants", "create", f"tenant-{os.getpid()}")[0] == 0
    followed = json.loads(following.stdout.readline())
    assert followed["time"] > first["time"]
    following.send_signal(signal.SIGINT)
    assert following.wait(10) == 0
    assert following.stderr.read() == b""


def test_follow_ends_quietly_when_its_reader_has_had_enough(following, command):
    following.stdout.readline()
    following.stdout.close()
    numbers = count()
    while following.poll() is None:  # it notices when it has something to write
        assert command("tenants", "create", f"more-{os.getpid()}-{next(numbers)}")[0] == 0
    assert following.returncode == 0
    assert following.stderr.read() == b""
    following.stdout = None


def test_the_own_folder_is_checked_with_the_installations_key_whatever_its_signing_pub_says(
    command, command_json, installed
):
    published = installed.settings.audit_folder / "signing.pub"
    was = published.read_bytes()
    create_signing_key(installed.folder / "foreign.pem")
    foreign = load_signing_key(installed.folder / "foreign.pem").public_key()
    try:
        published.write_bytes(was + foreign.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        status, found = command_json("audit", "verify")
        (checked,) = found["checked"]
        assert (status, checked["key_source"]) == (0, str(installed.settings.signing_key_file))
        assert checked["foreign_signers"] == [fingerprint(foreign)]
        assert len(checked["signers"]) == 1
        assert fingerprint(foreign) in command("audit", "verify")[2]
        assert command_json("audit", "verify", str(installed.settings.audit_folder))[1]["checked"] == [
            checked
        ]
    finally:
        published.write_bytes(was)
        (installed.folder / "foreign.pem").unlink()


def test_an_audit_path_that_is_no_folder_is_a_matter_of_settings(command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CACHEGATE_AUDIT_DIR", str(tmp_path / "file"))
    assert command("audit", "tail")[0] == 2
    assert command("tenants", "create", "nobody")[0] == 2


def test_what_is_missing_is_named_with_its_time(command, copy):
    gone = segments(copy)[0]
    gone.unlink()
    assert "begun 2" in command("audit", "verify", str(copy))[2]


@pytest.fixture
def unproven(installed, tmp_path):
    """A copy with a record after the last head of a chain that its process abandoned."""
    copy = tmp_path / "left"
    key = load_signing_key(installed.settings.signing_key_file)
    log = AuditLog(folder=copy, node="node-b", signing_key=key, clock=SystemClock())
    change = Change(actor="cli:root", action="keys.create", tenant="acme", received_at=1.0)
    receipt = log.change(change)
    log._writer._segment.close()
    os.close(log._writer._live._descriptor)
    return copy, receipt.record_id


def test_verify_counts_what_is_not_proven_and_says_so(command, command_json, unproven):
    copy, _ = unproven
    status, found = command_json("audit", "verify", str(copy))
    [checked] = found["checked"]
    assert (status, found["intact"], checked["verdict"]) == (0, True, "not-all-proven")
    assert (checked["records"], checked["proven"], checked["unproven"]) == (3, 2, 1)
    assert [(one["ending"], one["unproven"]) for one in checked["chains"]] == [("open", 1)]
    status, _, said = command("audit", "verify", str(copy))
    assert status == 0
    assert "3 records in 1 chain, 2 proven, 1 not" in said


def test_search_and_tail_mark_what_is_not_proven(command, unproven, monkeypatch):
    copy, record_id = unproven
    _, out, _ = command("audit", "search", str(copy))
    lines = out.splitlines()
    assert [line.endswith("(not proven)") for line in lines] == [False, False, True]
    assert record_id in lines[2]
    _, out, _ = command("audit", "search", str(copy), "--json")
    assert [json.loads(line).get("proven") for line in out.splitlines()] == [None, None, False]
    monkeypatch.setenv("CACHEGATE_AUDIT_DIR", str(copy))
    assert command("audit", "tail", "-n", "1")[1].rstrip().endswith("(not proven)")
    assert json.loads(command("audit", "tail", "-n", "1", "--json")[1])["proven"] is False


def test_the_hash_of_a_marked_record_can_still_be_computed(command, unproven):
    copy, _ = unproven
    line = command("audit", "search", str(copy), "--json")[1].splitlines()[-1]
    assert line.endswith(',"proven":false}')
    whole = line.removesuffix(',"proven":false}') + "}"
    assert hashlib.sha256(whole[:-75].encode() + b"}").hexdigest() == json.loads(line)["hash"]


def test_everything_is_marked_where_there_is_no_key_and_that_is_said(command, unproven):
    copy, _ = unproven
    (copy / "signing.pub").unlink()
    _, out, said = command("audit", "search", str(copy))
    assert all(line.endswith("(not proven)") for line in out.splitlines())
    assert "no public key" in said


def test_a_key_from_outside_decides_which_heads_count(command, unproven, installed, tmp_path):
    copy, _ = unproven
    create_signing_key(tmp_path / "other.pem")
    foreign = load_signing_key(tmp_path / "other.pem").public_key()
    pem = tmp_path / "other.pub"
    pem.write_bytes(foreign.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    out = command("audit", "search", str(copy), "--public-key", str(pem))[1]
    assert all(line.endswith("(not proven)") for line in out.splitlines())


def test_search_looks_in_several_folders_and_says_which_nodes_it_searched(command, unproven, copy):
    left, record_id = unproven
    _, out, said = command("audit", "search", str(copy), str(left), "--json")
    nodes = {json.loads(line)["node"] for line in out.splitlines()}
    assert nodes == {"demo", "node-b"}
    assert "of 2 nodes (demo, node-b)" in said
    _, out, said = command("audit", "search", "--record", record_id, str(left))
    assert record_id in out
    assert "1 chain of the node node-b" in said
    assert "Other nodes" in said
    segment = segments(left)[0]
    assert record_id in command("audit", "search", "--record", record_id, str(segment), str(copy))[1]


def test_a_search_that_finds_nothing_says_so_and_is_no_failure(command, copy):
    status, out, said = command("audit", "search", "--model", "nobody/*", str(copy))
    assert (status, out) == (0, "")
    assert "No record matches" in said
    assert "No record matches" not in command("audit", "search", str(copy))[2]


# Names that nothing has


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [("--tenant", "initehc", "initech"), ("--key-id", "one letter less", "a key")],
)
def test_a_name_that_nothing_has_is_an_error_with_the_nearest(command, installed, option, name, nearest):
    if option == "--key-id":
        nearest = installed.key_id("initech")
        name = nearest[:-1] + ("0" if nearest[-1] != "0" else "1")
    status, out, said = command("audit", "search", option, name)
    assert (status, out) == (1, "")
    assert f"there is no {'tenant' if option == '--tenant' else 'key'} {name}" in said
    assert f"the nearest is {nearest}" in said


def test_a_tenant_that_the_directory_knows_or_that_has_records_is_no_mistake(command, installed):
    assert command("tenants", "create", "quiet-one")[0] == 0
    for arguments in (
        ("--tenant", "quiet-one", "--decision", "allow"),
        ("--tenant", "initech", "--until", "99d"),
    ):
        status, out, said = command("audit", "search", *arguments)
        assert (status, out) == (0, "")
        assert "No record matches" in said
        assert "nearest" not in said


def test_on_a_copy_nobody_can_say_that_a_name_is_wrong_and_the_nearest_is_told(command, copy, tmp_path):
    environment = {"PATH": os.defpath}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "search", "--tenant", "initehc", str(copy)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    said = " ".join(done.stderr.split())
    assert "No record here names the tenant initehc; the nearest that one names is initech." in said
    # The directory of this installation says nothing about a copy, which may be another's.
    assert command("audit", "search", "--tenant", "initehc", str(copy))[0] == 0


def test_without_a_directory_a_search_works_and_tells_the_nearest_name(command, monkeypatch):
    monkeypatch.setenv("CACHEGATE_REDIS_URL", "redis://127.0.0.1:1")
    status, _, said = command("audit", "search", "--tenant", "initehc")
    assert status == 0
    assert "the nearest that one names is initech" in " ".join(said.split())
    assert command("audit", "search", "--tenant", "initech")[1]


def test_a_model_that_no_record_has_may_be_on_disk_and_that_is_no_error(command):
    status, _, said = command("audit", "search", "--model", "acme/never-asked-for/1")
    assert status == 0
    assert "No record here names the model acme/never-asked-for/1" in " ".join(said.split())


def test_a_record_id_that_is_none_is_a_mistake_and_not_a_search_without_a_match(command):
    assert command("audit", "search", "--record", "nonsense")[0] == 2


def test_a_search_where_nothing_is_says_that_it_holds_no_chain(command, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, said = command("audit", "search", str(tmp_path / "empty"))
    assert status == 0
    assert "no chain" in said
    assert command("audit", "search", str(tmp_path / "nowhere"))[0] == 2


def test_lines_have_the_records_id_and_the_clients_address(command, installed):
    _, out, _ = command("audit", "search", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    lines = command("audit", "search")[1].splitlines()
    assert [line.split()[1] for line in lines] == [record["id"] for record in records]
    for line, record in zip(lines, records, strict=True):
        if record["kind"] == "decision":
            assert f"from {record['request']['client']}" in line


def test_explain_finds_a_record_in_several_folders_and_says_whether_it_is_proven(
    command, command_json, unproven, copy
):
    left, record_id = unproven
    status, found = command_json("explain", "--record", record_id, str(copy), str(left))
    assert (status, found["record"]["proven"], found["record"]["node"]) == (0, False, "node-b")
    _, out, said = command("explain", "--record", record_id, str(copy), str(left))
    assert "no signed head stands behind it" in out
    assert "of 2 nodes" in said
    status, _, said = command("explain", "--record", record_id, str(copy))
    assert status == 1
    assert "of the node demo" in said
    assert command("explain", "--key-id", "key_0123456789ab", "--model", "a/b", str(copy))[0] == 2
