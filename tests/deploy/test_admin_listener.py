"""The admin API stays on the loopback address of each gateway: what is shipped opens it to nobody."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from gateway.configuration.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
OPENS = re.compile(rb"--admin-(?:host|port)|ADMIN_(?:HOST|PORT|PUBLIC)|admin_(?:host|port|public)")


def test_no_shipped_file_moves_the_admin_listener_from_where_it_is_by_default():
    files = [one for one in DEPLOY.rglob("*") if one.is_file()]
    assert len(files) > 20
    assert not [one for one in files if OPENS.search(one.read_bytes())]
    default = {one.name: one.default for one in dataclasses.fields(Settings)}
    assert (default["admin_host"], default["admin_public"]) == ("127.0.0.1", False)
