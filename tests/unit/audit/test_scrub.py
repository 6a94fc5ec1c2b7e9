"""Text written by a client, after scrubbing."""

from __future__ import annotations

import pytest

from gateway.audit.scrub import (
    MAX_AGENT_CHARACTERS,
    REMOVED,
    clean_agent,
    clean_client,
    clean_method,
    clean_name,
    clean_trace_id,
    source_of,
)


@pytest.mark.parametrize(
    "agent",
    [
        b"curl/8.5.0",
        b"python-requests/2.31.0",
        b"inference-models/0.18.2 (linux; x86_64)",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
    ],
)
def test_ordinary_user_agents_stay_as_they_are(agent):
    assert clean_agent(agent) == agent.decode()


@pytest.mark.parametrize(
    ("agent", "secret"),
    [
        (b"curl/8 cg_live_abc", "live_abc"),
        (b"curl/8 CG_LIVE_abc", "LIVE_abc"),
        (b"x=cg_live_0123456789abcdefghijklmn123456;", "0123"),
        (b"tool/1 0123456789abcdefghijklmn", "0123456789"),
        (b"loader/1.0 (R0bKeyOf16Signs0)", "R0bKey"),
        (b"loader/1.0 (R0bKeyOf20Characters)", "R0bKey"),
        (b"loader/1.0 (lettersofakeyalone)", "letters"),
        (b"tool/1 550e8400-e29b-41d4-a716-446655440000", "550e"),
        (b"tool/1 sig=short", "short"),
        (b"tool/1 (eyJhbGciOiJFZERTQSJ9aaaaaa.eyJzdWIi.c2lnbmF0dXJl)", "c2ln"),
        (b"tool/1 api_key=short", "short"),
        (b"tool/1 Bearer hunter2", "hunter2"),
        (b"tool/1 password: hunter2", "hunter2"),
        (b"a" * 10 + b" " + b"b" * 5000, "bbb"),
    ],
)
def test_what_looks_like_a_key_is_removed(agent, secret):
    cleaned = clean_agent(agent)
    assert secret not in cleaned
    assert REMOVED in cleaned


@pytest.mark.parametrize("padding", range(150, 230))
def test_cutting_a_long_agent_never_leaves_a_piece_of_a_key(padding):
    agent = b"a " * (padding // 2) + b"0123456789ABCDEFGHIJKLMNOPQR"
    assert "0123" not in clean_agent(agent)


@pytest.mark.parametrize("padding", [990, 1000, 1010, 1020, 1023, 1024])
def test_the_bound_on_raw_agents_never_leaves_a_piece_of_a_key(padding):
    assert "0123" not in clean_agent(b"(" * padding + b"0123456789ABCDEFGHIJKLMNOPQR")


def test_an_agent_is_one_printable_line_of_bounded_length():
    cleaned = clean_agent(b'evil\r\n{"kind":"head"}\x1b[31m\xff ' * 40)
    assert cleaned.isascii()
    assert cleaned.isprintable()
    assert len(cleaned) <= MAX_AGENT_CHARACTERS


def test_a_method_is_one_of_http_or_other():
    assert clean_method("HEAD") == "HEAD"
    assert clean_method("cg_live_x") == "OTHER"


def test_a_name_loses_our_keys_and_nothing_else():
    assert clean_name("acme/yolo_v8-0123456789abcdefghijklmnop") == "acme/yolo_v8-0123456789abcdefghijklmnop"
    assert clean_name("acme/cg_live_abcDEF/7") == f"acme/{REMOVED}/7"


def test_a_name_loses_access_tokens():
    token = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJlLWlzLWxvbmc"
    assert clean_name(f"acme/{token}/7") == f"acme/{REMOVED}/7"
    assert clean_name("acme/eyJ-v2.onnx") == "acme/eyJ-v2.onnx"


@pytest.mark.parametrize("name", ["acme/api_key=hunter2/7", "acme/token=hunter2", "acme/SIG=hunter2&x"])
def test_a_name_loses_what_is_announced_as_a_key(name):
    assert "hunter2" not in clean_name(name)
    assert clean_name("acme/a=b/7") == "acme/a=b/7"


def test_a_trace_id_is_a_trace_id_or_nothing():
    assert clean_trace_id("0af7651916cd43dd8448eb211c80319c") is not None
    assert clean_trace_id("not-a-trace-id") is None
    assert clean_trace_id(None) is None


@pytest.mark.parametrize(
    ("client", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
        ("unix", "unknown"),
    ],
)
def test_a_source_is_an_address_or_an_ipv6_network(client, source):
    assert source_of(client) == source


def test_a_client_is_an_address_or_unknown():
    assert clean_client("2001:db8::1") == "2001:db8::1"
    assert clean_client("cg_live_x") == "unknown"
