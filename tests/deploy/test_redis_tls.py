"""A Redis with the shipped rights, TLS and certificates, and a gateway on it: run, not only read."""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.conftest import Installation
from tests.faults.replicated.servers import PASSWORDS, TEST_PASSWORD, TEST_USER, Member

DEPLOY = Path(__file__).parents[2] / "deploy" / "redis"


def make_certificates(folder, *hosts):
    return subprocess.run(
        [DEPLOY / "make-certificates", folder, *hosts],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TlsMember(Member):
    """A server with `redis.conf`, and `tls.conf` after it."""

    def __init__(self, folder, certificates, program):
        text = (DEPLOY / "tls.conf").read_text()
        assert text.count("/etc/redis/tls") == 3
        super().__init__(folder, program=program)
        self.certificates = certificates
        text = text.replace("/etc/redis/tls", str(certificates))
        assert text.count("tls-port 6379") == 1
        text = text.replace("tls-port 6379", f"tls-port {self.port}")
        (folder / "tls.conf").write_text(text)
        with self._configuration.open("a") as file:
            file.write(f"include {folder}/tls.conf\nmin-replicas-to-write 0\n")

    def client(self, **more):
        files = {"ssl_certfile": "client.pem", "ssl_keyfile": "client.key", "ssl_ca_certs": "ca.pem"}
        given = {name: str(self.certificates / file) for name, file in files.items()} | more
        return redis.Redis(
            host="localhost", port=self.port, ssl=True, socket_timeout=10, decode_responses=True,
            username=TEST_USER, password=TEST_PASSWORD, **given,
        )  # fmt: skip

    @property
    def url(self):
        files = self.certificates
        return (
            f"rediss://cachegate:{PASSWORDS['cachegate']}@localhost:{self.port}/0?ssl_ca_certs={files}/ca.pem"
            f"&ssl_certfile={files}/client.pem&ssl_keyfile={files}/client.key"
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    made = make_certificates(folder, "localhost", "127.0.0.1", "::1")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def server(certificates, tmp_path_factory):
    """Debian's Redis: the Valkey of the wheel is built without TLS."""
    member = TlsMember(tmp_path_factory.mktemp("redis"), certificates, "redis-server").start()
    yield member
    member.close()


@pytest.fixture(scope="module")
def installed(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "cache").mkdir()
    return Installation(folder, {"CACHEGATE_REDIS_URL": server.url}, runs_here=True).init()


def test_private_keys_are_closed_to_others(certificates):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in certificates.iterdir()}
    assert modes == {
        **dict.fromkeys(("ca.key", "server.key", "client.key"), 0o600),
        **dict.fromkeys(("ca.pem", "server.pem", "client.pem"), 0o644),
    }


def test_a_second_run_keeps_the_ca(certificates, tmp_path):
    folder = tmp_path / "tls"
    shutil.copytree(certificates, folder)
    assert make_certificates(folder, "other").returncode == 0
    assert (folder / "ca.pem").read_bytes() == (certificates / "ca.pem").read_bytes()
    assert (folder / "server.pem").read_bytes() != (certificates / "server.pem").read_bytes()


@pytest.mark.parametrize("arguments", [(), ("localhost/CN=x",), ("a,DNS:b",), ("a b",)])
def test_what_is_no_host_is_refused(arguments, tmp_path):
    assert make_certificates(tmp_path / "tls", *arguments).returncode == 2
    assert not (tmp_path / "tls").exists()


def test_a_gateway_serves_over_tls_with_the_shipped_rights(installed):
    checks = installed.json("doctor", status=None)["checks"]
    of_redis = {one["name"]: one["status"] for one in checks if one["name"].startswith("redis")}
    assert of_redis.keys() >= {"redis", "redis server", "redis group"}
    assert set(of_redis.values()) == {"ok"}, checks
    gateway = installed.serve()
    try:
        assert gateway.is_ready()
        assert gateway.wire.get("/v1/whoami", installed.admin_key).status == 200
    finally:
        gateway.stop()


def test_who_has_no_certificate_does_not_get_to_the_password(server):
    with server.client() as known:
        assert known.ping()
    nobody = server.client(ssl_certfile=None, ssl_keyfile=None)
    with pytest.raises((redis.ConnectionError, ConnectionError)):
        nobody.ping()


def test_there_is_no_plain_port(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"PING\r\n")
        answer = b""
        with suppress(ConnectionResetError):
            answer = plain.recv(100)
        assert b"PONG" not in answer
        assert b"NOAUTH" not in answer


def test_a_server_with_another_certificate_is_not_believed(server, tmp_path):
    made = make_certificates(tmp_path / "tls", "localhost")
    assert made.returncode == 0
    with pytest.raises(redis.ConnectionError):
        server.client(ssl_ca_certs=str(tmp_path / "tls" / "ca.pem")).ping()
