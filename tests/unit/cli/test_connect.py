"""The lines for a tenant: complete, copyable, for every way of access, and without a key."""

from __future__ import annotations

import ast
import shlex

import pytest

from gateway.cli.connect import LOCAL_URL, NO_ENGINE_FACE, PLACEHOLDER, parse_base, ways_for
from gateway.identity.tokens import TOKEN_PATTERN
from gateway.model.errors import BadNameError

URL = "https://models.example/gate"


def ways(url=URL, *, has_engine_face=True):
    found = ways_for("acme", parse_base(url), has_engine_face=has_engine_face)
    return {way.name: way for way in found}


def exports(way):
    words = [shlex.split(line, comments=True) for line in way.lines]
    return dict(word.split("=", 1) for line in words if line[:1] == ["export"] for word in line[1:])


def test_every_way_is_there_with_the_gateways_url(command_json):
    status, document = command_json("connect", "--tenant", "acme", "--url", URL + "/")
    assert (status, document["url"]) == (0, URL)
    names = [way["name"] for way in document["ways"]]
    assert names == ["api-host", "secure-gateway", "curl", "httpx", "requests"]
    assert all(URL in "\n".join(way["lines"]) for way in document["ways"])


@pytest.mark.parametrize(
    ("name", "variable"), [("api-host", "ROBOFLOW_API_HOST"), ("secure-gateway", "SECURE_GATEWAY")]
)
def test_an_engine_gets_a_cache_of_its_own_and_asks_every_time(name, variable):
    assert exports(ways()[name]) == {
        variable: URL,
        "ROBOFLOW_API_KEY": PLACEHOLDER,
        "INFERENCE_HOME": "$HOME/.cache/inference-acme",
        "AUTO_LOADER_CACHE_EXPIRATION_MINUTES": "0",
    }


@pytest.mark.parametrize("name", ["httpx", "requests"])
def test_the_lines_for_python_are_python(name):
    ast.parse("\n".join(ways()[name].lines))


def test_the_public_url_is_the_one_that_is_meant(command_json, monkeypatch):
    assert command_json("connect", "--tenant", "acme")[1]["url"] == LOCAL_URL
    monkeypatch.setenv("CACHEGATE_PUBLIC_URL", URL)
    assert command_json("connect", "--tenant", "acme")[1]["url"] == URL
    assert command_json("connect", "--tenant", "acme", "--url", "https://other.example")[1]["url"] != URL


def test_what_people_read_is_what_scripts_read(command, command_json):
    _, printed, _ = command("connect", "--tenant", "acme", "--url", URL)
    _, document = command_json("connect", "--tenant", "acme", "--url", URL)
    lines = [line for way in document["ways"] for line in way["lines"]]
    assert set(lines) <= set(printed.splitlines())


def test_no_key_is_printed(command, installed):
    import re  # noqa: PLC0415

    _, printed, said = command("connect", "--tenant", "acme")
    assert not re.search(TOKEN_PATTERN, printed + said)
    assert not any(key.token in printed + said for key in installed.world.keys.values())


@pytest.mark.parametrize(
    ("url", "is_noted"),
    [
        ("https://models.example", False),
        ("http://127.0.0.1:8080", False),
        ("http://localhost:8080", False),
        ("http://models.example", True),
    ],
)
def test_a_url_that_the_engine_would_refuse_as_secure_gateway_is_noted(url, is_noted):
    assert (ways(url)["secure-gateway"].note is not None) is is_noted
    assert ways(url)["api-host"].note is None


@pytest.mark.parametrize("arguments", [(), ("--url", URL)])
def test_without_a_public_url_the_ways_of_the_engine_say_that_there_is_no_face_for_it(
    arguments, command, command_json, monkeypatch
):
    def noted():
        document = command_json("connect", "--tenant", "acme", *arguments)[1]
        return {way["name"] for way in document["ways"] if NO_ENGINE_FACE in (way["note"] or "")}

    assert noted() == {"api-host", "secure-gateway"}
    assert command("connect", "--tenant", "acme", *arguments)[2].count("CACHEGATE_PUBLIC_URL") == 2
    monkeypatch.setenv("CACHEGATE_PUBLIC_URL", URL)
    assert noted() == set()


def test_a_way_that_misses_two_things_says_both():
    note = ways("http://models.example", has_engine_face=False)["secure-gateway"].note
    assert NO_ENGINE_FACE in note
    assert "TLS" in note


@pytest.mark.parametrize(
    "url", ["models.example", "ftp://x", "https://u@x", "https://x?a=b", "https://x#a", "https://x/$(id)|"]
)
def test_what_is_no_base_for_our_routes_is_a_usage_error(command, url):
    with pytest.raises(BadNameError):
        parse_base(url)
    assert command("connect", "--tenant", "acme", "--url", url)[0] == 2


def test_a_url_cannot_break_out_of_its_line():
    way = ways("https://models.example/a'b;$(id)")["api-host"]
    assert exports(way)["ROBOFLOW_API_HOST"] == "https://models.example/a'b;$(id)"
    ast.parse("\n".join(ways("https://models.example/a'b;$(id)")["httpx"].lines))


def test_a_tenant_that_is_not_there_has_no_lines(command):
    assert command("connect", "--tenant", "nobody")[0] == 1
