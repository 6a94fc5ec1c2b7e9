"""The Containerfile: what hadolint says, and its steps, run in a folder instead of a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Wire, wait_until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/container/Containerfile"


def instructions():
    """Each instruction with its argument; lines that end with a backslash go on."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def stages():
    found = []
    for name, argument in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, argument))
    return found


def test_hadolint_finds_nothing(run_tool):
    assert run_tool("hadolint", FILE) == ""


def test_a_mistake_is_found(run_tool, tmp_path):
    file = tmp_path / "Containerfile"
    file.write_text(FILE.read_text().replace("python:3.13-slim", "python"))
    run_tool("hadolint", file, is_content=False)


def test_what_is_copied_is_in_a_checkout_and_holds_no_state():
    for name, argument in stages()[0]:
        if name == "COPY":
            *sources, _ = argument.split()
            assert all((ROOT / source).exists() for source in sources)
            assert not {".", "./"} & {*sources}


def test_the_image_runs_as_a_user_without_rights_and_has_only_what_was_built():
    last = stages()[-1]
    assert [argument for name, argument in last if name == "USER"] == ["1000:1000"]
    assert [argument for name, argument in last if name == "COPY"] == [
        "--from=build /opt/cachegate /opt/cachegate"
    ]
    commands = [argument for name, argument in last if name == "RUN"]
    assert len(commands) == 1
    assert "groupadd" in commands[0]
    # The installation is root's: who runs in it cannot change it.
    assert "chown" not in FILE.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_steps_make_a_gateway_that_serves_and_is_healthy(tmp_path):
    """COPY and RUN of the first stage in a folder, then what the image starts, and its health check."""
    build, made = tmp_path / "build", tmp_path / "opt"
    build.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(sys.executable)
    environment = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 -- pip has the mirrors that we have
        if not name.startswith(("CACHEGATE_", "PYTHON", "VIRTUAL_ENV"))
    }
    # `pip` of the image is that of its Python.
    (programs / "pip").write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    (programs / "pip").chmod(0o755)
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    for name, argument in stages()[0]:
        if name == "COPY":
            *sources, target = argument.split()
            for source in sources:
                place = build / target / ("" if target != "./" else source)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, place)
        elif name == "RUN":
            command = argument.replace("/opt/cachegate", str(made))
            done = subprocess.run(
                ["sh", "-ec", command], cwd=build, env=environment, capture_output=True, text=True,
                timeout=800, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
    installed = {path.name for path in (made / "bin").iterdir()}
    assert "cachegate" in installed
    assert not {"pytest", "ruff", "mypy", "hadolint", "envoy"} & installed
    shutil.rmtree(build)  # nothing of it is needed any more
    _serve(made, tmp_path, environment)


def _serve(made, folder, environment):
    last = dict(stages()[-1])
    [words, command] = (json.loads(last[name]) for name in ("ENTRYPOINT", "CMD"))
    values = dict(pair.split("=", 1) for pair in shlex.split(last["ENV"]))
    assert values["CACHEGATE_STATE"] == last["VOLUME"] == last["WORKDIR"]
    (folder / "cache").mkdir()
    values |= {
        "PATH": f"{made}/bin:{environment['PATH']}",
        "CACHEGATE_STATE": str(folder / "state"),
        "CACHEGATE_CACHE_ROOT": str(folder / "cache"),
    }
    program = [str(made / "bin" / words[0])]
    run = {"env": environment | values, "cwd": folder, "text": True}
    subprocess.run([*program, "init"], check=True, capture_output=True, timeout=120, **run)
    port, ops_port = free_port(), free_port()
    command = [
        {"0.0.0.0": "127.0.0.1", "8080": str(port), "9090": str(ops_port)}.get(word, word) for word in command
    ]
    [health] = re.findall(r"CMD (\[.*\])$", last["HEALTHCHECK"])
    asked = [word.replace("9090", str(ops_port)) for word in json.loads(health)]
    assert asked[0] == "python"
    asked[0] = str(made / "bin/python")

    def is_healthy():
        return subprocess.run(asked, check=False, capture_output=True, timeout=60, **run).returncode == 0

    assert not is_healthy()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*program, *command], stdout=log, stderr=log, **run)
    try:
        wait_until(is_healthy)
        assert Wire("127.0.0.1", port).get("/v1/models").status == 401
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, (folder / "log").read_text()
