"""Asking Sentinels. Each is a socket that speaks their protocol, stays silent, or speaks another protocol."""

from __future__ import annotations

import asyncio
import contextlib

import hiredis
import pytest

from gateway.adapters import redis_sentinels
from gateway.adapters.redis_errors import RefusedByServer
from gateway.adapters.redis_place import ServerAddress
from gateway.adapters.redis_sentinels import find_primary, list_servers
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

NEW, OLD = ("10.0.0.1", 6379), ("10.0.0.2", 6380)
SILENT, HTTP, GONE, LOCKED = "silent", "http", "gone", "locked"


def packed(*words):
    return hiredis.pack_command(tuple(words))  # a command is an array of bulk strings, like the answer


def replica(host, port):
    return packed("name", "x", "ip", host, "port", str(port))


@contextlib.asynccontextmanager
async def sentinels(*kinds):
    """Start a Sentinel for each value: its primary, None for no such service, or another behaviour."""
    served, hosts, asked = [], [], []

    def serve_as(kind):
        async def serve(reader, writer):
            served.append(asyncio.current_task())
            with contextlib.suppress(OSError), contextlib.closing(writer.transport):
                while data := await reader.read(65536):
                    asked.append(kind)
                    if kind is HTTP:
                        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    elif kind is LOCKED:
                        writer.write(b"-NOAUTH Authentication required.\r\n")
                    elif kind is SILENT:
                        pass
                    elif b"REPLICAS" in data:
                        primary, *others = kind
                        writer.write(packed(primary[0], str(primary[1])))
                        writer.write(b"*%d\r\n" % len(others) + b"".join(replica(*one) for one in others))
                    else:
                        writer.write(b"$-1\r\n" if kind is None else packed(kind[0], str(kind[1])))
                    await writer.drain()

        return serve

    async with contextlib.AsyncExitStack() as stack:
        for kind in kinds:
            if kind is GONE:
                hosts.append(("127.0.0.1", 1))
                continue
            server = await stack.enter_async_context(
                await asyncio.start_server(serve_as(kind), "127.0.0.1", 0)
            )
            hosts.append(("127.0.0.1", server.sockets[0].getsockname()[1]))
        yield hosts, asked
    for task in served:
        task.cancel()
    await asyncio.gather(*served, return_exceptions=True)


@pytest.mark.parametrize("first", [SILENT, HTTP, GONE])
async def test_one_that_gives_no_answer_costs_the_others_nothing(first, monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 30.0)  # two of three agree and suffice
    async with sentinels(first, NEW, NEW) as (hosts, _):
        async with asyncio.timeout(10):
            assert (await find_primary(hosts, "main", seconds=30.0)).primary == NEW


async def test_those_that_do_not_answer_in_time_are_named(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 0.05)
    async with sentinels(SILENT, NEW, HTTP) as (hosts, _):
        found = await find_primary(hosts, "main", seconds=30.0)
    assert found.primary == NEW
    assert found.silent == (hosts[0], hosts[2])


async def test_all_are_asked_at_once():
    async with sentinels(SILENT, SILENT, NEW, NEW, NEW) as (hosts, asked):
        await find_primary(hosts, "main", seconds=30.0)
        assert asked.count(SILENT) == 2


async def test_the_majority_of_those_that_answer_is_believed_and_the_others_are_known(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 0.2)
    async with sentinels(OLD, NEW, SILENT, SILENT, NEW) as (hosts, _):
        found = await find_primary(hosts, "main", seconds=30.0)
    assert found.primary == NEW
    assert found.otherwise == (hosts[0],)
    assert found.silent == (hosts[2], hosts[3])


@pytest.mark.parametrize("kinds", [(OLD, NEW), (OLD, NEW, None), (None, None, NEW), (OLD, SILENT, NEW)])
async def test_without_a_majority_none_is_believed(kinds, monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 0.05)
    async with sentinels(*kinds) as (hosts, _):
        with pytest.raises(Unavailable) as unavailable:
            await find_primary(hosts, "main", seconds=0.1)
    assert "primary of main" in unavailable.value.why


async def test_a_service_that_nobody_knows_is_said_to_be_unknown():
    async with sentinels(None, None, None) as (hosts, _):
        with pytest.raises(Unavailable, match="know of no primary of main"):
            await find_primary(hosts, "main", seconds=1.0)


async def test_when_none_answers_each_is_named(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 0.02)
    async with sentinels(SILENT, HTTP, GONE) as (hosts, _):
        with pytest.raises(Unavailable) as unavailable:
            await find_primary(hosts, "main", seconds=0.05)
    assert all(f"{host}:{port}" in unavailable.value.why for host, port in hosts)


async def test_slow_ones_are_waited_for_while_none_has_answered(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 0.0)
    async with sentinels(NEW) as (hosts, _):
        assert (await find_primary(hosts, "main", seconds=10.0)).primary == NEW


async def test_servers_are_all_that_any_of_them_knows_of(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 1.0)
    first, second = ("10.0.0.3", 1), ("10.0.0.4", 2)
    async with sentinels((NEW, first), (NEW, first, second), HTTP, GONE) as (hosts, _):
        assert await list_servers(hosts, "main") == (NEW, first, second)
    async with sentinels(HTTP, GONE) as (hosts, _):
        with pytest.raises(Unavailable):
            await list_servers(hosts, "main")


async def test_in_a_failover_each_server_is_counted_once_whatever_it_is_to_whom(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 1.0)
    other = ("10.0.0.3", 1)
    async with sentinels((OLD, NEW, other), (NEW, OLD, other), (NEW, OLD, other)) as (hosts, _):
        assert await list_servers(hosts, "main") == tuple(sorted((OLD, NEW, other)))


async def test_a_place_keeps_what_it_was_told_until_somebody_finds_it_wrong():
    async with sentinels(NEW, NEW, NEW) as (hosts, asked):
        place = ServerAddress(tuple(hosts), "main", seconds=1.0)
        assert [await place.find() for _ in range(3)] == [NEW] * 3
        first = len(asked)
        assert first <= 3
        place.forget()
        assert await place.find() == NEW
        await place.find(is_anew=True)
        assert len(asked) > first
    assert place.silent == ()


async def test_a_place_names_those_that_were_silent(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 0.05)
    async with sentinels(SILENT, NEW) as (hosts, _):
        place = ServerAddress(tuple(hosts), "main", seconds=1.0)
        await place.find()
    host, port = hosts[0]
    assert place.silent == (f"{host}:{port}",)


async def test_those_that_want_a_password_are_told_from_those_that_are_silent(monkeypatch):
    monkeypatch.setattr(redis_sentinels, "ANSWER_SECONDS", 30.0)
    async with sentinels(GONE, LOCKED, LOCKED) as (hosts, _):
        with pytest.raises(RefusedByServer, match="requirepass") as refused:
            await find_primary(hosts, "facts", seconds=1.0)
    assert refused.value.why.startswith(f"127.0.0.1:{hosts[1][1]} ")
    async with sentinels(NEW, LOCKED, NEW) as (hosts, _):
        found = await find_primary(hosts, "facts", seconds=1.0)
    assert (found.primary, found.silent) == (NEW, (hosts[1],))
