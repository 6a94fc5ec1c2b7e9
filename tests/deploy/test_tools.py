"""CI installs what these tests run: a tool that is missing fails them, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_that_a_test_here_asks_for_is_installed_by_ci():
    texts = [path.read_text() for path in (ROOT / "tests/deploy").glob("*.py") if path != Path(__file__)]
    asked = {name for text in texts for name in re.findall(r'package="([\w-]+)"', text)}
    asked |= {name for text in texts for name in re.findall(r"apt-get install ([\w-]+)", text)}
    assert asked >= {"prometheus", "systemd", "docker-compose", "redis-server"}
    listed = " ".join(re.findall(r'^packages="(.*)"$', (ROOT / ".ci/run").read_text(), re.MULTILINE)).split()
    assert asked <= {*listed}


def test_no_test_here_is_left_out_where_a_tool_is_missing():
    for path in (ROOT / "tests/deploy").glob("*.py"):
        if path != Path(__file__):
            assert not re.search(r"importorskip|pytest\.(skip|xfail)|mark\.(skip|xfail)", path.read_text()), (
                path
            )
