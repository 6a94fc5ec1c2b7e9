"""TLS on the public socket: the same gateway and the same bytes, sent in chunks instead of by `sendfile`."""

from __future__ import annotations

import http.client
import random
import re
import socket
import ssl
from contextlib import suppress

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from tests.certificates import write_certificate

LARGE = random.Random(5).randbytes((9 << 20) + 1)
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"


@pytest.fixture(scope="module")
def served(new_installation):
    installation = new_installation("tls")
    write_certificate(installation.folder / "tls.pem", installation.folder / "tls.key")
    installation.environment |= {
        "CACHEGATE_TLS_CERTIFICATE": str(installation.folder / "tls.pem"),
        "CACHEGATE_TLS_KEY": str(installation.folder / "tls.key"),
    }
    write_sample_cache(
        installation.cache_root,
        [
            SampleModel(
                model_id="acme/cars/1", packages={"pkgA1": {"weights.onnx": LARGE, "small.txt": b"small\n"}}
            )
        ],
    )
    installation.init()
    installation.run("tenants", "create", "acme")
    installation.run("models", "own", "acme", "acme/*")
    token = installation.json("keys", "create", "--tenant", "acme")["token"]
    gateway = installation.serve()
    yield installation, gateway, token
    gateway.stop()


def get(served, path, *, token=None, **headers):
    installation, gateway, own_token = served
    trusted = ssl.create_default_context(cafile=str(installation.folder / "tls.pem"))
    connection = http.client.HTTPSConnection("localhost", gateway.wire.port, context=trusted, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token or own_token}"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_large_file_arrives_whole(served):
    assert get(served, PATH) == (200, LARGE)


def test_a_range_is_that_part_of_the_file(served):
    assert get(served, PATH, Range="bytes=1000000-5000000") == (206, LARGE[1_000_000:5_000_001])


def test_a_small_file_arrives_again_and_again(served):
    for _ in range(3):  # from the disk, then from memory
        assert get(served, PATH.replace("weights.onnx", "small.txt")) == (200, b"small\n")


def test_a_stranger_is_one_over_tls_as_well(served):
    assert get(served, PATH, token="cg_live_" + "0" * 30)[0] == 401


def test_a_transfer_ends_with_the_time_of_its_key(served):
    """In chunks as by `sendfile`. The client reads nothing until the key has expired."""
    installation, gateway, _ = served
    key = installation.json("keys", "create", "--tenant", "acme", "--expires", "5s")["token"]
    trusted = ssl.create_default_context(cafile=str(installation.folder / "tls.pem"))
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(30)
        raw.connect((gateway.wire.host, gateway.wire.port))
        with trusted.wrap_socket(raw, server_hostname="localhost") as connection:
            connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            record_id = re.search(rb"cachegate-record: (\S+)", head)[1].decode()
            assert installation.outcome_of(record_id)["ending"] == "expired"  # waits for it
            received = 0
            with suppress(OSError):
                while piece := connection.recv(1 << 20):
                    received += len(piece)
            assert received < len(LARGE)


def test_plain_http_is_not_spoken(served):
    _, gateway, token = served
    with gateway.wire.connect() as connection:
        connection.sendall(
            b"GET %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n"
            % (PATH.encode(), token.encode())
        )
        assert LARGE[:64] not in connection.recv(1 << 16)


def test_one_of_the_two_files_alone_stops_the_start(new_installation):
    installation = new_installation("half")
    installation.environment["CACHEGATE_TLS_CERTIFICATE"] = "/nowhere.pem"
    assert "tls_key" in installation.run("doctor", status=2).stderr
