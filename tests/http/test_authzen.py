"""The AuthZEN face over real sockets: the standard's scenarios, and that a yes is what a read is answered."""

from __future__ import annotations

import json
import random
import threading
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.directory.records import names
from gateway.model.names import KeyId, TenantId
from tests.conftest import request_bytes, wait_until

CASES = tomllib.loads((Path(__file__).parents[1] / "cases" / "authzen.toml").read_text())
DISCOVERY = [one for one in CASES["case"] if one["level"] == "discovery"]
ASKED = [one for one in CASES["case"] if one["level"] != "discovery"]
ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
METADATA = "/.well-known/authzen-configuration"
PUBLIC_URL = "https://models.example/gw"
NOBODY = "key_000000000000"
INDEX, TENANT = names.key_digest(KeyId(NOBODY))[0].decode()[:-2], names.tenant_fact(TenantId("acme")).decode()


@dataclass
class Site:
    """A world with somebody who asks for the operator, and one who asks for acme."""

    world: Any
    operator: str
    acme: str

    @property
    def wire(self):
        return self.world.gateway.wire

    @property
    def installation(self):
        return self.world.installation

    def key_id(self, name):
        return self.world.callers[name].key_id

    def post(self, path, body, key, *headers, content_type="application/json"):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lengths = (("Content-Type", content_type), ("Content-Length", str(len(raw))), *headers)
        return self.wire.send(request_bytes("POST", path, key, lengths, is_last=True) + raw)

    def ask(self, subject, action, resource, *, key=None, **context):
        """The decision on one question."""
        body = {"subject": subject, "action": {"name": action}, "resource": resource, "context": context}
        answer = self.post(ONE, body, key or self.operator)
        assert answer.status == 200, answer.body
        return answer.json()["decision"]

    def ask_all(self, items, key=None, **defaults):
        """The decisions on any number of questions."""
        found = []
        for start in range(0, len(items), 100):
            batch = items[start : start + 100]
            answer = self.post(MANY, {**defaults, "evaluations": batch}, key or self.operator)
            assert answer.status == 200, answer.body
            assert all("context" not in one for one in answer.json()["evaluations"]), answer.body
            found += [one["decision"] for one in answer.json()["evaluations"]]
        return found

    def records_of(self, answer):
        """The record of the request, and those of its questions in order."""
        records = self.installation.records()
        [record] = [one for one in records if one["id"] == answer.record_id]
        return record, [one for one in records if one.get("ask_id") == answer.record_id]


@pytest.fixture(scope="module")
def site(build_world):
    for world in build_world(
        "authzen",
        workers=1,
        CACHEGATE_PUBLIC_URL=PUBLIC_URL,
        CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000",
        CACHEGATE_PIN_IN_BACKGROUND="on",
    ):
        create = ("keys", "create", "--scopes", "decisions:ask")
        operator, acme = (
            world.installation.json(*create, *whose)["token"] for whose in (["--admin"], ["--tenant", "acme"])
        )
        yield Site(world, operator, acme)
        world.installation.verify_audit()


def key(site, name):
    return {"type": "key", "id": site.key_id(name)}


def tenant(name):
    return {"type": "tenant", "id": name}


def resource(model, package=None, file=None):
    if package is None:
        return {"type": "model", "id": model}
    if file is None:
        return {"type": "package", "id": package, "properties": {"model": model}}
    return {"type": "file", "id": file, "properties": {"model": model, "package": package}}


def path_of(model, package=None, file=None):
    tail = "".join([f"/-/{package}" if package else "", f"/{file}" if file else ""])
    return f"/v1/models/{model}{tail}"


# --- the scenarios


def expanded(value, site):
    """A body with the entities of the fixture in the place of their names."""
    if isinstance(value, str) and value.startswith("$"):
        return expanded(CASES["fixture"][value[1:]], site)
    if isinstance(value, str) and value.startswith("key of "):
        return site.key_id(value.removeprefix("key of "))
    if isinstance(value, dict):
        return {name: expanded(one, site) for name, one in value.items()}
    if isinstance(value, list):
        return [expanded(one, site) for one in value]
    return value


@pytest.mark.parametrize(
    "case", ASKED, ids=[f"{one['level']} {one['section']}: {one['what']}" for one in ASKED]
)
def test_a_scenario_of_the_certification_has_its_answer(case, site):
    if "raw" in case:
        body = case["raw"].encode()
    else:
        body = expanded(case["body"], site) | ({"context": case["context"]} if "context" in case else {})
    path = MANY if case.get("path") == "evaluations" else ONE
    kind = case.get("content_type", "application/json")
    answer = site.post(path, body, site.operator, ("X-Request-ID", "bfe9-29"), content_type=kind)
    assert answer.status == case.get("status", 200), answer.body
    assert answer.header("x-request-id") == "bfe9-29"
    if answer.status != 200:
        return
    assert answer.header("content-type") == "application/json"
    document = answer.json()
    found = document["evaluations"] if "decisions" in case else [document]
    assert [one["decision"] for one in found] == case.get("decisions", [case.get("decision")])
    assert ("evaluations" in document) != ("decision" in document)
    errors = [place for place, one in enumerate(found) if "context" in one]
    assert errors == case.get("errors", [])
    assert all(found[place]["context"]["error"]["status"] == 400 for place in errors)


def test_the_cases_have_every_level_that_is_answered():
    assert {one["level"] for one in CASES["case"]} == {
        *("basic", "basic properties", "batch", "batch properties", "discovery", "ours")
    }


def test_the_same_question_has_the_same_answer_each_time(site):
    subject, asked = key(site, "acme"), resource("acme/cars/1")
    assert {site.ask(subject, "read", asked) for _ in range(5)} == {True}


def test_a_request_without_an_id_is_answered_without_one(site):
    answer = site.post(ONE, {}, site.operator)
    assert (answer.status, answer.header("x-request-id")) == (400, None)


@pytest.mark.parametrize("key_of", ["nobody", "unknown", "acme", "operator"])
def test_the_request_id_comes_back_with_every_answer(key_of, site):
    token = site.operator if key_of == "operator" else site.world.callers[key_of].token
    for path, method in ((ONE, "POST"), (MANY, "POST"), (ONE, "GET"), (MANY, "DELETE")):
        headers = (("X-Request-ID", "a/b=c.~!"), ("Content-Length", "0"))
        answer = site.wire.request(method, path, token, headers)
        assert answer.header("x-request-id") == "a/b=c.~!", (path, method, answer)
        assert answer.status in {400, 401, 403, 405}


@pytest.mark.parametrize("given", [("x" * 129,), ("a b",), ("\xe9",), ("one", "two"), ("",)])
def test_a_request_id_that_is_no_plain_id_is_not_sent_back(given, site):
    answer = site.post(ONE, {}, site.operator, *(("X-Request-ID", one) for one in given))
    assert (answer.status, answer.header("x-request-id")) == (400, None)


@pytest.mark.parametrize("case", DISCOVERY, ids=[f"{one['section']}: {one['what']}" for one in DISCOVERY])
def test_a_scenario_of_discovery_has_its_answer(case, site):
    for answer in (site.wire.get(case["path"]), site.wire.get(case["path"], site.operator)):
        assert answer.status == case.get("status", 200)
        if answer.status == 200:
            assert answer.header("content-type") == "application/json"
            members = {name: text.replace("$base", PUBLIC_URL) for name, text in case["members"].items()}
            assert answer.json() == members
            assert all(text.startswith("https://") for text in members.values())
    assert site.wire.head(case["path"]).status == case.get("status", 200)


def test_without_an_https_url_the_metadata_is_no_route(world):
    """Two workers that were given no public URL: `world` is the one of all HTTP tests."""
    shown = world.wire.get(METADATA, world.token("acme"))
    nowhere = world.wire.get("/.well-known/nothing-at-all", world.token("acme"))
    assert shown.status == 404
    assert shown.comparable() == nowhere.comparable()


# --- a yes is what a read is answered


def everything(facts):
    """All models, packages and files, each with one beside it that is not there."""
    for model in (*facts.cache, *facts.aliases, "nobody/nothing/0"):
        yield (model,)
        packages = facts.cache.get(facts.aliases.get(model, model), {})
        for package, files in {**packages, "pkgNone": {}}.items():
            yield model, package
            yield from ((model, package, file) for file in (*files, "none.bin"))


def read_as(talk, caller, named):
    """Whether a request of this caller for this model, package or file is answered."""
    return talk.get(path_of(*named), headers=caller.headers).status == 200


def own_action(named):
    """The action of the route that reads it."""
    return "read" if len(named) == 3 else "discover"


def test_a_yes_is_what_the_read_itself_is_answered(site, facts):
    """Every key with everything: valid, revoked, expired, bound to networks, of all tenants."""
    named = list(everything(facts))
    callers = [one for one in site.world.callers.values() if one.key_id and one.header == "authorization"]
    differing, yes = [], 0
    with site.wire.talk() as talk:
        for caller in callers:
            items = [{"action": {"name": own_action(one)}, "resource": resource(*one)} for one in named]
            subject = {"type": "key", "id": caller.key_id}
            answers = site.ask_all(items, subject=subject, context={"ip": "127.0.0.1"})
            for one, answer in zip(named, answers, strict=True):
                if answer != read_as(talk, caller, one):
                    differing.append((caller.name, one, answer))
            yes += sum(answers)
    assert differing == []
    assert 100 < yes < len(callers) * len(named)


def test_what_is_not_a_read_is_decided_by_the_same_rights(site, facts):
    """Discovery of files, reading of models and packages, and running: against the table of rights."""
    asked, expected = [], []
    callers = [site.world.callers[name] for name in ("acme", "globex", "hooli", "acme reads only")]
    there = [one for one in everything(facts) if read_as_owner(one, facts)]
    for caller in callers:
        for named in there:
            for letter, action in (("d", "discover"), ("r", "read"), ("i", "infer")):
                subject = {"type": "key", "id": caller.key_id}
                asked.append({"subject": subject, "action": {"name": action}, "resource": resource(*named)})
                model, *below = named
                if letter == "i":
                    expected.append(not below and caller.may("i", model))
                elif below:
                    expected.append(caller.may(letter, model, below[0]))
                else:
                    # A model that is narrowed to packages is shown, and it is read by its packages alone.
                    whole = "*" in facts.rights[caller.tenant].get(model, {})
                    expected.append(caller.may(letter, model) and (whole or letter == "d"))
    found = site.ask_all(asked)
    assert [one for one in zip(asked, found, expected, strict=True) if one[1] != one[2]] == []
    assert 50 < sum(found) < len(found)


def read_as_owner(named, facts):
    """Whether it is on disk as it should be: then rights alone decide."""
    model, *below = named
    packages = facts.cache.get(facts.aliases.get(model, model), {})
    if not packages or (below and below[0] not in packages):
        return False
    return len(below) < 2 or (below[1] in packages[below[0]] and (*named,) not in facts.unservable)


def test_a_yes_is_what_the_read_itself_is_answered_over_random_cases(site, facts):
    """Names that exist, put together at random, and hostile ones; of keys and of people who have none."""
    chance = random.Random(20261130)
    models = [
        *facts.cache,
        *facts.aliases,
        "acme",
        "nobody/0",
        "acme/cars/1/",
        "acme/../acme/cars/1",
        "*",
        "é/1",
    ]
    packages = sorted({one for packages in facts.cache.values() for one in packages})
    packages += ["pkgNone", "CON", "..", "pkg-A1", ""]
    files = [
        "weights.onnx",
        "labels/class_names.txt",
        "notes.txt",
        "bad.bin",
        "..",
        "model_config.json",
        "a\\b",
    ]
    callers = [one for one in site.world.callers.values() if one.key_id and one.header == "authorization"]
    asked, named = [], []
    for _ in range(600):
        one = (chance.choice(models), chance.choice(packages), chance.choice(files))[: chance.randint(1, 3)]
        caller = chance.choice(callers)
        named.append((caller, one))
        asked.append(
            {
                "subject": {"type": "key", "id": caller.key_id},
                "action": {"name": own_action(one)},
                "resource": resource(*one),
            }
        )
    found = site.ask_all(asked, context={"ip": "127.0.0.1"})
    with site.wire.talk() as talk:
        for (caller, one), answer in zip(named, found, strict=True):
            # Only what a path can say in one way is compared by a read; all else is a no.
            is_plain = all(part and part.isascii() and ".." not in part and "\\" not in part for part in one)
            is_plain = is_plain and not one[0].endswith("/") and "*" not in one[0]
            assert answer == (is_plain and read_as(talk, caller, one)), (caller.name, one)
    assert sum(found) > 20


def test_a_tenant_is_asked_about_as_one_of_its_plain_keys(site, facts):
    named = list(everything(facts))
    items = [{"action": {"name": own_action(one)}, "resource": resource(*one)} for one in named]
    for name in ("acme", "globex", "hooli"):
        by_key = site.ask_all(items, subject=key(site, name))
        assert site.ask_all(items, subject=tenant(name)) == by_key
        assert any(by_key)
    assert not any(site.ask_all(items, subject=tenant("initech")))  # suspended
    assert not any(site.ask_all(items, subject=tenant("nobody")))


def test_a_no_longer_true_yes_is_not_said_again(site):
    made = site.installation.json("keys", "create", "--tenant", "acme")
    subject, asked = {"type": "key", "id": made["key_id"]}, resource("acme/cars/1")
    assert site.ask(subject, "read", asked)
    site.installation.run("keys", "revoke", made["key_id"])
    assert not site.ask(subject, "read", asked)
    assert not site.ask(subject, "read", asked, time="2026-01-01T00:00:00Z")


def test_no_yes_that_was_asked_for_after_a_revocation_returned(site):
    """Batches that take a while, from four clients: what moves meanwhile withdraws an answer."""
    made = site.installation.json("keys", "create", "--tenant", "acme")
    items = [{"resource": resource("acme/cars/1", "pkgA1", "weights.onnx")}] * 20
    body = {
        "subject": {"type": "key", "id": made["key_id"]},
        "action": {"name": "read"},
        "evaluations": items,
    }
    seen, is_over = [], threading.Event()

    def ask():
        while not is_over.is_set():
            asked_at = time.monotonic()
            answer = site.post(MANY, body, site.operator)
            decisions = {one["decision"] for one in answer.json().get("evaluations", ())}
            seen.append((asked_at, answer.status, decisions))

    def count(since):
        return sum(asked_at >= since for asked_at, *_ in list(seen))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for one in clients:
        one.start()
    try:
        wait_until(lambda: count(0.0) >= 20)
        site.installation.run("keys", "revoke", made["key_id"])
        returned_at = time.monotonic()
        wait_until(lambda: count(returned_at) >= 20)
    finally:
        is_over.set()
        for one in clients:
            one.join()
    assert {status for _, status, _ in seen} <= {200, 503}
    assert any(True in decisions for *_, decisions in seen)
    # No answer stands on both: the facts of all its items are those of one moment.
    assert all(len(decisions) == 1 for _, status, decisions in seen if status == 200)
    assert not any(True in decisions for asked_at, _, decisions in seen if asked_at >= returned_at)


# --- who may ask about whom


def test_the_caller_needs_the_scope_and_a_valid_key(site):
    body = {"subject": tenant("acme"), "action": {"name": "read"}, "resource": resource("acme/cars/1")}
    for path in (ONE, MANY):
        assert site.post(path, body, None).status == 401
        assert site.post(path, body, site.world.token("acme revoked")).status == 401
        for name in ("acme", "admin"):
            refused = site.post(path, body, site.world.token(name))
            assert (refused.status, refused.json()["type"]) == (403, "urn:cachegate:problem:missing-scope")
            record, questions = site.records_of(refused)
            assert (record["action"], record["reason"], questions) == ("ask", "missing-scope", [])
        assert site.post(path, body, site.acme).status == 200


def test_a_tenant_asks_about_itself_alone_and_all_others_are_as_absent(site):
    asked = resource("acme/open/1")  # public: whoever exists may read it
    assert site.ask(key(site, "acme"), "read", asked, key=site.acme)
    assert site.ask(tenant("acme"), "read", asked, key=site.acme)
    others = [key(site, "globex"), key(site, "hooli"), tenant("globex"), tenant("initech")]
    for subject in others:
        if subject != tenant("initech"):
            assert site.ask(subject, "read", asked)  # the control: the operator is told
    absent = [{"type": "key", "id": NOBODY}, tenant("nobody"), {"type": "key", "id": "no key id"}]
    answers = set()
    for subject in (*others, *absent):
        body = {"subject": subject, "action": {"name": "read"}, "resource": asked}
        answer = site.post(ONE, body, site.acme)
        answers.add(repr(answer.comparable()))
        _, [question] = site.records_of(answer)
        assert question["answer"] == "no"
        assert "model" not in question.get("resource", {})  # nothing was decided
        assert question["reason"] in {"unknown-key", "suspended-tenant", "not-permitted"}
    assert len(answers) == 1


def test_redis_is_asked_the_same_about_a_key_of_others_as_about_one_that_is_nowhere(site):
    client = site.installation.redis()
    seen = []
    with client.monitor() as monitor:
        for name, key_id in (
            ("others", site.key_id("globex")),
            ("nobody", NOBODY),
            ("again", site.key_id("hooli")),
        ):
            client.echo(f"begin {name}")
            assert not site.ask({"type": "key", "id": key_id}, "read", resource("acme/open/1"), key=site.acme)
            client.echo(f"end {name}")
            seen.append(reads_between(monitor, f"ECHO begin {name}", f"ECHO end {name}"))
    client.close()
    assert seen[0] == seen[1] == seen[2] == [("HGET", 2), ("MGET", 2)]


def reads_between(monitor, begin, end):
    """The commands that look for a key: where the index has it, and its record beside that of acme."""
    found, is_begun = [], False
    while (command := monitor.next_command()["command"]) != end:
        word, *asked = command.split()
        is_of_index = word == "HGET" and asked[0].startswith(INDEX)
        if is_begun and (is_of_index or (word == "MGET" and asked[-1] == TENANT)):
            found.append((word, len(asked)))
        is_begun = is_begun or command == begin
    return found


def test_what_a_tenants_key_is_told_of_hidden_models_is_what_it_is_told_of_none(site):
    hidden = ["globex/cars/1", "globex/infer/1", "orphan/model/1", "acme/gone", "globex/best", "nobody/0"]
    for action in ("discover", "read"):
        assert not any(
            site.ask(key(site, "acme"), action, resource(model), key=site.acme) for model in hidden
        )


def test_a_token_that_is_narrowed_asks_within_its_narrowing(site):
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": site.acme,
        "subject_token_type": "urn:cachegate:token-type:api-key",
        "model": "acme/cars/*",
    }
    raw = "&".join(f"{name}={value}" for name, value in form.items()).encode()
    made = site.post("/v1/token", raw, None, content_type="application/x-www-form-urlencoded")
    token = made.json()["access_token"]
    assert site.ask(tenant("acme"), "read", resource("acme/cars/1"), key=token)
    assert not site.ask(tenant("acme"), "read", resource("acme/trucks/2"), key=token)
    assert site.ask(tenant("acme"), "read", resource("acme/trucks/2"), key=site.acme)


# --- the moment and the address are claims


def test_a_key_has_to_be_valid_now_and_then(site):
    made = site.installation.json("keys", "create", "--tenant", "acme", "--expires", "30d")
    subject, asked = {"type": "key", "id": made["key_id"]}, resource("acme/cars/1")
    assert site.ask(subject, "read", asked)
    assert site.ask(subject, "read", asked, time="2026-01-01T00:00:00+01:00")
    assert not site.ask(subject, "read", asked, time="2035-01-01T00:00:00Z")
    # No claim revives what has ended, and none shows what only begins: whatever the time, it is no.
    for name in ("acme expired", "acme not yet", "acme revoked", "acme rotated out"):
        for moment in ("1970-01-01T00:00:00Z", "2026-11-30T12:00:00Z", "2034-01-01T00:00:00Z"):
            assert not site.ask(key(site, name), "read", asked, time=moment)


def test_a_claimed_future_ends_nobodys_key(site):
    """The latest time that a worker has seen is what keys expire by: a question must not move it."""
    made = site.installation.json("keys", "create", "--tenant", "acme", "--expires", "30d")
    subject, asked = {"type": "key", "id": made["key_id"]}, resource("acme/cars/1")
    assert not site.ask(subject, "read", asked, time="2035-01-01T00:00:00Z")
    assert site.ask(key(site, "acme"), "read", asked, time="2035-01-01T00:00:00Z")
    assert site.ask(subject, "read", asked)
    assert site.wire.get("/v1/whoami", made["token"]).status == 200


def test_a_key_that_is_bound_to_networks_is_judged_by_the_address_that_is_claimed(site):
    asked = resource("acme/cars/1")
    outside = key(site, "acme from outside")
    assert site.ask(outside, "read", asked, ip="203.0.113.9")
    assert site.ask(outside, "read", asked, ip="::ffff:203.0.113.9")
    assert not site.ask(outside, "read", asked, ip="127.0.0.1")
    assert not site.ask(outside, "read", asked)


# --- every question is recorded, as one


def test_each_question_is_recorded_as_a_question_and_none_as_a_read(site):
    items = [
        {"resource": resource("acme/cars/1", "pkgA1", "weights.onnx")},
        {"resource": resource("acme-cars")},
        {"resource": resource("globex/cars/1"), "action": {"name": "infer"}},
        {"subject": tenant("acme")},
        {},
    ]
    defaults = {"subject": key(site, "acme"), "action": {"name": "read"}}
    context = {"time": "2026-06-01T12:00:00+02:00", "ip": "198.51.100.7"}
    answer = site.post(MANY, {**defaults, "context": context, "evaluations": items}, site.acme)
    record, questions = site.records_of(answer)
    assert (record["kind"], record["action"], record["decision"]) == ("decision", "ask", "allow")
    assert record["resource"] == {"kind": "self"}
    assert record["request"]["route"] == MANY
    assert [one["kind"] for one in questions] == ["question"] * 5
    assert [one["item"] for one in questions] == list(range(5))
    assert [one["answer"] for one in questions] == ["yes", "yes", "no", "no", "no"]
    assert [one["reason"] for one in questions] == [
        *("permitted", "permitted", "not-permitted", "malformed-body", "malformed-body")
    ]
    first, second, *_ = questions
    assert first["subject"] == {"kind": "key", "id": site.key_id("acme")}
    assert (first["tenant"], first["asked"], first["grant"]) == ("acme", "read", "owner")
    assert first["resource"] == {
        "kind": "file",
        "requested": "acme/cars/1",
        "model": "acme/cars/1",
        "package": "pkgA1",
        "file": "weights.onnx",
    }
    assert (first["moment"], first["address"]) == ("2026-06-01T10:00:00.000000Z", "198.51.100.7")
    assert (second["resource"]["requested"], second["resource"]["model"]) == ("acme-cars", "acme/cars/1")
    assert all("decision" not in one and "decision_id" not in one for one in questions)
    # A report of reads looks for decisions by action: there is none of these names in any.
    reads = [one for one in site.installation.records() if one.get("action") == "read"]
    assert answer.record_id not in {one["id"] for one in reads}
    found = site.installation.run("audit", "search", "--record", answer.record_id, "--json").stdout
    assert [json.loads(line)["kind"] for line in found.splitlines()].count("question") == 5


def test_questions_are_counted_by_their_answers(site, eventually):
    def counted():
        metrics = site.world.gateway.metrics()
        return [metrics.get(f'cachegate_questions_total{{answer="{one}"}}', 0) for one in ("yes", "no")]

    before = counted()
    items = [{"resource": resource(model)} for model in ("acme/cars/1", "acme/trucks/2", "globex/cars/1")]
    assert site.ask_all(items, subject=tenant("acme"), action={"name": "read"}) == [True, True, False]
    eventually(lambda: counted() == [before[0] + 2, before[1] + 1])


def test_a_question_is_no_use_of_the_key_that_it_is_about(site):
    made = site.installation.json("keys", "create", "--tenant", "acme")
    subject = {"type": "key", "id": made["key_id"]}
    assert site.ask(subject, "read", resource("acme/cars/1"))
    shown = site.installation.json("keys", "show", made["key_id"])
    assert shown.get("last_used_at") is None


def test_questions_that_were_left_out_have_no_record(site):
    body = {
        "subject": tenant("acme"),
        "action": {"name": "read"},
        "options": {"evaluations_semantic": "permit_on_first_permit"},
        "evaluations": [{"resource": resource("acme/cars/1")}] * 50,
    }
    answer = site.post(MANY, body, site.operator)
    assert len(site.records_of(answer)[1]) == len(answer.json()["evaluations"]) == 1


def test_no_secret_in_a_question_is_recorded(site):
    token = site.world.token("globex")
    body = {
        "subject": tenant(token),
        "action": {"name": token},
        "resource": {"type": "model", "id": f"x/{token}"},
    }
    items = [
        body,
        {**body, "action": {"name": "read"}},
        {**body, "action": {"name": "read"}, "subject": tenant("acme")},
    ]
    answer = site.post(MANY, {"evaluations": items, "api_key": token}, site.operator, ("X-Request-ID", token))
    assert answer.status == 200
    assert len(site.records_of(answer)[1]) == 3
    assert token not in json.dumps(site.installation.records())
    assert token not in site.world.gateway.log()


# --- bounds


def test_a_request_has_bounds_for_bytes_items_depth_and_containers(site):
    one = {"subject": tenant("acme"), "action": {"name": "read"}, "resource": resource("acme/cars/1")}
    full = site.post(MANY, {**one, "evaluations": [{}] * 100}, site.operator)
    assert [item["decision"] for item in full.json()["evaluations"]] == [True] * 100
    assert site.post(MANY, {**one, "evaluations": [{}] * 101}, site.operator).status == 400
    assert site.post(ONE, {**one, "x": "y" * 65_536}, site.operator).status == 413
    deep = b'{"x":' * 40 + b"1" + b"}" * 40
    assert site.post(ONE, deep, site.operator).status == 400
    many = json.dumps({**one, "x": [[]] * 3000}).encode()
    assert site.post(ONE, many, site.operator).status == 400
    values = json.dumps({**one, "x": [1] * 9000}).encode()
    assert site.post(ONE, values, site.operator).status == 400


def test_a_body_is_not_waited_for_where_the_key_is_refused(site):
    for token, status in ((None, 401), (site.world.token("acme revoked"), 401)):
        head = (("Content-Type", "application/json"), ("Content-Length", "60000"))
        answer = site.wire.send(request_bytes("POST", ONE, token, head, is_last=True))
        assert answer.status == status


def test_a_chunked_body_is_bounded_as_it_comes(site):
    head = (("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"))
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    raw = request_bytes("POST", ONE, site.operator, head, is_last=True) + chunk * 2 + b"0\r\n\r\n"
    assert site.wire.send(raw).status == 413
