"""Parses Redis URLs, for a single server, a Sentinel set or a Cluster, and makes clients for them.

    redis://[user:password@]host[:port][/db]            rediss:// for TLS
    unix:///path/to/socket[?db=0]
    redis+sentinel://host[:port],host[:port]/service[?db=0]
    redis+cluster://host[:port],host[:port]             rediss+sentinel:// and rediss+cluster:// for TLS

TLS takes `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` in the query; verification of the server's
certificate cannot be turned off. Unknown parameters are refused, since a misspelt one would otherwise have no
effect.

A URL may hold a password, so it is never printed: messages, logs and `doctor` use `display`. A wrong URL is
`Misconfigured`, with a message that repeats no part of it. The usual reason is a password with a character
that is special in a URL, which would split the URL in the middle of the password: an `@` after the hosts
reveals this, and then no part of the URL is used.

Non-goal: whether the server answers. Making a client does not connect.
"""

from __future__ import annotations

import re
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from gateway.adapters.redis_place import (
    PlacedConnection,
    PlacedSSLConnection,
    PlacedUnixConnection,
    ServerAddress,
)
from gateway.model.errors import Misconfigured
from gateway.model.hidden_fields import shown
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
_DATABASE = re.compile(r"[0-9]{0,6}")  # `int` would accept signs, underscores and the digits of other scripts
_TLS_PARAMETERS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


class Topology(StrEnum):
    """How the servers behind a URL are arranged."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL. The password is not in its repr."""

    topology: Topology
    hosts: tuple[tuple[str, int], ...] = ()
    socket_path: str | None = None
    service: str | None = None
    db: int = 0
    is_tls: bool = False
    tls: tuple[tuple[str, str], ...] = ()
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("password",))

    @property
    def display(self) -> str:
        """The address for messages, without credentials."""
        if self.socket_path is not None:
            return self.socket_path
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return hosts if self.service is None else f"{hosts}/{self.service}"


class RedisLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Timeouts and the pool size of a store. Requests wait for facts, so the timeouts are short."""

    connect_seconds: float = 1.0
    operation_seconds: float = 1.0
    pool_connections: int = 16
    pool_wait_seconds: float = 1.0
    # Plans are retried while others commit, and operators can wait longer than requests.
    transaction_seconds: float = 10.0


def parse_redis_url(raw_url: str) -> RedisAddress:
    """Parse a URL. Raises `Misconfigured` if it has none of the known forms."""
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
    # A login that was split wrongly leaves its rest after the hosts, and may be the cause of any error below.
    hint = f". {_ENCODED}" if "@" in raw_url else ""
    try:
        parts = urlsplit(raw_url)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("a login that was cut")  # noqa: TRY301 -- one handler for everything that does not parse
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
            raise ValueError("more than one host")  # noqa: TRY301 -- one handler for everything that does not parse
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
    """Raise `Misconfigured` if other users could replace the local files that a URL names.

    Another user's CA file would certify a server of that user, and so would a socket in a folder where
    everybody can write. The folder of a socket may belong to the user of its server, who is trusted with the
    facts.
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
        with suppress(OSError):  # a socket that does not exist yet: connecting reports it
            verify_trusted(folder, also=folder.stat().st_uid)


def make_place(address: RedisAddress, limits: RedisLimits) -> ServerAddress:
    """Make the place that all connections of one process to this address share."""
    return ServerAddress(address.hosts, address.service, seconds=limits.connect_seconds)


def make_client(
    address: RedisAddress, limits: RedisLimits, place: ServerAddress | None = None
) -> Redis | RedisCluster:
    """Make a client for this address. It connects on first use, to the place's address at that time."""
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": limits.connect_seconds,
        "socket_timeout": limits.operation_seconds,
        "protocol": 3,
        "driver_info": None,  # saves two round trips on each new connection
        # The store retries what may be retried; a client that repeated an EXEC would hide its outcome.
        "retry": Retry(NoBackoff(), 0),
        # With these notifications, a pool hands out connections that still hold unread bytes.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if address.is_tls:
        options |= {"ssl": True, **dict(address.tls)}
    # One more than the store admits at a time, so that the pool itself never refuses.
    pool_size = limits.pool_connections + 1
    if address.topology is Topology.CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, max_connections=pool_size, **options)
    kind: Any = PlacedSSLConnection if address.is_tls else PlacedConnection
    if address.is_tls:
        del options["ssl"]  # given by the class
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
