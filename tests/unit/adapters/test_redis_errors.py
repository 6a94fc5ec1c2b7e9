from __future__ import annotations

import ssl

import pytest
from redis import exceptions

from gateway.adapters.redis_errors import RefusedByServer, may_be_repeated, translated
from gateway.model.errors import Conflict, Unavailable

REFUSED = exceptions.AuthenticationError("secret words")

IN_PIPELINE = "Command # 1 (SET secret words) of pipeline caused error: "
ERRORS = [
    (exceptions.ConnectionError("secret words"), "cannot be reached"),
    (exceptions.TimeoutError("secret words"), "in time"),
    (TimeoutError("secret words"), "in time"),
    (OSError("secret words"), "cannot be reached"),
    (REFUSED, "user or password"),
    (
        exceptions.NoPermissionError("secret words"),
        "does not let our user do that: .*docs/operators/redis.md",
    ),
    (exceptions.BusyLoadingError("secret words"), "loading"),
    (exceptions.OutOfMemoryError("secret words"), "maxmemory"),
    (exceptions.ReadOnlyError("secret words"), "replica"),
    (exceptions.ResponseError("secret words"), "no usable answer"),
    (exceptions.ResponseError("NOREPLICAS secret words"), "min-replicas-to-write"),
    (exceptions.ResponseError("UNBLOCKED secret words"), "failover"),
    (exceptions.ResponseError("MISCONF secret words"), "disk"),
    (exceptions.ResponseError(IN_PIPELINE + "NOREPLICAS secret words"), "min-replicas-to-write"),
    (exceptions.ResponseError(IN_PIPELINE + "('NOREPLICAS secret words',)"), "min-replicas-to-write"),
    (exceptions.ResponseError(IN_PIPELINE + """("UNBLOCKED secret's words",)"""), "failover"),
    (exceptions.RedisClusterException("secret words"), "no usable answer"),
]


def wrapped(cause: Exception) -> exceptions.ConnectionError:
    error = exceptions.ConnectionError("secret words")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(("error", "words"), [*ERRORS, (wrapped(REFUSED), "user or password")])
def test_every_error_is_unavailable_in_our_own_words(error, words):
    with pytest.raises(Unavailable, match=words) as unavailable, translated("a:1"):
        raise error
    assert unavailable.value.dependency == "redis"
    assert unavailable.value.why.startswith("a:1 ")
    assert "secret" not in str(unavailable.value)


def tls_failure(reason):
    error = exceptions.ConnectionError("secret words")
    error.__context__ = ssl.SSLError(1, "secret words")
    error.__context__.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "ssl_certfile="),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "ssl_certfile="),
        ("TLSV1_ALERT_UNKNOWN_CA", "ssl_certfile="),
        ("WRONG_VERSION_NUMBER", "speaks no TLS"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "TLSV1_ALERT_PROTOCOL_VERSION"),
        (None, "SSLError"),
    ],
)
def test_a_failure_of_tls_says_so(reason, words):
    with pytest.raises(RefusedByServer, match=words) as refused, translated("a:1"):
        raise tls_failure(reason)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("NOAUTH Authentication required.", "USER:PASSWORD@"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "ACL GETUSER"),
        ("NOPERM User x has no permissions to run the 'client|tracking' command", "run CLIENT TRACKING:"),
        ("ERR ACL failure in script: User x has no permissions to run the 'set' command script", "run SET:"),
        ("NOPERM No permissions to access a key", r"\{cachegate\}:\*"),
        ("DENIED Redis is running in protected mode because", "protected mode"),
    ],
)
def test_what_the_feed_is_answered_is_understood_as_what_a_client_is(answer, words):
    with pytest.raises(RefusedByServer, match=words), translated("a:1"):
        raise ConnectionError(answer)


def test_a_cluster_that_cannot_be_entered_says_why():
    error = exceptions.RedisClusterException("secret words")
    error.__cause__ = exceptions.AuthenticationError("invalid username-password pair or user is disabled.")
    with pytest.raises(RefusedByServer, match="ACL GETUSER"), translated("a:1"):
        raise error


def test_causes_that_go_in_a_circle_end():
    one, other = exceptions.ConnectionError("a"), exceptions.ConnectionError("b")
    one.__context__, other.__context__ = other, one
    with pytest.raises(Unavailable, match="cannot be reached"), translated("a:1"):
        raise one


def test_our_own_errors_and_defects_pass_untouched():
    for error in (Conflict("no"), ValueError("no")):
        with pytest.raises(type(error)), translated("a:1"):
            raise error


def test_what_was_wrong_while_connecting_is_said_in_its_own_words():
    inner = Unavailable("redis", "no sentinel answers")
    with pytest.raises(Unavailable) as unavailable, translated("a:1"):
        raise wrapped(inner)
    assert unavailable.value is inner


def test_only_a_broken_connection_is_worth_a_second_try():
    assert may_be_repeated(exceptions.ConnectionError("gone"))
    assert not may_be_repeated(wrapped(REFUSED))
    assert not may_be_repeated(exceptions.BusyLoadingError("loading"))
