"""The constant answer of `/health`; all other requests are passed on."""

from __future__ import annotations

import asyncio

import pytest

from gateway.middleware.health import HealthMiddleware


def answered(scope):
    sent, handed_on = [], []

    async def app(scope, _receive, _send):
        handed_on.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(HealthMiddleware(app)(scope, None, send))
    return sent, handed_on


def scope_of(method="GET", raw_path=b"/health", **more):
    return {"type": "http", "method": method, "raw_path": raw_path, "path": "/health", **more}


def test_get_is_answered_with_the_constant():
    sent, handed_on = answered(scope_of())
    assert (sent[0]["status"], sent[1]["body"]) == (200, b'{"status":"healthy"}\n')
    assert (b"content-length", str(len(sent[1]["body"])).encode()) in sent[0]["headers"]
    assert handed_on == []


def test_head_has_no_body():
    sent, _ = answered(scope_of("HEAD"))
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"")


@pytest.mark.parametrize(
    "raw_path", [b"/health/", b"/health?x", b"/%68ealth", b"//health", b"/HEALTH", b"/", None]
)
def test_only_the_raw_path_decides(raw_path):
    sent, handed_on = answered(scope_of(raw_path=raw_path))
    assert (sent, len(handed_on)) == ([], 1)


@pytest.mark.parametrize("method", ["POST", "get", "OPTIONS"])
def test_other_methods_are_for_the_guard_to_refuse(method):
    sent, handed_on = answered(scope_of(method))
    assert (sent, len(handed_on)) == ([], 1)


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_not_http_is_handed_on(kind):
    sent, handed_on = answered({"type": kind, "raw_path": b"/health"})
    assert (sent, len(handed_on)) == ([], 1)
