"""A record in Redis that does not parse denies, is reported to the operator, and affects nothing else (I1).

Half a dump was restored, a newer version wrote an unknown form, an operator made a mistake. Wherever it is,
nothing is allowed because of it, and the answer is the usual one for that resource.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from functools import partial

import pytest

from gateway.directory.edits.models import publish
from gateway.directory.records import names
from gateway.model.names import Pattern, parse_model_id, parse_pattern, parse_tenant_id

MODEL = parse_model_id("acme/cars/1")
ACME = parse_tenant_id("acme")


def damaged(raw: bytes) -> dict[str, bytes]:
    """What a record can become by accident."""
    return {
        "nothing": b"",
        "half of it": raw[: len(raw) // 2],
        "all but its last byte": raw[:-1],
        "more than it": raw + raw,
        "one bit in it": bytes([raw[0] ^ 0x40]) + raw[1:],
        "text": b"none",
        "JSON": b'{"owner": "acme", "visibility": "public", "is_suspended": false}',
        "never MessagePack": b"\xc1" * 40,
        "an endless array": b"\xdd\xff\xff\xff\xff",
        "deeply nested": b"\x91" * 5000,
    }


@pytest.fixture(scope="module")
def broken_site(furnished_site):
    """A served site, with a way to put bytes in the place of a record and to put back what was there."""
    site = furnished_site
    # A key whose record cannot be read is an unknown key; each refusal has to get a record all the same.
    site.installation.environment["CACHEGATE_AUDIT_REFUSALS_PER_SECOND"] = "10000"
    gateway = site.installation.serve()
    client = site.installation.redis()

    @contextmanager
    def holding(name, raw):
        was = client.get(name)
        client.set(name, raw)
        try:
            yield
        finally:
            if was is None:
                client.delete(name)
            else:
                client.set(name, was)

    yield site, gateway, client, holding
    client.close()
    gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()


def key_name(client):
    """The record of the tenant's only key: the one under `k:` that is not the admin's."""
    found = [name for name in client.scan_iter(names.FACTS + b"k:*") if b"acme" in client.get(name)]
    assert len(found) == 1
    return found[0]


def unreadable(gateway):
    return gateway.metrics()["cachegate_unreadable_facts_total"]


PLACES = {
    # Where it is broken: its name, a path that stands on it, the status, the recorded reason.
    "key": (None, "<small>", 401, "unreadable-key"),
    "tenant": (names.tenant_fact(ACME), "<small>", 401, "unreadable-key"),
    "grants": (names.grants_fact(ACME), "<small>", 404, "unreadable-fact"),
    "rule of the model": (names.rule_fact(Pattern("acme/cars/1")), "<small>", 404, "unreadable-fact"),
    "rule of a prefix": (names.rule_fact(parse_pattern("acme/*")), "<small>", 404, "unreadable-fact"),
    "alias": (names.alias_fact(parse_model_id("cars")), "<alias>", 404, "unreadable-fact"),
    "an alias where a model is": (names.alias_fact(MODEL), "<small>", 404, "unreadable-fact"),
    "policy": (names.POLICY, "<small>", 503, "no-policy"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_record_that_does_not_parse_denies_wherever_it_lies(place, broken_site, paths):
    site, gateway, client, holding = broken_site
    name, path, status, reason = PLACES[place]
    name = key_name(client) if name is None else name
    path = path.replace("<small>", paths.small).replace("<alias>", paths.alias)
    if place == "grants":  # without grants the tenant has no such record: make what can break
        site.installation.run("grants", "add", "--tenant", "acme", "--models", "other/*")
    assert gateway.wire.get(path, site.token).body == paths.content
    whole = client.get(name) or b"\x92\x01\xa4acme"
    for what, raw in damaged(whole).items():
        before = unreadable(gateway)
        with holding(name, raw):
            answer = gateway.wire.get(path, site.token)
            assert answer.status == status, what
            assert unreadable(gateway) > before, what
            [record] = site.records("decision", id=answer.record_id)
            assert (record["decision"], record["reason"]) == ("deny", reason), what
        assert gateway.wire.get(path, site.token).body == paths.content, what
    told = gateway.log()
    assert "a record in Redis does not parse and denies" in told
    assert gateway.metrics()["cachegate_defects_total"] == 0


def test_a_broken_record_answers_as_what_is_hidden(broken_site, paths):
    site, gateway, _, holding = broken_site
    hidden = gateway.wire.get("/v1/models/nobody/nothing/0", site.token)
    with holding(names.rule_fact(parse_pattern("acme/*")), b"\xc1"):
        assert gateway.wire.get(paths.small, site.token).comparable() == hidden.comparable()
    stranger = gateway.wire.get(paths.small)
    with holding(names.tenant_fact(ACME), b"\xc1"):
        assert gateway.wire.get(paths.small, site.token).comparable() == stranger.comparable()


def test_a_broken_record_does_not_touch_what_does_not_stand_on_it(broken_site, paths):
    site, gateway, _, holding = broken_site
    with holding(names.alias_fact(parse_model_id("cars")), b"\xc1"):
        assert gateway.wire.get(paths.small, site.token).body == paths.content
    with holding(names.rule_fact(parse_pattern("globex/*")), b"\xc1"):
        assert gateway.wire.get(paths.small, site.token).body == paths.content
        # A listing shows what can be read and leaves out what cannot.
        shown = gateway.wire.get("/v1/models", site.token).json()["models"]
        assert [one["id"] for one in shown] == [MODEL]


def test_a_record_that_was_moved_to_another_name_says_nothing_there(broken_site, paths):
    site, gateway, client, holding = broken_site

    async def open_other(session):
        await session.perform("models.publish", partial(publish, patterns=[parse_pattern("open/*")]))

    site.installation.in_session(open_other)
    public = client.get(names.rule_fact(parse_pattern("open/*")))
    with holding(names.rule_fact(Pattern("acme/cars/1")), public):
        assert gateway.wire.get(paths.small, site.token).status == 404
    alias = client.get(names.alias_fact(parse_model_id("cars")))
    with holding(names.alias_fact(parse_model_id("vans")), alias):
        vans = gateway.wire.get(paths.alias.replace("cars", "vans", 1), site.token)
        assert vans.status == 404


@pytest.mark.slow
def test_a_worker_that_finds_the_rules_spoilt_decides_nothing_by_them(broken_site, paths, eventually):
    site, gateway, client, holding = broken_site
    [text] = client.scan_iter(names.FACTS + b"x:*")
    [worker] = gateway.worker_pids()
    for raw in (b"", b"\xc1", client.get(text)[:-1], client.get(text).replace(b"permit", b"forbid")):
        with holding(text, raw):
            # A new worker has never seen the texts, and does not take others under their name.
            os.kill(worker, signal.SIGKILL)
            [worker] = eventually(
                lambda old=worker: [pid for pid in gateway.worker_pids() if pid != old], seconds=20
            )
            answer = eventually(lambda: answer_of(gateway, paths.small, site.token))
            assert answer.status == 503
            assert not gateway.is_ready()
        eventually(lambda: gateway.wire.get(paths.small, site.token).status == 200)
        eventually(gateway.is_ready)


def answer_of(gateway, path, token):
    try:
        return gateway.wire.get(path, token)
    except OSError:
        return None
