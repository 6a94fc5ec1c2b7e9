"""A reply that was on its way while the facts changed is neither used nor remembered (I6).

The proxy holds the reply of one read back until the change has returned, then releases it. A worker learns
of the change over another connection long before. The waiting request gets the new answer, as do later ones,
and no request joins a read that began before the change.
"""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from gateway.directory.edits import grants, keys, models
from gateway.directory.records import names
from gateway.model.names import parse_pattern, parse_tenant_id

ACME = parse_tenant_id("acme")
LENT = [parse_pattern("globex/lent/*")]
SHOWN = [parse_pattern("globex/shown/*")]


@pytest.fixture(scope="module")
def fleet(build_fleet):
    return build_fleet(workers=1, is_remote=True, CACHEGATE_CANARY_SECONDS="0")


@contextmanager
def held_back(fleet, raw, *needles):
    """A request whose read with these names is held back; gives the connection that waits for its answer."""
    connection = fleet.wire.connect()
    with connection, fleet.proxy.holding(b"MGET", *needles):
        connection.sendall(raw)
        assert fleet.proxy.caught.wait(5), "the read was not held back"
        yield connection


def sent_again(fleet, raw):
    connection = fleet.wire.connect()
    connection.sendall(raw)
    time.sleep(0.1)  # the worker has the request, and waits for facts
    return connection


def settled(fleet, raw):
    with fleet.wire.connect() as connection:
        connection.sendall(raw)
        return fleet.wire.read(connection).status


def grant(changes):
    return grants.add_grants(changes, tenant_id=ACME, models=LENT, actions=("read",))


def take_back(changes):
    return grants.remove_grants(changes, tenant_id=ACME, models=LENT)


def test_a_key_that_was_read_before_its_revocation_opens_nothing_after(fleet, tools):
    new = fleet.new_key("late", "acme")
    raw = tools.request_for("/v1/whoami", new.token)
    with held_back(fleet, raw, names.key_fact(new.digest)) as early:
        barrier = fleet.revoke("late").barrier
        assert (barrier.workers, barrier.acknowledged) == (1, 1)
        late = sent_again(fleet, raw)
        fleet.proxy.release()
        assert fleet.wire.read(early).status == tools.nobody
        assert fleet.wire.read(late).status == tools.nobody
        late.close()
    assert settled(fleet, raw) == tools.nobody
    assert fleet.gateway.metrics()['cachegate_near_cache_total{event="overtaken"}'] > 0


def test_an_absence_that_was_read_before_a_key_was_made_refuses_nobody_after(fleet, tools):
    async def work(session):
        return tools.mint(session, "acme")

    new = fleet.installation.in_session(work)
    raw = tools.request_for("/v1/whoami", new.token)
    with held_back(fleet, raw, names.key_fact(new.digest)) as early:
        fleet.change(lambda changes: keys.create_key(changes, key=new.key, digest=new.digest))
        late = sent_again(fleet, raw)
        fleet.proxy.release()
        # A request from before the change may get the old answer; one from after it may not.
        assert fleet.wire.read(early).status in {tools.allowed, tools.nobody}
        assert fleet.wire.read(late).status == tools.allowed
        late.close()
    assert settled(fleet, raw) == tools.allowed


CHANGES = {
    "a grant": (grant, take_back, "lent", names.rule_fact(LENT[0])),
    "a publication": (
        lambda changes: models.publish(changes, patterns=SHOWN),
        lambda changes: models.unpublish(changes, patterns=SHOWN),
        "shown",
        names.rule_fact(SHOWN[0]),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_decision_begun_before_a_right_was_taken_allows_nothing_after(what, fleet, tools):
    give, take, model, needle = CHANGES[what]
    fleet.change(give)
    raw = tools.request_for(tools.path_of(getattr(tools, model)), fleet.tokens["acme"])
    with held_back(fleet, raw, needle) as early:
        fleet.change(take)
        late = sent_again(fleet, raw)
        fleet.proxy.release()
        assert fleet.wire.read(early).status == tools.hidden
        assert fleet.wire.read(late).status == tools.hidden
        late.close()
    assert settled(fleet, raw) == tools.hidden


@pytest.mark.parametrize("what", CHANGES)
def test_a_decision_begun_before_a_right_was_given_denies_nothing_after(what, fleet, tools):
    give, take, model, needle = CHANGES[what]
    fleet.change(give)
    fleet.change(take)  # so that nothing about it is remembered
    raw = tools.request_for(tools.path_of(getattr(tools, model)), fleet.tokens["acme"])
    with held_back(fleet, raw, needle) as early:
        fleet.change(give)
        late = sent_again(fleet, raw)
        fleet.proxy.release()
        assert fleet.wire.read(early).status in {tools.allowed, tools.hidden}
        assert fleet.wire.read(late).status == tools.allowed
        late.close()
    assert settled(fleet, raw) == tools.allowed
    fleet.change(take)


def test_two_callers_with_one_question_do_not_share_a_decision_in_progress(fleet, tools):
    fleet.change(take_back)
    fleet.change(grant)
    path = tools.path_of(tools.lent)
    fleet.wire.get("/v1/whoami", fleet.tokens["umbrella"])
    with held_back(fleet, tools.request_for(path, fleet.tokens["acme"]), names.rule_fact(LENT[0])) as held:
        # umbrella has no right on it: its answer neither waits for acme's nor is acme's.
        assert fleet.wire.get(path, fleet.tokens["umbrella"]).status == tools.hidden
        fleet.proxy.release()
        assert fleet.wire.read(held).status == tools.allowed
    fleet.change(take_back)
