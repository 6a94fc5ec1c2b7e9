"""Bindings of an outside issuer's subjects, revoked while their tokens are in use on four workers (I6)."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.documents.issuers import load_issuer_documents
from tests.outside_issuer import Issuer, rule

READERS = 8  # connections at once: each worker has some of them
ROUNDS = 6
BIG_BYTES = 64 << 20
BIG = "/v1/models/acme/big/1/-/{package}/weights.onnx"
CUT_SECONDS = 1.0


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def fleet(build_fleet, issuer, tools, tmp_path_factory):
    source = tmp_path_factory.mktemp("big") / "big.bin"
    source.write_bytes(random.Random(5).randbytes(BIG_BYTES))

    def prepare(fleet):
        installation = fleet.installation
        big = SampleModel(model_id="acme/big/1", packages={tools.package: {"weights.onnx": source}})
        write_sample_cache(installation.cache_root, [big])
        apply(installation, issuer, rule())

    return build_fleet(
        workers=4, prepare=prepare, CACHEGATE_PRIVATE_ISSUERS="on", SSL_CERT_FILE=issuer.authority
    )


def apply(installation, issuer, *rules):
    """Put a document in force, and leave what commands wrote as it is."""
    folder = installation.folder / "issuers"
    folder.mkdir(exist_ok=True)
    (folder / "ci.toml").write_text(issuer.document(*rules))
    [document] = load_issuer_documents(folder)

    async def work(session):
        done = await session.perform("policy.apply", lambda changes: changes.put_issuer(document.issuer))
        assert done.barrier.is_sure

    installation.in_session(work)


def binding_of(installation, subject):
    [found] = [one for one in installation.json("bindings", "list") if one["subject"] == subject]
    return found["binding_id"]


class Readers:
    """Readers with one token, each on connections of its own; what they saw, and when they asked."""

    def __init__(self, wire, path, token):
        self.seen = []
        self._wire, self._path, self._token = wire, path, token
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(READERS)]
        for thread in self._threads:
            thread.start()

    def _read(self):
        while not self._is_over.is_set():
            with self._wire.talk() as talk:
                for _ in range(5):
                    asked_at = time.monotonic()
                    status = talk.get(self._path, self._token).status
                    self.seen.append((asked_at, status))

    def await_status(self, wanted):
        deadline = time.monotonic() + 30
        before = time.monotonic()
        while not any(at > before and status == wanted for at, status in list(self.seen)[-200:]):
            assert time.monotonic() < deadline, list(self.seen)[-20:]
            time.sleep(0.01)

    def stop(self):
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)
        return self.seen


def test_no_allow_follows_the_revocation_of_a_binding_that_had_returned(fleet, issuer, tools):
    installation = fleet.installation
    path = tools.path_of(tools.owned)
    for number in range(ROUNDS):
        subject = f"revoked {number}"
        readers = Readers(fleet.wire, path, issuer.token(subject=subject, repository="acme/vision"))
        try:
            readers.await_status(tools.allowed)
            said = installation.json("bindings", "revoke", binding_of(installation, subject))
            returned_at = time.monotonic()
            assert (said["sure"], said["workers"]) == (True, 4)
            readers.await_status(tools.nobody)
        finally:
            seen = readers.stop()
        later = {status for asked_at, status in seen if asked_at > returned_at}
        assert later <= {tools.nobody, tools.undecided}, later
        assert tools.allowed in {status for asked_at, status in seen if asked_at < returned_at}


def test_no_allow_follows_a_mapping_that_no_longer_names_the_subject(fleet, issuer, tools):
    installation = fleet.installation
    readers = Readers(
        fleet.wire, tools.path_of(tools.owned), issuer.token(subject="mapped", repository="acme/vision")
    )
    try:
        readers.await_status(tools.allowed)
        apply(installation, issuer, rule(repository="acme/other"))
        returned_at = time.monotonic()
        readers.await_status(tools.nobody)
    finally:
        seen = readers.stop()
        apply(installation, issuer, rule())
    assert {status for asked_at, status in seen if asked_at > returned_at} <= {tools.nobody, tools.undecided}


@pytest.mark.parametrize("what", ["binding", "rule", "tenant"])
def test_a_transfer_is_cut_with_its_binding_its_rule_or_its_tenant(fleet, issuer, tools, what):
    installation = fleet.installation
    subject = f"transfer of {what}"
    token = issuer.token(subject=subject, repository="acme/vision")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(30)
        connection.connect((fleet.wire.host, fleet.wire.port))
        connection.sendall(tools.request_for(BIG.format(package=tools.package), token))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 200 "), head
        record_id = head.partition(b"achegate-record: ")[2].split(b"\r\n")[0].decode()
        connection.recv(1 << 16)
        try:
            if what == "binding":
                installation.run("bindings", "revoke", binding_of(installation, subject))
            elif what == "rule":
                apply(installation, issuer, rule(repository="acme/other"))
            else:
                installation.run("tenants", "suspend", "acme")
            assert installation.outcome_of(record_id)["ending"] == "revoked"
            received = 0
            with suppress(OSError):
                while piece := connection.recv(1 << 20):
                    received += len(piece)
            assert received < BIG_BYTES
        finally:
            apply(installation, issuer, rule())
            installation.run("tenants", "resume", "acme")


def test_a_transfer_outlives_its_tokens_own_end(fleet, issuer, tools):
    token = issuer.token(subject="short", repository="acme/vision", exp=int(issuer_now()) + 3)
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.connect((fleet.wire.host, fleet.wire.port))
        connection.sendall(tools.request_for(BIG.format(package=tools.package), token))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 200 "), head
        time.sleep(4)  # until the token has ended: what is waited for is a time
        received = 0
        while received < BIG_BYTES:
            piece = connection.recv(1 << 20)
            assert piece, received
            received += len(piece)
    assert fleet.wire.get(BIG.format(package=tools.package), token).status == tools.nobody


def issuer_now():
    return time.time()  # noqa: TID251 -- the clock of the issuer
