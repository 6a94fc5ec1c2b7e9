"""Redis errors: everything that can go wrong between us and a server, as `Unavailable` in our own words.

redis-py mixes three things: the server said no, the server did not answer, and the connection broke.
It wraps the first in the third when it happens while connecting. They are told apart here, once.
Its messages quote commands, and a command may quote what an operator typed, so none is passed on.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN = (RedisConnectionError, RedisTimeoutError, OSError)
"""What leaves it open whether a command was carried out."""

# Most specific first: redis-py derives some answers of the server from its class of broken connections.
_WHY: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (AuthenticationError, AuthorizationError, NoPermissionError),
        "refuses our user or password, or its right to a command",
    ),
    ((BusyLoadingError,), "is still loading its data"),
    ((OutOfMemoryError,), "is out of memory: raise maxmemory"),
    ((ReadOnlyError,), "is a read-only replica: name the primary, or use the sentinel form"),
    ((RedisTimeoutError, TimeoutError), "does not answer in time"),
    ((RedisConnectionError, OSError), "cannot be reached"),
)

# What redis-py has no class for, by the first word of the server's answer.
_CODES = {
    "NOREPLICAS": "takes no writes: fewer replicas are attached and up to date than its "
    "min-replicas-to-write asks for; bring them back, or lower it",
    "UNBLOCKED": "became a replica while we waited: a failover is going on; look whether the change is "
    "there, then repeat it",
    "MISCONF": "takes no writes, since it cannot write to its disk: look at the server's log",
    "MASTERDOWN": "is a replica without its primary: wait for the failover, or name the primary",
    "CLUSTERDOWN": "is a cluster that is not whole: wait, or look at `CLUSTER INFO`",
}


@contextmanager
def translated(display: str) -> Iterator[None]:
    """Within it, every error of redis-py, of the system and of time is `Unavailable` at this place."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        if isinstance(error.__cause__, Unavailable):  # while connecting: it says already what is the matter
            raise error.__cause__ from error
        root = root_of(error)
        if (code := _CODES.get(str(root).partition(" ")[0])) is not None:
            raise Unavailable("redis", f"{display} {code}") from error
        for kinds, why in _WHY:
            if isinstance(root, kinds):
                raise Unavailable("redis", f"{display} {why}") from error
        what = f"gave no usable answer ({type(root).__name__})"
        raise Unavailable("redis", f"{display} {what}") from error


def may_be_repeated(error: RedisConnectionError) -> bool:
    """Whether a read is worth a second try: the connection broke, and the server did not refuse us."""
    return not isinstance(root_of(error), (AuthenticationError, AuthorizationError, BusyLoadingError))


def root_of(error: Exception) -> BaseException:
    """What redis-py wrapped: a refusal while it connects comes as one more broken connection."""
    wrapped = error.__cause__
    return wrapped if isinstance(error, RedisConnectionError) and isinstance(wrapped, RedisError) else error
