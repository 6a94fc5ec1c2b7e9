"""The argument that a command passes to its worker processes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.assembly import app
from gateway.assembly.app import worker_app, worker_argument
from gateway.audit.limits import Durability
from gateway.configuration.settings import Settings

URL = "redis://:s3cret@127.0.0.1:6379"
FULL = Settings(
    state=Path("/a/b"),
    cache_root=Path("/c"),
    alias_roots=("/d", "/e"),
    audit_dir=Path("/f"),
    audit_durability=Durability.POWER,
    trusted_proxies=("10.0.0.0/8", "unix"),
    stall_seconds=7,
)


@pytest.mark.parametrize("settings", [Settings(), FULL], ids=["plain", "full"])
def test_a_worker_gets_the_very_settings_that_were_read(settings, monkeypatch):
    got = []

    class Worker:
        def __init__(self, *arguments):
            got.extend(arguments)

        app = at_once = refused_early = lambda self: None
        pipeline = SimpleNamespace(report=None, note_hang=None)

    monkeypatch.setattr(app, "Worker", Worker)
    monkeypatch.setattr(app, "configure_logs", lambda **_: None)
    worker_app(json.loads(json.dumps(worker_argument(settings, URL))))
    assert got == [settings, URL]
    assert all(type(getattr(got[0], name)) is type(getattr(settings, name)) for name in Settings.__slots__)
