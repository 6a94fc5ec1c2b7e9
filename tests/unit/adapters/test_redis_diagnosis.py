"""Each cause of a failed Redis connection has its own message: login, TLS, certificate, Sentinel, silence."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from contextlib import asynccontextmanager, suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.adapters.redis_diagnosis import diagnosed
from gateway.adapters.redis_errors import RefusedByServer
from gateway.adapters.redis_store import RedisStore
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

LOGIN = "gateway:p%40ss"


@pytest.fixture
def server(new_tcp_valkey):
    found = new_tcp_valkey()
    found.set_user("gateway", "on", ">p@ss", "~*", "+@all")
    found.set_user("default", "off")
    return found


async def ask(url):
    """The first thing that a command does."""
    store = RedisStore(url)
    try:
        async with diagnosed(url):
            await store.generation()
    finally:
        with suppress(Unavailable):
            await store.close()


async def refusal_of(url, kind=RefusedByServer):
    with pytest.raises(Unavailable) as refused:
        await ask(url)
    assert type(refused.value) is kind
    assert "p@ss" not in str(refused.value)
    assert "p%40ss" not in str(refused.value)
    return str(refused.value)


# Logins


async def test_with_the_right_login_it_answers(server):
    await ask(f"redis://{LOGIN}@127.0.0.1:{server.port}")


async def test_without_a_login_one_is_asked_for(server):
    assert "USER:PASSWORD@" in await refusal_of(f"redis://127.0.0.1:{server.port}")


@pytest.mark.parametrize("login", ["gateway:wrong", "nobody:p%40ss", ":p%40ss", "off:p%40ss"])
async def test_a_login_that_is_wrong_is_told_from_one_that_is_missing(server, login):
    server.set_user("off", "off", ">p@ss", "~*", "+@all")
    said = await refusal_of(f"redis://{login}@127.0.0.1:{server.port}")
    assert "ACL GETUSER" in said
    assert "USER:PASSWORD@" not in said


async def test_a_right_that_is_missing_is_told_from_both(server):
    server.set_user("gateway", "-hget")
    said = await refusal_of(f"redis://{LOGIN}@127.0.0.1:{server.port}")
    assert "HGET" in said
    assert "ACL SETUSER" in said


# TLS


class Authority:
    """A certificate authority of the test, in a folder."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._write(f"{name}.pem", self._sign(self._subject, self._key.public_key(), is_authority=True))

    @property
    def path(self):
        return self.folder / f"{self.name}.pem"

    def issue(self, name, *, hosts=("127.0.0.1",), begins=-1, ends=1):
        """Files of a certificate for these hosts, valid between these hours."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._write(
            f"{name}.pem", self._sign(subject, key.public_key(), hosts=hosts, begins=begins, ends=ends)
        )
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _write(self, name, certificate):
        (self.folder / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, key, *, hosts=(), begins=-1, ends=1, is_authority=False):
        now = dt.datetime.now(dt.UTC)
        names = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            for host in hosts
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(hours=begins))
            .not_valid_after(now + dt.timedelta(hours=ends))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


@asynccontextmanager
async def tls_in_front_of(server, files, *, client_ca=None):
    """Open a TLS port that forwards to the given server; return the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader, writer):
        with suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def connected(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # handshakes fail on purpose
    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


async def test_over_tls_it_answers_under_a_trusted_authority(server, authority):
    async with tls_in_front_of(server, authority.issue("server")) as port:
        await ask(f"rediss://{LOGIN}@127.0.0.1:{port}?ssl_ca_certs={authority.path}")


async def test_tls_to_a_port_without_it_says_so(server):
    said = await refusal_of(f"rediss://{LOGIN}@127.0.0.1:{server.port}")
    assert "speaks no TLS" in said


async def test_a_port_with_tls_that_is_spoken_to_without_says_so(server, authority):
    async with tls_in_front_of(server, authority.issue("server")) as port:
        assert "rediss://" in await refusal_of(f"redis://{LOGIN}@127.0.0.1:{port}")


async def test_so_does_one_that_wants_a_certificate_of_ours(server, authority):
    async with tls_in_front_of(server, authority.issue("server"), client_ca=authority.path) as port:
        assert "rediss://" in await refusal_of(f"redis://{LOGIN}@127.0.0.1:{port}")


async def test_an_authority_that_is_not_trusted_is_asked_for_by_the_parameter(server, authority, tmp_path):
    async with tls_in_front_of(server, authority.issue("server")) as port:
        url = f"rediss://{LOGIN}@127.0.0.1:{port}"
        assert "?ssl_ca_certs=" in await refusal_of(url)
        other = Authority(tmp_path, "other")
        assert "?ssl_ca_certs=" in await refusal_of(f"{url}?ssl_ca_certs={other.path}")


async def test_a_certificate_for_another_name_is_told_apart(server, authority):
    async with tls_in_front_of(server, authority.issue("server", hosts=("redis.example",))) as port:
        url = f"rediss://{LOGIN}@127.0.0.1:{port}?ssl_ca_certs={authority.path}"
        assert "for another name" in await refusal_of(url)
        url = f"rediss://{LOGIN}@localhost:{port}?ssl_ca_certs={authority.path}"
        assert "for another name" in await refusal_of(url)


@pytest.mark.parametrize(("begins", "ends"), [(-2, -1), (1, 2)], ids=["expired", "not yet valid"])
async def test_a_certificate_that_is_not_valid_now_is_told_apart(server, authority, begins, ends):
    async with tls_in_front_of(server, authority.issue("server", begins=begins, ends=ends)) as port:
        url = f"rediss://{LOGIN}@127.0.0.1:{port}?ssl_ca_certs={authority.path}"
        assert "not valid at this time" in await refusal_of(url)


async def test_a_server_that_wants_a_certificate_of_ours_gets_the_one_that_is_named(server, authority):
    certificate, key = authority.issue("client")
    async with tls_in_front_of(server, authority.issue("server"), client_ca=authority.path) as port:
        url = f"rediss://{LOGIN}@127.0.0.1:{port}?ssl_ca_certs={authority.path}"
        with pytest.raises(Unavailable):
            await ask(url)
        await ask(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}")


async def test_over_tls_a_wrong_login_is_still_a_wrong_login(server, authority):
    async with tls_in_front_of(server, authority.issue("server")) as port:
        url = f"rediss://gateway:wrong@127.0.0.1:{port}?ssl_ca_certs={authority.path}"
        assert "ACL GETUSER" in await refusal_of(url)


# No server, and servers of other kinds


async def test_a_server_that_is_not_there_is_still_one_that_is_not_there(new_tcp_valkey):
    gone = new_tcp_valkey()
    gone.process.kill()
    gone.process.wait()
    for scheme in ("redis", "rediss"):
        said = await refusal_of(f"{scheme}://{LOGIN}@127.0.0.1:{gone.port}", Unavailable)
        assert "cannot be reached" in said


@asynccontextmanager
async def start_listener(answer=b""):
    """Start a listener that is no Redis; return its port and all that it receives."""
    told = bytearray()

    async def connected(reader, writer):
        while piece := await reader.read(1 << 16):
            told.extend(piece)
            if answer and b"PING" in piece:
                writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], told
    finally:
        listener.close()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_one_that_says_nothing_does_not_answer_in_time(scheme):
    async with start_listener() as (port, _):
        assert "in time" in await refusal_of(f"{scheme}://{LOGIN}@127.0.0.1:{port}", Unavailable)


async def test_no_login_is_sent_where_tls_was_asked_for_and_is_not_spoken():
    async with start_listener(b"+PONG\r\n") as (port, told):
        await refusal_of(f"rediss://{LOGIN}@127.0.0.1:{port}")
        assert b"PING\r\n" in told
        assert b"p@ss" not in told
        assert b"AUTH" not in told


# Sentinels


async def test_a_sentinel_that_wants_a_password_says_what_to_do(server, new_tcp_valkey):
    sentinel = new_tcp_valkey(f"sentinel monitor main 127.0.0.1 {server.port} 1", "requirepass secret")
    said = await refusal_of(f"redis+sentinel://{LOGIN}@127.0.0.1:{sentinel.port}/main")
    assert "requirepass" in said


async def test_a_sentinel_that_speaks_tls_is_told_apart(server, new_tcp_valkey, authority):
    sentinel = new_tcp_valkey(f"sentinel monitor main 127.0.0.1 {server.port} 1")
    async with tls_in_front_of(sentinel, authority.issue("server")) as port:
        assert "plain port" in await refusal_of(f"redis+sentinel://{LOGIN}@127.0.0.1:{port}/main")
