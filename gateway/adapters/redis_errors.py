"""Translates every error of redis-py, the system and timeouts into `Unavailable` with our own messages.

redis-py mixes three cases: the server refused, the server did not answer, and the connection broke. It wraps
the first in the third when it happens while connecting. This module tells them apart. redis-py's messages
quote commands, which may quote what an operator typed, so none is passed on; only the name of a command that
our user may not run is, because it is one of ours.

A refusal of the server comes with what to do: a missing login, a wrong login, a missing right
(`redis_rights.py` has the list), a certificate. A server that does not answer at all may use TLS where we do
not, or the reverse; `redis_diagnosis.py` finds that out.
"""

from __future__ import annotations

import re
import ssl
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
    from collections.abc import Iterator, Sequence


class RefusedByServer(Unavailable):
    """The server answered and said why it refuses us, or its certificate was not accepted."""


NO_TLS = (
    "speaks no TLS on this port: name the port that does (`tls-port` in its configuration), or write "
    "redis:// where the network is yours"
)
SENTINEL_LOGIN = (
    "is or has a Sentinel that asks for a password, and the login of CACHEGATE_REDIS_URL is for the servers: "
    "take `requirepass` out of the Sentinels' configuration, and keep them in a network of your own"
)
_WRONG_LOGIN = (
    "refuses the user or password of CACHEGATE_REDIS_URL, or that user is off: compare with "
    "`ACL GETUSER` there. In the URL, @ is written %40, / is %2F, : is %3A and % is %25"
)
_WITH_LOGIN = "redis://USER:PASSWORD@host:port/db"
KEYS_RULE = "~{cachegate}:*"
_DOCUMENT = "docs/operators/redis.md has the line with all that is needed"
_NO_RIGHT = f"does not let our user do that: compare with `ACL GETUSER` there; {_DOCUMENT}"

# Matched by text, not by redis-py's class: the feed has a parser of its own.
_ANSWERS = (
    (
        re.compile(r"NOAUTH|Authentication required|HELLO must be called with the client already auth"),
        f"asks for a user and a password, and CACHEGATE_REDIS_URL has none: write {_WITH_LOGIN}",
    ),
    (
        re.compile(r"WRONGPASS|invalid username-password pair|invalid password|AUTH <password> called"),
        _WRONG_LOGIN,
    ),
    (re.compile(r"NOPERM|no permissions"), _NO_RIGHT),
    (
        re.compile(r"^DENIED"),
        "is in protected mode and answers its own machine only: give it users with passwords",
    ),
)

_NO_COMMAND = re.compile(r"no permissions to run the '([a-z_|-]{1,40})' command")
_NO_KEY = re.compile(r"[Nn]o permissions to access a key")

_OUTDATED, _OTHER_NAME = frozenset({9, 10}), frozenset({62, 64})  # OpenSSL's X509_V_ERR_... codes
_NOT_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH")
_WANTS_OURS = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "BAD_CERTIFICATE")
_MAX_CAUSES = 8  # bound on the chain of causes that is followed; there are rarely more than five

BROKEN = (RedisConnectionError, RedisTimeoutError, OSError)
"""Errors after which it is unknown whether a command was carried out."""

# Most specific first: redis-py derives some answers of the server from its class of broken connections.
_WHY: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((BusyLoadingError,), "is still loading its data"),
    ((OutOfMemoryError,), "is out of memory: raise maxmemory"),
    ((ReadOnlyError,), "is a read-only replica: name the primary, or use the sentinel form"),
    ((RedisTimeoutError, TimeoutError), "does not answer in time"),
    ((RedisConnectionError, OSError), "cannot be reached"),
)

# Errors for which redis-py has no class, by the first word of the server's answer.
_CODES = {
    "NOREPLICAS": "takes no writes: fewer replicas are attached and up to date than its "
    "min-replicas-to-write asks for; bring them back, or lower it",
    "UNBLOCKED": "became a replica while we waited: a failover is going on; look whether the change is "
    "there, then repeat it",
    "MISCONF": "takes no writes, since it cannot write to its disk: look at the server's log",
    "MASTERDOWN": "is a replica without its primary: wait for the failover, or name the primary",
    "CLUSTERDOWN": "is a cluster that is not whole: wait, or look at `CLUSTER INFO`",
}


_IN_PIPELINE = " of pipeline caused error: "


@contextmanager
def translated(display: str) -> Iterator[None]:
    """A context that raises errors of redis-py, the system and timeouts as `Unavailable` for this server."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        if isinstance(error.__cause__, Unavailable):  # raised while connecting: it already has our message
            raise error.__cause__ from error
        root = root_of(error)
        said = _refusal(error) or _tls_failure(error)
        if said is not None:
            raise RefusedByServer("redis", f"{display} {said}") from error
        if (code := _CODES.get(_code_of(root))) is not None:
            raise Unavailable("redis", f"{display} {code}") from error
        for kinds, why in _WHY:
            if isinstance(root, kinds):
                raise Unavailable("redis", f"{display} {why}") from error
        what = f"gave no usable answer ({type(root).__name__})"
        raise Unavailable("redis", f"{display} {what}") from error


def _code_of(error: BaseException) -> str:
    """Return the first word of the server's answer.

    In a pipeline, redis-py puts the command before it, and its asynchronous client writes it as a tuple.
    """
    return str(error).rpartition(_IN_PIPELINE)[2].lstrip("('\"").partition(" ")[0]


def missing_rule(answer: str) -> str | None:
    """Return the `ACL SETUSER` rule that was missing, by a server's answer; None if no right was missing."""
    if (match := _NO_COMMAND.search(answer)) is not None:
        return f"+{match[1]}"
    return KEYS_RULE if _NO_KEY.search(answer) else None


def lacking(rules: Sequence[str]) -> str:
    """Say which rights are missing and how to grant them, for start-up, commands and `doctor` alike."""
    commands = [rule[1:].upper().replace("|", " ") for rule in rules if rule != KEYS_RULE]
    what = [f"run {', '.join(commands)}"] if commands else []
    what += ["have the keys {cachegate}:*"] if KEYS_RULE in rules else []
    command = f"ACL SETUSER <user> {' '.join(rules)}"
    return f"does not let our user {' or '.join(what)}: run `{command}` there; {_DOCUMENT}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, nearest first."""
    one: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if one is None:
            return
        if isinstance(one, (RedisError, RedisClusterException, OSError)):
            yield one
        one = one.__cause__ or one.__context__


def _refusal(error: BaseException) -> str | None:
    """Return what the server refused, with what to do, or None if it refused nothing."""
    for one in _causes(error):
        rule = missing_rule(str(one))
        if rule is not None:
            return lacking([rule])
        for pattern, said in _ANSWERS:
            if pattern.search(str(one)) is not None:
                return said
        if isinstance(one, AuthenticationError):
            return _WRONG_LOGIN
        if isinstance(one, (AuthorizationError, NoPermissionError)):
            return _NO_RIGHT
    return None


def _tls_failure(error: BaseException) -> str | None:
    """Return what is wrong with TLS, with what to do, or None if the cause is not TLS."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _certificate_failure(one)
        if isinstance(one, ssl.SSLError):
            reason = one.reason or ""
            if any(part in reason for part in _WANTS_OURS):
                return (
                    "does not take our TLS certificate, or asks for one: name its files, "
                    "rediss://...?ssl_certfile=/path/to/cert.pem&ssl_keyfile=/path/to/key.pem"
                )
            if any(part in reason for part in _NOT_TLS):
                return NO_TLS
            return f"could not agree on TLS with us ({reason or type(one).__name__})"
    return None


def _certificate_failure(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _OUTDATED:
        return "has a TLS certificate that is not valid at this time: renew it, or set this machine's clock"
    if error.verify_code in _OTHER_NAME:
        return "has a TLS certificate for another name: put the name that stands in it into the URL"
    return (
        "has a TLS certificate of a CA that is not trusted here: name the file of its CA, "
        "rediss://...?ssl_ca_certs=/path/to/ca.pem"
    )


def may_be_repeated(error: RedisConnectionError) -> bool:
    """Whether a read may be retried: the connection broke, and the server did not refuse us."""
    return not isinstance(root_of(error), (AuthenticationError, AuthorizationError, BusyLoadingError))


def root_of(error: Exception) -> BaseException:
    """Return what redis-py wrapped: a refusal while connecting is reported as a broken connection."""
    wrapped = error.__cause__
    return wrapped if isinstance(error, RedisConnectionError) and isinstance(wrapped, RedisError) else error
