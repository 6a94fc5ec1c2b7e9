from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_time import load_server_time
from gateway.model.errors import Unavailable


def test_a_server_on_this_machine_has_our_time():
    with (
        tempfile.TemporaryDirectory(prefix="cg-test-") as folder,
        EmbeddedValkey(Path(folder)).running() as url,
    ):
        assert abs(asyncio.run(load_server_time(url)) - SystemClock().now()) < 5


def test_a_server_that_is_not_there_is_unavailable_and_its_password_is_not_told():
    with pytest.raises(Unavailable) as raised:
        asyncio.run(load_server_time("redis://:hunter2@127.0.0.1:1/0"))
    assert "hunter2" not in str(raised.value)
