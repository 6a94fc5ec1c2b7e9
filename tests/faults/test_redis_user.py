"""The gateway as a Redis user with only the documented rights, and the messages when some are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from tests.conftest import Installation
from tests.unit.adapters.conftest import start_tcp_valkey

DOCUMENT = (Path(__file__).parents[2] / "docs/operators/redis.md").read_text()
[RULES] = re.findall(r"^ACL SETUSER cachegate on '>PASSWORD' (.*)$", DOCUMENT, re.MULTILINE)
PASSWORD, ENCODED = "p@ss/w:rd?#%", "p%40ss%2Fw%3Ard%3F%23%25"
[SELECT] = re.findall(r"A numbered database takes `(\+[a-z]+)` as well", DOCUMENT)
PATH = "/v1/models/acme/cars/1/-/pkgA1/small.bin"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    server = start_tcp_valkey(folder, "appendonly yes", "appendfsync always")
    server.set_user("cachegate", "on", f">{PASSWORD}", *RULES.replace("'", "").split())
    server.set_user("default", "off")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def fresh(tmp_path):
    """An installation before `init`, with a Redis of its own still to be named."""
    (tmp_path / "cache").mkdir()
    return Installation(tmp_path)


@pytest.fixture
def as_user(fresh, server):
    fresh.environment["CACHEGATE_REDIS_URL"] = f"redis://cachegate:{ENCODED}@127.0.0.1:{server.port}/0"
    return fresh


@pytest.mark.timeout(400)
def test_with_the_documented_rights_everything_works(as_user, serve):
    files = {"small.bin": b"small\n"}
    write_sample_cache(as_user.cache_root, [SampleModel(model_id="acme/cars/1", packages={"pkgA1": files})])
    as_user.init()
    as_user.run("tenants", "create", "acme")
    as_user.run("models", "own", "acme", "acme/*")
    as_user.run("grants", "add", "--tenant", "acme", "--models", "globex/*")
    made = as_user.json("keys", "create", "--tenant", "acme")
    gateway = serve(as_user)
    for _ in range(3):
        answer = gateway.wire.get(PATH, made["token"])
        assert (answer.status, answer.body) == (200, b"small\n")
    for command in (
        ("cache", "verify"), ("cache", "status"), ("keys", "list"), ("models", "list"), ("policy", "diff"),
        ("directory", "show"), ("directory", "export", "facts.jsonl"), ("directory", "import", "facts.jsonl"),
        ("explain", "--key-id", made["key_id"], "--model", "acme/cars/1"), ("connect", "--tenant", "acme"),
    ):  # fmt: skip
        as_user.run(*command)
    revoked = as_user.json("keys", "revoke", made["key_id"])
    assert (revoked["workers"], revoked.get("is_sure", True)) == (1, True)
    assert gateway.wire.get(PATH, made["token"]).status == 401
    found = {one["name"]: one for one in as_user.json("doctor", status=None)["checks"]}
    assert found["redis server"]["status"] == "ok", found["redis server"]


def test_with_what_a_numbered_database_takes_as_well_everything_works_there(fresh, server, serve):
    server.set_user("cachegate", SELECT)
    fresh.environment["CACHEGATE_REDIS_URL"] = f"redis://cachegate:{ENCODED}@127.0.0.1:{server.port}/5"
    fresh.init()
    fresh.run("tenants", "create", "acme")
    made = fresh.json("keys", "create", "--tenant", "acme")
    gateway = serve(fresh)
    assert gateway.wire.get("/v1/whoami", made["token"]).status == 200
    revoked = fresh.json("keys", "revoke", made["key_id"])
    assert (revoked["workers"], revoked["sure"]) == (1, True)
    assert gateway.wire.get("/v1/whoami", made["token"]).status == 401


def test_without_the_right_to_a_numbered_database_the_command_names_it(fresh, server):
    fresh.environment["CACHEGATE_REDIS_URL"] = f"redis://cachegate:{ENCODED}@127.0.0.1:{server.port}/5"
    assert SELECT in fresh.run("init", status=3).stderr


@pytest.mark.parametrize("right", ["eval", "client|tracking"])
def test_what_only_a_worker_needs_stops_the_start_and_doctor_says_the_same(as_user, server, right):
    as_user.init()
    server.set_user("cachegate", f"-{right}")
    done = as_user.run("serve", "--port", "0", "--ops-port", "0", "--admin-port", "0", status=3)
    rule = f"ACL SETUSER <user> +{right}`"
    assert rule in " ".join(done.stderr.split())
    [found] = [one for one in as_user.json("doctor", status=1)["checks"] if one["name"] == "redis server"]
    assert (found["status"], rule in found["advice"]) == ("fail", True)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["resetpass", ">another"], "ACL GETUSER"),
        (["off"], "ACL GETUSER"),
        (["-hmget"], "+hmget`"),
        (["resetkeys"], "~{cachegate}:*`"),
    ],
    ids=["another password", "user off", "a right", "the keys"],
)
def test_commands_start_and_doctor_say_the_same_of_what_is_refused(as_user, server, rules, words):
    as_user.init()
    server.set_user("cachegate", *rules)
    said = {
        " ".join(as_user.run(*command, status=3).stderr.split()).removeprefix("cachegate: ")
        for command in (
            ("keys", "list"),
            ("directory", "show"),
            ("serve", "--port", "0", "--ops-port", "0", "--admin-port", "0"),
        )
    }
    [found] = [one for one in as_user.json("doctor", status=1)["checks"] if one["name"] == "redis"]
    said.add(" ".join(found["found"].split()))
    assert len(said) == 1, said
    assert words in said.pop()


def test_no_password_is_in_what_is_said(as_user, server):
    as_user.init()
    server.set_user("cachegate", "off")
    done = as_user.run("keys", "list", status=3)
    for secret in (PASSWORD, ENCODED, "p@ss", "p%40ss"):
        assert secret not in done.stderr + done.stdout


@pytest.mark.parametrize("url", ["redis://cachegate:p@ss/w@127.0.0.1:{}/0", "redis://:12/p@ss@127.0.0.1:{}"])
def test_a_password_that_is_not_encoded_is_met_with_an_example_and_not_shown(fresh, url):
    fresh.init()
    fresh.environment["CACHEGATE_REDIS_URL"] = url.format(6379)
    for command in (
        ("init",),
        ("keys", "list"),
        ("serve", "--port", "0", "--ops-port", "0", "--admin-port", "0"),
        ("directory", "show"),
    ):
        said = fresh.run(*command, status=2).stderr
        assert "p%40ss%2Fword" in said
        assert "p@ss" not in said
    doctor = fresh.run("doctor", "--json", status=1)
    assert "p%40ss%2Fword" in doctor.stdout
    assert "p@ss" not in doctor.stdout + doctor.stderr
