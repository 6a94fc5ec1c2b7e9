from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.assembly.signing import create_signing_key, load_signing_key
from gateway.audit.head import fingerprint
from gateway.cli.demo_world import SETTINGS_FILE


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
    for number in range(3):
        assert command("tenants", "create", f"more-{os.getpid()}-{number}")[0] == 0
        time.sleep(0.3)
    assert following.wait(10) == 0
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
