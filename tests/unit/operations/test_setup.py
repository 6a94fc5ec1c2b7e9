"""Setting up at the same time in several processes makes one of everything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from gateway.identity.pepper import create_pepper


@pytest.fixture
def installation(installation):
    """But for those that run at the same time, commands need no process."""
    installation.runs_here = True
    return installation


def test_two_runs_at_the_same_time_make_one_admin_key(installation):
    shutil.rmtree(installation.state)
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "gateway", "init", "--json"],
            env=installation.variables(),
            cwd=installation.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    shown = [json.loads(run.communicate(timeout=60)[0])["admin_key"] for run in runs]
    assert [run.returncode for run in runs] == [0] * 3
    assert sum(key is not None for key in shown) == 1
    assert [key["tenant"] for key in installation.json("keys", "list")] == [None]
    assert [path.name for path in (installation.state / "peppers").glob("*.pepper")] == ["p1.pepper"]
    installation.verify_audit()


def test_a_foreign_pepper_under_another_id_stops_every_command(installation):
    folder = installation.state / "peppers"
    create_pepper(folder)
    shutil.move(folder / "p1.pepper", installation.folder / "away")
    done = installation.run("keys", "list", status=2)
    assert "p1.pepper" in done.stderr
    shutil.move(installation.folder / "away", folder / "p1.pepper")
    installation.run("keys", "list")
    (folder / "p2.pepper").unlink()  # by now keys may have been stored under it
    assert "p2.pepper" in installation.run("keys", "list", status=2).stderr


def test_a_state_folder_that_is_open_to_others_stops_every_command(installation):
    installation.state.chmod(0o750)
    for command in (("serve", "--port", "0", "--admin-port", "0"), ("keys", "list"), ("init",)):
        assert "chmod 700" in " ".join(installation.run(*command, status=2).stderr.split())
