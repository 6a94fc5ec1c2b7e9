from __future__ import annotations

import os

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from gateway.adapters.redis_url import (
    RedisLimits,
    Topology,
    make_client,
    parse_redis_url,
    verify_local_files,
)
from gateway.model.errors import Misconfigured

SECRET = "hunter2/@:"
QUOTED = "hunter2%2F%40%3A"

GOOD = {
    "redis://localhost": ((("localhost", 6379),), 0, "localhost:6379"),
    "redis://localhost:7000/3": ((("localhost", 7000),), 3, "localhost:7000"),
    "redis://[::1]:7000": ((("::1", 7000),), 0, "::1:7000"),
    "rediss://example.org": ((("example.org", 6379),), 0, "example.org:6379"),
    "unix:///run/a%20b.sock?db=2": ((), 2, "/run/a b.sock"),
    "redis+sentinel://a:1,b/main?db=1": ((("a", 1), ("b", 26379)), 1, "a:1,b:26379/main"),
    "redis+cluster://a:1,b": ((("a", 1), ("b", 6379)), 0, "a:1,b:6379"),
    "rediss+cluster://a": ((("a", 6379),), 0, "a:6379"),
}

BAD = [
    "",
    "localhost:6379",
    "http://localhost",
    "redisss://localhost",
    "rediss+unix:///x",
    "redis://",
    "redis://:6379",
    "redis://a,b",
    "redis://localhost:0",
    "redis://localhost:99999",
    "redis://localhost:port",
    "redis://localhost/db",
    "redis://localhost/-1",
    "redis://localhost?db=x",
    "redis://localhost?socket_timeout=900",
    "redis://localhost?ssl_ca_certs=/x",
    "rediss://localhost?ssl_cert_reqs=none",
    "redis://localhost#x",
    "redis://[::1",
    "unix://",
    "redis+sentinel://a",
    "redis+sentinel:///main",
    "redis+cluster://a?db=1",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_known_form_is_understood(url):
    hosts, db, display = GOOD[url]
    address = parse_redis_url(url)
    assert (address.hosts, address.db, address.display) == (hosts, db, display)
    assert address.is_tls is url.startswith("rediss")


@pytest.mark.parametrize("url", BAD)
def test_another_form_is_refused_without_repeating_it(url):
    with pytest.raises(Misconfigured) as refused:
        parse_redis_url(url.replace("://", f"://user:{QUOTED}@", 1) if "unix" not in url else url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("form", ["redis://{}a", "redis+sentinel://{}a,b/main", "rediss+cluster://{}a"])
def test_a_password_is_decoded_and_never_shown(form):
    address = parse_redis_url(form.format(f"us%65r:{QUOTED}@"))
    assert (address.username, address.password) == ("user", SECRET)
    assert "hunter2" not in repr(address) + address.display


async def kind_of(url):
    client = make_client(parse_redis_url(url), RedisLimits())
    try:
        return type(client), getattr(client, "connection_pool", None)
    finally:
        await client.aclose()


@pytest.mark.anyio
async def test_each_form_becomes_the_client_that_speaks_it():
    for url, connection_class in [
        ("unix:///x", UnixDomainSocketConnection),
        ("rediss://a?ssl_ca_certs=/ca.pem", SSLConnection),
    ]:
        kind, pool = await kind_of(url)
        assert kind is Redis
        assert issubclass(pool.connection_class, connection_class)
    kind, pool = await kind_of("redis+sentinel://a/main")
    assert kind is Redis
    assert pool.connection_kwargs["place"].is_asked_for
    kind, _ = await kind_of("redis+cluster://a,b")
    assert kind is RedisCluster
    assert parse_redis_url("redis+cluster://a").topology is Topology.CLUSTER


@pytest.mark.anyio
async def test_no_client_repeats_commands_or_waits_without_bound():
    for url in ("redis://a", "rediss://a", "unix:///x", "redis+sentinel://a/main"):
        _, pool = await kind_of(url)
        options = pool.connection_kwargs
        assert options["retry"].get_retries() == 0
        assert options["socket_timeout"] == RedisLimits().operation_seconds
        assert options["socket_connect_timeout"] == RedisLimits().connect_seconds
        assert pool.max_connections == RedisLimits().pool_connections + 1


CUT = [
    "redis://gateway:{}@redis.example:6379/0",
    "rediss://gateway:{}@redis.example",
    "redis+sentinel://gateway:{}@a:1,b/main",
    "rediss+cluster://gateway:{}@a,b",
    "unix://gateway:{}@/run/redis.sock",
]


@pytest.mark.parametrize("form", CUT)
@pytest.mark.parametrize(
    "password",
    [
        "hunter/two",
        "12/hunter",
        "hunter?two",
        "12?hunter",
        "hunter#two",
        "12#hunter",
        "12?ssl_keyfile=hunter",
    ],
)
def test_a_password_that_has_to_be_encoded_is_refused_with_an_example_and_never_taken_for_a_path(
    form, password
):
    with pytest.raises(Misconfigured) as refused:
        parse_redis_url(form.format(password))
    assert "p%40ss%2Fword" in str(refused.value)
    assert "hunter" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("form", CUT)
def test_encoded_it_is_taken_as_it_is_meant(form):
    assert parse_redis_url(form.format("hun%2Fter%3F%23%40%3A%25")).password == "hun/ter?#@:%"


@pytest.mark.parametrize("login", ["hunter2", "hunter2:", "gateway:"])
def test_a_user_without_a_password_is_asked_for_one(login):
    with pytest.raises(Misconfigured) as refused:
        parse_redis_url(f"redis://{login}@redis.example")
    assert "USER:PASSWORD@" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_password_without_a_user_is_the_default_users():
    address = parse_redis_url("redis://:hunter2@redis.example")
    assert (address.username, address.password) == (None, "hunter2")


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_tls_file_that_others_may_write_or_that_is_missing_stops_the_start(tmp_path, name):
    file = tmp_path / "file.pem"
    url = f"rediss://a?{name}={file}"
    with pytest.raises(Misconfigured, match=name):
        verify_local_files(url)
    file.write_text("pem")
    file.chmod(0o644)
    verify_local_files(url)
    file.chmod(0o666)
    with pytest.raises(Misconfigured) as refused:
        verify_local_files(url)
    assert refused.value.where == str(file)


def test_a_socket_in_a_folder_where_everybody_may_make_one_stops_the_start(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    url = f"unix://{folder}/redis.sock"
    verify_local_files(url)
    for mode in (0o777, 0o1777):
        folder.chmod(mode)
        with pytest.raises(Misconfigured):
            verify_local_files(url)


@pytest.mark.root
def test_the_folder_of_a_socket_may_be_its_servers(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    os.chown(folder, 61234, 61234)
    verify_local_files(f"unix://{folder}/redis.sock")
