"""What operators copy from `deploy/`, each file looked at by its own tool, or run.

A tool that is not installed fails its tests and says how to get it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the modules beside us


def tool(name: str, package: str) -> str:
    """The path of a program."""
    if "/" in str(name):
        return name
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found, f"{name} is not installed: apt-get install {package}, or make venv"
    return found


@pytest.fixture(scope="session")
def run_tool():
    """Run a program to its end; gives what it printed, and fails with that if it is not content."""

    def run(name, *arguments, package="", is_content=True, **more):
        done = subprocess.run(
            [tool(name, package or name), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **more,
        )
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is is_content, said
        return said

    return run
