"""Redis URLs: one string names a server, a Sentinel set or a Cluster, and becomes a client.

    redis://[user:password@]host[:port][/db]            rediss:// for TLS
    unix:///path/to/socket[?db=0]
    redis+sentinel://host[:port],host[:port]/service[?db=0]
    redis+cluster://host[:port],host[:port]             rediss+sentinel:// and rediss+cluster:// for TLS

TLS takes `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` in the query; nothing turns the check of
the server's certificate off. Unknown parameters are refused, since a misspelt one would be missed.

A URL may hold a password, so nothing prints one: `display` is what messages, logs and `doctor` call
a server. A wrong URL is `Misconfigured`, with a message that repeats no part of it. A password with a
character that means something in a URL is the usual reason, and would be cut in the middle: an `@` behind
the hosts says so, and nothing of such a URL is used.

Non-goal: whether the server answers. Making a client connects to nothing.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from gateway.adapters.redis_place import Place, PlacedConnection, PlacedSSLConnection, PlacedUnixConnection
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import refusal_of, verify_trusted

_WHERE = "CACHEGATE_REDIS_URL"
_FORMS = (
    "redis://host:port/db, rediss://host:port/db, unix:///path/to/socket, "
    "redis+sentinel://host:port,host:port/service or redis+cluster://host:port"
)
_ENCODED = (
    "In a user or password write / as %2F, @ as %40, : as %3A, ? as %3F, # as %23 and % as %25, such as "
    "redis://cachegate:p%40ss%2Fword@redis.example:6379/0"
)
_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_MAX_PORT = 65535
_DATABASE = re.compile(r"[0-9]{0,6}")  # `int` would take signs, underscores and the digits of other scripts
_TLS_PARAMETERS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


class Topology(StrEnum):
    """How the servers behind a URL are arranged."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """A parsed URL. The password stays out of its repr."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...] = ()
    socket_path: str | None = None
    service: str | None = None
    db: int = 0
    is_tls: bool = False
    tls: tuple[tuple[str, str], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def display(self) -> str:
        """What to call it in a message: where it is, and nothing that opens it."""
        if self.socket_path is not None:
            return self.socket_path
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return hosts if self.service is None else f"{hosts}/{self.service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLimits:
    """How long and how much a store may wait. A request waits for the facts, so these are short."""

    connect_seconds: float = 1.0
    operation_seconds: float = 1.0
    pool_connections: int = 16
    pool_wait_seconds: float = 1.0
    transaction_seconds: float = 10.0  # plans are retried while others commit; operators can wait a little


def parse_redis_url(raw_url: str) -> RedisAddress:
    """The address that a URL names; `Misconfigured` when it is none of the known forms."""
    scheme, separator, _ = raw_url.partition("://")
    secure = scheme.startswith("rediss")
    forms = {
        "redis": Topology.STANDALONE,
        "unix": Topology.STANDALONE,
        "redis+sentinel": Topology.SENTINEL,
        "redis+cluster": Topology.CLUSTER,
    }
    topology = forms.get("redis" + scheme[len("rediss") :] if secure else scheme)
    if not separator or topology is None:
        raise Misconfigured(_WHERE, f"not a Redis URL; expected {_FORMS}")
    # Of a login there may be a rest anywhere behind the hosts, and what goes wrong may be due to that.
    hint = f". {_ENCODED}" if "@" in raw_url else ""
    try:
        parts = urlsplit(raw_url)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("a login that was cut")  # noqa: TRY301 -- one door for all that does not parse
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        raw_login, _, raw_hosts = parts.netloc.rpartition("@")
        raw_user, _, raw_password = raw_login.partition(":")
        path = unquote(parts.path, errors="strict")
        raw_db = parameters.pop("db", path.strip("/") if scheme in {"redis", "rediss"} else "")
        if not _DATABASE.fullmatch(raw_db):
            raise ValueError("not the number of a database")  # noqa: TRY301 -- as below
        db = int(raw_db or "0")
        hosts = () if scheme == "unix" else tuple(_host(text, topology) for text in raw_hosts.split(","))
        if topology is Topology.STANDALONE and len(hosts) > 1:
            raise ValueError("more than one host")  # noqa: TRY301 -- one door for all that does not parse
    except ValueError:
        # Without a cause: the parser's own message may quote the URL, and with it the password.
        raise Misconfigured(_WHERE, f"not a Redis URL; expected {_FORMS}{hint}") from None
    if raw_login and not raw_password:
        raise Misconfigured(
            _WHERE,
            "it names a user and no password, or a password without the colon before it: write "
            f"redis://USER:PASSWORD@host:port/db, or redis://:PASSWORD@host:port/db. {_ENCODED}",
        )
    unknown = parameters.keys() - (_TLS_PARAMETERS if secure else frozenset())
    if unknown or parts.fragment or db < 0:
        raise Misconfigured(_WHERE, f"it has a parameter that is unknown or does not go with this form{hint}")
    if (scheme == "unix" or topology is Topology.SENTINEL) and not path.strip("/"):
        raise Misconfigured(_WHERE, f"a path is missing; expected {_FORMS}")
    if topology is Topology.CLUSTER and db:
        raise Misconfigured(_WHERE, "a cluster has no numbered databases; leave `db` out")
    return RedisAddress(
        topology=topology,
        hosts=hosts,
        socket_path=path if scheme == "unix" else None,
        service=path.strip("/") if topology is Topology.SENTINEL else None,
        db=db,
        is_tls=secure,
        tls=tuple(sorted(parameters.items())),
        username=unquote(raw_user) or None,
        password=unquote(raw_password) or None,
    )


def verify_local_files(url: str) -> None:
    """Raises `Misconfigured` where others could exchange what a URL names on this machine.

    A CA of theirs would vouch for a server of theirs, and so would a socket that they made in a folder
    where everybody may. The folder of a socket may be its server's user's, who is trusted with the facts.
    """
    address = parse_redis_url(url)
    for name, value in address.tls:
        path = Path(value)
        try:
            verify_trusted(path)
        except OSError as error:
            why = f"{name}: {path} cannot be read ({refusal_of(path, error)})"
            raise Misconfigured(_WHERE, why) from error
    if address.socket_path is not None:
        folder = Path(address.socket_path).parent
        with suppress(OSError):  # a socket that is not there yet: whoever connects says so
            verify_trusted(folder, also=folder.stat().st_uid)


def make_place(address: RedisAddress, limits: RedisLimits) -> Place:
    """Where the server of this address is, for all connections that one process makes to it."""
    return Place(address.hosts, address.service, seconds=limits.connect_seconds)


def make_client(
    address: RedisAddress, limits: RedisLimits, place: Place | None = None
) -> Redis | RedisCluster:
    """A client for this address. It connects when it is first used, to where the place is then."""
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": limits.connect_seconds,
        "socket_timeout": limits.operation_seconds,
        "protocol": 3,
        "driver_info": None,  # two round trips less on each new connection
        # The store repeats what may be repeated; a client that repeated an EXEC would hide its outcome.
        "retry": Retry(NoBackoff(), 0),
        # With these notices on, a pool hands out connections that still hold unread bytes.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if address.is_tls:
        options |= {"ssl": True, **dict(address.tls)}
    # One more than the store lets through at a time, so that the pool itself never has to refuse.
    pool_size = limits.pool_connections + 1
    if address.topology is Topology.CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, max_connections=pool_size, **options)
    kind: Any = PlacedSSLConnection if address.is_tls else PlacedConnection
    if address.is_tls:
        del options["ssl"]  # the class says it
    if address.socket_path is not None:
        kind = PlacedUnixConnection
        options["path"] = address.socket_path
    elif address.topology is Topology.STANDALONE:
        ((options["host"], options["port"]),) = address.hosts
    pool = ConnectionPool(
        connection_class=kind,
        place=place or make_place(address, limits),
        db=address.db,
        max_connections=pool_size,
        **options,
    )
    return Redis.from_pool(pool)


def _host(text: str, topology: Topology) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path:
        raise ValueError("no host")
    usual = _SENTINEL_PORT if topology is Topology.SENTINEL else _REDIS_PORT
    port = usual if parts.port is None else parts.port
    if not 0 < port <= _MAX_PORT:
        raise ValueError("no port")
    return parts.hostname, port
