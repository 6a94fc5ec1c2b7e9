"""An error is one line, and names a key that could not be shown."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__
from gateway.model.moments import when


@pytest.fixture
def installation(installation):
    """What is not written to a full disk needs no process."""
    installation.runs_here = True
    return installation


def _to_a_full_disk(installation, *arguments):
    with Path("/dev/full").open("w") as full:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=installation.variables(), cwd=installation.folder, stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_key_that_could_not_be_shown_is_named_with_the_way_to_revoke_it(installation, form):
    shutil.rmtree(installation.state)
    done = _to_a_full_disk(installation, "init", *form)
    (key,) = installation.json("keys", "list")
    assert done.returncode == 1
    assert f"cachegate keys revoke {key['key_id']}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    installation.run("keys", "revoke", key["key_id"])
    done = _to_a_full_disk(installation, "keys", "create", "--admin", *form)
    created = next(one for one in installation.json("keys", "list") if one["state"] == "live")
    assert (done.returncode, f"revoke {created['key_id']}" in " ".join(done.stderr.split())) == (1, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("keys", "list"), ("keys", "list", "--json"), ("audit", "tail"), ("--version",)]
)
def test_output_that_cannot_be_written_is_one_line(installation, arguments):
    done = _to_a_full_disk(installation, *arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output cannot be written" in done.stderr


def test_the_version_is_shown(installation):
    assert installation.run("--version").stdout == f"cachegate {__version__}\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (0.0, "1970-01-01T00:00:00Z"),
        (13_569_465_600.0, "2400-01-01T00:00:00Z"),
        (-5_000_000_000.0, "1811-07-23T15:06:40Z"),
        (253_402_343_999.0, "@253402343999"),
        (-1e12, "@-1000000000000"),
        (1e300, f"@{1e300:.0f}"),
    ],
)
def test_a_time_that_no_calendar_has_is_shown_all_the_same(seconds, text):
    """A file on a volume may claim any time."""
    assert when(seconds) == text
