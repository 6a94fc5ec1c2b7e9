"""Fleets to be hurt, and readers that watch them: the fixtures. What they are is in `tests/fleet.py`."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fleet import (
    ALLOWED,
    HELD,
    HIDDEN,
    LEASE_SECONDS,
    LENT,
    NOBODY,
    OWNED,
    PACKAGE,
    SHOWN,
    UNDECIDED,
    Changer,
    FactServer,
    Fleet,
    Ledger,
    Proxy,
    Readers,
    Sentinel,
    Watched,
    furnish,
    mint,
    path_of,
    request_for,
)


@pytest.fixture(scope="module")
def build_fleet(new_installation):
    """Make a fleet. With `is_remote` its facts lie on a TCP server behind a proxy."""
    fleets = []

    def build(*, workers=4, is_remote=False, prepare=None, **environment):
        server = proxy = None
        environment = {"CACHEGATE_SCAN_SECONDS": "3600", "CACHEGATE_GRACE_SECONDS": "1", **environment}
        installation = None
        if is_remote:
            server = FactServer(Path(tempfile.mkdtemp(prefix="facts-"))).start()
            proxy = Proxy(server.port)
            environment["CACHEGATE_REDIS_URL"] = server.url
        fleet = Fleet(installation, None, {}, {}, server, proxy)
        fleets.append(fleet)
        fleet.installation = new_installation("fleet", **environment)
        fleet.tokens, fleet.key_ids = furnish(fleet.installation)
        if prepare is not None:
            prepare(fleet)
        fleet.serve(workers)
        return fleet

    yield build
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def watching(tmp_path):
    """Readers of a fleet, for as long as a block lasts; gives them and, at its end, what they saw."""

    @contextmanager
    def watch(fleet, **more):
        watched = Watched(Readers(fleet.wire, tmp_path, **more), Ledger())
        try:
            yield watched
            watched.observations = watched.readers.stop()
        finally:
            watched.readers.kill()

    return watch


class Tools:
    """What tests need of this module; they import nothing of each other."""

    Changer = Changer
    FactServer = FactServer
    Sentinel = Sentinel
    allowed, nobody, hidden, undecided = ALLOWED, NOBODY, HIDDEN, UNDECIDED
    owned, lent, shown, held = OWNED, LENT, SHOWN, HELD
    lease_seconds = LEASE_SECONDS
    path_of = staticmethod(path_of)
    request_for = staticmethod(request_for)
    package = PACKAGE
    mint = staticmethod(mint)


@pytest.fixture(scope="session")
def tools():
    return Tools
