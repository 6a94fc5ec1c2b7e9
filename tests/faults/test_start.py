"""A gateway that must not start prints the reason in one line, and exits 2 (I7)."""

from __future__ import annotations

import shutil
import socket

import pytest

from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.records import names
from gateway.identity.pepper import create_pepper


def verify_one_line(done, *words):
    """One clear line on standard error: what, where, what to do; no internals."""
    assert done.returncode == 2, done.stderr
    text = done.stderr.strip()
    assert text.startswith("cachegate: ")
    assert "Traceback" not in text
    for word in words:
        assert word in " ".join(text.split()), text
    return text


def serve_once(installation, *arguments):
    return installation.run(
        "serve", "--port", "0", "--ops-port", "0", "--admin-port", "0", *arguments, status=None
    )


async def forget_policy(session):
    """Take the policy head away, as a server that was restored without it would be."""

    async def plan(snapshot, batch):
        batch.facts[names.POLICY] = None

    await session.store.transact(plan)


def test_a_pepper_that_is_not_the_one_of_the_keys_stops_the_start(installation):
    folder = installation.state / "peppers"
    [pepper] = folder.glob("*.pepper")
    was = pepper.read_bytes()
    pepper.unlink()
    create_pepper(folder)
    assert pepper.read_bytes() != was
    text = verify_one_line(serve_once(installation), str(pepper), "copy the pepper folder")
    assert len(text.splitlines()) == 1
    for secret in (was, pepper.read_bytes()):
        assert secret.strip().decode("latin-1") not in text


def test_a_pepper_that_is_missing_stops_the_start(installation):
    shutil.rmtree(installation.state / "peppers")
    verify_one_line(serve_once(installation), "peppers")


def test_without_a_policy_in_force_a_folder_that_cannot_be_applied_stops_the_start(installation, tmp_path):
    installation.in_session(forget_policy)
    broken = tmp_path / "broken"
    shutil.copytree(CHECKOUT_POLICIES, broken)
    (broken / "grants.cedar").write_text('@id("half") permit (principal, action,')
    installation.environment["CACHEGATE_POLICIES"] = str(broken)
    verify_one_line(serve_once(installation), "broken", "grants.cedar")


def test_without_a_policy_in_force_a_folder_that_is_not_there_stops_the_start(installation, tmp_path):
    installation.in_session(forget_policy)
    installation.environment["CACHEGATE_POLICIES"] = str(tmp_path / "nowhere")
    verify_one_line(serve_once(installation), "nowhere")


def test_with_a_policy_in_force_a_broken_folder_stops_nothing(site, serve, paths, tmp_path):
    (tmp_path / "broken").mkdir()
    gateway = serve(site.installation, CACHEGATE_POLICIES=str(tmp_path / "broken"))
    assert gateway.wire.get(paths.small, site.token).status == 200


@pytest.mark.parametrize("option", ["--port", "--ops-port"])
def test_a_port_that_is_taken_stops_the_start(option, installation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        verify_one_line(serve_once(installation, option, port), port, "in use")


def test_a_state_folder_that_was_never_set_up_stops_the_start(installation):
    shutil.rmtree(installation.state)
    verify_one_line(serve_once(installation))


def test_an_audit_folder_below_the_cache_stops_the_start(installation):
    installation.environment["CACHEGATE_AUDIT_DIR"] = str(installation.cache_root / "audit")
    verify_one_line(serve_once(installation), "CACHEGATE_AUDIT_DIR")
    assert list(installation.cache_root.iterdir()) == []


def test_a_misspelt_setting_stops_the_start(installation):
    installation.environment["CACHEGATE_TRUSTED_PROXYS"] = "10.0.0.0/8"
    verify_one_line(serve_once(installation), "CACHEGATE_TRUSTED_PROXYS")


@pytest.mark.parametrize("arguments", [("serve", "--workerz", "4"), ("keys", "show"), ("srve",)])
def test_a_misspelt_command_is_a_usage_error_and_no_defect(arguments, installation):
    done = installation.run(*arguments, status=2)
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr


def test_a_redis_that_is_not_there_is_told_from_a_wrong_setting(installation):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # the port is taken, and nothing listens
        installation.environment["CACHEGATE_REDIS_URL"] = (
            f"redis://user:top-secret@127.0.0.1:{nobody.getsockname()[1]}"
        )
        done = serve_once(installation)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "top-secret" not in done.stderr + done.stdout
