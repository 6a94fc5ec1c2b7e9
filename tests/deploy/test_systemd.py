"""The units of systemd: that it takes them, how closed they are, and that what they run is there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import Installation

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.iterdir())
SERVICES = [name for name in UNITS if name.endswith(".service")]
PROGRAM = "/opt/cachegate/bin/cachegate"
EXPOSURE = 20  # of 100, where 0 is a service that can do nothing: `systemd-analyze security`


@pytest.fixture
def installed(tmp_path):
    """The units in a folder, with a program where they name one."""
    program = tmp_path / "cachegate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in UNITS:
        text = (FOLDER / name).read_text()
        (tmp_path / name).write_text(text.replace(PROGRAM, str(program)))
    return tmp_path


def lines(name, key):
    return re.findall(rf"^{key}=(.*)$", (FOLDER / name).read_text(), re.MULTILINE)


def test_systemd_takes_every_unit_without_a_word(installed, run_tool):
    units = [installed / name for name in UNITS]
    assert run_tool("systemd-analyze", "verify", "--man=no", *units, package="systemd") == ""


def test_a_mistake_in_a_unit_is_noticed(installed, run_tool):
    unit = installed / SERVICES[0]
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nProtectSystemm=strict"))
    assert "ProtectSystemm" in run_tool("systemd-analyze", "verify", "--man=no", unit, package="systemd")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_little_beyond_its_task(name, installed, run_tool):
    run_tool(
        "systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", installed / name,
        package="systemd",
    )  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_as_the_engines_user_with_one_state_and_a_read_only_cache(name):
    assert lines(name, "User") == lines(name, "Group") == ["inference"]
    assert lines(name, "ProtectSystem") == ["strict"]
    assert "/srv" in lines(name, "ReadOnlyPaths")
    assert set(lines(name, "Environment")) >= {
        "CACHEGATE_STATE=/var/lib/cachegate",
        "CACHEGATE_CACHE_ROOT=/srv/inference",
    }
    assert lines(name, "EnvironmentFile") == ["-/etc/cachegate/environment"]


def test_the_page_installs_what_the_units_start_and_for_the_same_user():
    page = (FOLDER.parents[1] / "docs/operators/install.md").read_text()
    for line in (
        "python3 -m venv /opt/cachegate",
        "install -d -m 0700 -o inference -g inference /var/lib/cachegate",
        'state = "/var/lib/cachegate"',
        'cache_root = "/srv/inference"',
        "> /etc/cachegate/environment",
    ):
        assert line in page
    for name in UNITS:
        assert re.search(rf"{name.partition('.')[0]}\b", page), name


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".timer")])
def test_a_timer_has_a_service_and_a_time_that_comes(name, run_tool):
    assert name.replace(".timer", ".service") in SERVICES
    [calendar] = lines(name, "OnCalendar")
    assert "Next elapse" in run_tool("systemd-analyze", "calendar", calendar, package="systemd")


def commands(name):
    """What a unit runs, with systemd's own escapes undone, as `sh` or the program gets it."""
    for line in lines(name, "ExecStart"):
        yield shlex.split(line.replace("%%", "%").replace("$$", "$"))


def test_what_the_units_run_works(tmp_path, run_tool):
    """Each one but the server itself, with a program and folders of this test."""
    (tmp_path / "cache").mkdir()
    installation = Installation(tmp_path).init()
    program = tmp_path / "cachegate"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    exported = tmp_path / "exported"
    exported.mkdir()
    for name in (one for one in SERVICES if one != "cachegate.service"):
        for words in commands(name):
            filled = [
                word.replace(PROGRAM, str(program)).replace("/var/lib/cachegate-export", str(exported))
                for word in words
            ]
            run_tool(*filled, package="", env=installation.variables(), cwd=tmp_path)
    [file] = exported.iterdir()
    assert re.fullmatch(r"facts-\d{8}T\d{6}Z\.jsonl", file.name)
    assert file.read_text().count("\n") >= 1
