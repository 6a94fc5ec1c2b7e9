"""I6 for access tokens: they stand on what their keys stand on, and fall with it at once, in every worker."""

from __future__ import annotations

import random
import socket

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.identity.signing_keys import load_signing_keys
from tests.forged_tokens import Forge

PUBLIC_URL = "https://models.example"
MEBIBYTE = 1 << 20
BIG = "acme/big/1"
BIG_BYTES = 96 * MEBIBYTE
KINDS = {"grant", "tenant", "publish", "policy", "key"}


@pytest.fixture(scope="module")
def fleet(build_fleet, tools, tmp_path_factory):
    source = tmp_path_factory.mktemp("big") / "big.bin"
    block = random.Random(5).randbytes(MEBIBYTE)
    with source.open("wb") as file:
        file.writelines(block for _ in range(BIG_BYTES // MEBIBYTE))

    def prepare(fleet):
        sample = SampleModel(model_id=BIG, packages={tools.package: {"weights.onnx": source}})
        write_sample_cache(fleet.installation.cache_root, [sample])
        source.unlink()

    fleet = build_fleet(prepare=prepare, CACHEGATE_PUBLIC_URL=PUBLIC_URL)
    fleet.sign = signer(fleet)
    return fleet


def signer(fleet):
    """Signs as the gateway does, also for keys that do not exist yet, so that their absence is seen too."""
    key, *_ = load_signing_keys(fleet.installation.state / "signing" / "tokens")
    records = {one["tenant"]: one["record_id"] for one in fleet.installation.json("tenants", "list")}

    def sign(key_id, tenant, **claims):
        forge = Forge(
            private=key.private,
            kid=key.kid,
            url=PUBLIC_URL,
            key_id=key_id,
            tenant=tenant,
            tenant_record=records[tenant],
            now=int(SystemClock().now()),
        )
        return forge.good(scope='"discover read infer"', **claims)

    return sign


def test_no_token_is_answered_from_what_was_true_before_a_change_that_had_returned(fleet, watching, tools):
    """Keys are made, revoked and rotated, a tenant is suspended, grants come and go, on four workers."""
    with watching(fleet) as watched:

        async def work(session):
            changer = tools.Changer(session, fleet, watched.readers, watched.ledger)
            await changer.begin()
            for _ in range(120):
                await changer.step()

        fleet.installation.in_session(work)
    verdict = watched.judged()
    watched.report(verdict)
    for kind in KINDS:
        seen = {status for (one, status), count in verdict.checked.items() if one == kind and count}
        assert seen in ({tools.allowed, tools.nobody}, {tools.allowed, tools.hidden}), (kind, seen)
    busy = [path for path in fleet.installation.audit.glob("*.jsonl") if path.stat().st_size > 10_000]
    assert len(busy) >= len(fleet.gateway.worker_pids())


class Download:
    """A reader of the big file that takes a piece when it is told to."""

    def __init__(self, fleet, tools, token):
        self._connection = socket.socket()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self._connection.settimeout(30)
        self._connection.connect((fleet.wire.host, fleet.wire.port))
        self._connection.sendall(tools.request_for(tools.path_of(BIG), token))
        self.received = 0
        assert self._connection.recv(9) == b"HTTP/1.1 "
        assert self._connection.recv(3) == b"200"

    def take(self, count):
        """Whether so many more bytes came."""
        wanted = self.received + count
        while self.received < wanted:
            try:
                piece = self._connection.recv(min(1 << 16, wanted - self.received))
            except ConnectionResetError:
                return False
            if not piece:
                return False
            self.received += len(piece)
        return True

    def close(self):
        self._connection.close()


def test_a_transfer_outlives_its_token_and_not_its_key(fleet, tools, eventually):
    fleet.new_key("short", "acme")
    token = fleet.sign(fleet.key_ids["short"], "acme", exp=str(int(SystemClock().now()) + 2))
    download = Download(fleet, tools, token)
    try:
        assert download.take(MEBIBYTE)
        # Only time ends it: no fact changes, so there is nothing else to wait for.
        eventually(lambda: fleet.wire.get(tools.path_of(BIG), token).status == tools.nobody)
        assert download.take(16 * MEBIBYTE)  # more than the kernels of both sides hold
        assert fleet.revoke("short").barrier.is_sure
        assert not download.take(BIG_BYTES)
        assert download.received < BIG_BYTES
    finally:
        download.close()
        del fleet.tokens["short"], fleet.key_ids["short"]  # other tests of this fleet read with each key
