from __future__ import annotations

import pytest
from redis import exceptions

from gateway.adapters.redis_errors import may_be_repeated, translated
from gateway.model.errors import Conflict, Unavailable

REFUSED = exceptions.AuthenticationError("secret words")

ERRORS = [
    (exceptions.ConnectionError("secret words"), "cannot be reached"),
    (exceptions.TimeoutError("secret words"), "in time"),
    (TimeoutError("secret words"), "in time"),
    (OSError("secret words"), "cannot be reached"),
    (REFUSED, "user or password"),
    (exceptions.NoPermissionError("secret words"), "user or password"),
    (exceptions.BusyLoadingError("secret words"), "loading"),
    (exceptions.OutOfMemoryError("secret words"), "maxmemory"),
    (exceptions.ReadOnlyError("secret words"), "replica"),
    (exceptions.ResponseError("secret words"), "no usable answer"),
    (exceptions.ResponseError("NOREPLICAS secret words"), "min-replicas-to-write"),
    (exceptions.ResponseError("UNBLOCKED secret words"), "failover"),
    (exceptions.ResponseError("MISCONF secret words"), "disk"),
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
