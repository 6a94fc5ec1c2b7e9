"""The hooks, called as the engine calls them: what they allow, what they refuse, and when."""

from __future__ import annotations

import pytest

from gateway.inprocess.access_manager import CachegateAccessManager
from gateway.inprocess.instances import Instances
from gateway.model.access import Action
from gateway.model.errors import Misconfigured, Reason, Unavailable

CARS = "acme/cars/1"


@pytest.fixture
def manager(process, errors):
    return CachegateAccessManager(process, errors=errors)


def routes(installed, count):
    """The hooks that decided, from the latest records."""
    decided = [one for one in installed.records() if one["kind"] == "decision"]
    latest = sorted(decided, key=lambda one: one["id"])[-count:]
    return [(one["request"]["route"].removeprefix("in-process/"), one["decision"]) for one in latest]


def test_a_cold_load_of_the_owner_is_decided_at_every_step(installed, manager, engine):
    assert engine.load(manager, CARS, installed.token("acme")) == f"{CARS}/pkgA1"
    assert routes(installed, 3) == [("load", "allow"), ("package", "allow"), ("loaded", "allow")]


def test_a_load_from_the_cache_is_decided_about_its_package(installed, manager, engine):
    engine.cached = "pkgA1"
    engine.load(manager, CARS, installed.token("acme"))
    assert engine.events == ["from cache"]
    assert routes(installed, 2) == [("load", "allow"), ("cached", "allow")]


@pytest.mark.parametrize("model", ["globex/cars/1", "nobodys/1", "../x", "/etc/passwd", "gateway"])
def test_not_yours_and_not_there_and_a_path_are_one_answer_before_anything_happens(
    installed, manager, engine, errors, model
):
    with pytest.raises(errors.not_found) as refusal:
        engine.load(manager, model, installed.token("acme"))
    assert str(refusal.value) == "There is no such model that this key may know of."
    assert engine.events == []


@pytest.mark.parametrize("key", [None, "", "local", "cg_demo_nonsense", "a\udc80"])
def test_nobody_is_unauthorised_for_public_models_too(manager, engine, errors, key):
    with pytest.raises(errors.unauthorized):
        engine.load(manager, "public/demo/1", key)
    assert engine.events == []


@pytest.mark.parametrize("name", ["acme-revoked", "acme-expired"])
def test_a_key_that_is_not_valid_is_unauthorised_on_a_warm_cache(installed, manager, engine, errors, name):
    engine.cached = "pkgA1"
    with pytest.raises(errors.unauthorized):
        engine.load(manager, CARS, installed.token(name))


def test_a_key_without_the_scope_is_forbidden(installed, manager, engine, errors):
    with pytest.raises(errors.forbidden):
        engine.load(manager, CARS, installed.token("acme-catalogue"))


def test_the_right_to_read_is_not_the_right_to_use(installed, process, manager, engine, errors):
    token, _ = installed.new_key("initech")
    installed.grant("initech", "globex/cars/1", actions=("read",))
    engine.packages = ("pkgB1",)
    with pytest.raises(errors.forbidden):
        engine.load(manager, "globex/cars/1", token)
    assert "download globex/cars/1/pkgB1" not in engine.events
    reading = CachegateAccessManager(process, errors=errors, action=Action.READ)
    assert engine.load(reading, "globex/cars/1", token) == "globex/cars/1/pkgB1"


def test_an_alias_of_the_provider_opens_nothing_of_others(installed, manager, engine, errors):
    engine.canonical = {"acme/sneaky": "globex/cars/1"}
    with pytest.raises(errors.not_found):
        engine.load(manager, "acme/sneaky", installed.token("acme"))
    assert engine.events == ["metadata"]


def test_a_cached_alias_of_others_sends_the_engine_on_and_ends_there(installed, manager, engine, errors):
    engine.canonical, engine.cached = {"acme/sneaky": "globex/cars/1"}, "pkgB1"
    with pytest.raises(errors.not_found):
        engine.load(manager, "acme/sneaky", installed.token("acme"))
    assert engine.events == ["metadata"]


def test_a_dependency_is_decided_about_on_its_own(installed, manager, engine, errors):
    engine.dependencies = ("globex/cars/1",)
    with pytest.raises(errors.not_found):
        engine.load(manager, CARS, installed.token("acme"))
    assert not any(event.startswith("download") for event in engine.events)


def test_of_a_narrowed_grant_the_granted_package_is_handed_out_and_no_other(
    installed, manager, engine, errors
):
    token, _ = installed.new_key("initech")
    installed.grant("initech", "globex/signs/1", "pkgB3", actions=("read", "infer"))
    engine.packages = ("pkgB2", "pkgB3")
    assert engine.load(manager, "globex/signs/1", token) == "globex/signs/1/pkgB3"
    engine.packages = ("pkgB2",)
    engine.events.clear()
    with pytest.raises(errors.not_found):
        engine.load(manager, "globex/signs/1", token)
    assert engine.events == ["metadata"]


def test_a_key_that_is_revoked_while_a_model_loads_gets_nothing(installed, manager, engine, errors):
    token, key_id = installed.new_key("acme")
    engine.during_load = lambda: installed.revoke(key_id)
    with pytest.raises(errors.exhausted):
        engine.load(manager, CARS, token)
    with pytest.raises(errors.unauthorized):
        manager.verify_access(CARS, token)


class Kept:
    """A manager that keeps instances, and the instances."""

    def __init__(self, process, errors, limit=2):
        self.instances = Instances(limit)
        self.manager = CachegateAccessManager(process, errors=errors, instances=self.instances)


@pytest.fixture
def kept(process, errors):
    return Kept(process, errors)


def test_a_kept_model_is_handed_out_again_after_a_decision(installed, kept, engine):
    for _ in range(2):
        engine.load(kept.manager, CARS, installed.token("acme"))
    assert engine.events.count("metadata") == 1
    assert routes(installed, 2) == [("load", "allow"), ("instance", "allow")]


def test_a_kept_model_is_refused_once_the_key_is_revoked(installed, kept, engine, errors):
    token, key_id = installed.new_key("acme")
    engine.load(kept.manager, CARS, token)
    installed.revoke(key_id)
    kept.manager._load.begin()
    with pytest.raises(errors.unauthorized):
        kept.manager.retrieve_model_instance(CARS, None, token, "d1")
    assert len(kept.instances) == 0


def test_a_kept_model_belongs_to_the_key_that_it_was_loaded_for(installed, kept, engine):
    engine.load(kept.manager, CARS, installed.token("acme"))
    assert engine.load(kept.manager, CARS, installed.token("acme-laptop")) == f"{CARS}/pkgA1"
    assert engine.events.count("metadata") == 2


class Silent:
    """A guard that cannot decide."""

    def ask(self, question):
        raise Unavailable("redis", "gone", Reason.NO_LEASE)


def test_what_cannot_be_decided_is_no_allow_at_any_hook(engine, errors):
    manager = CachegateAccessManager(Silent(), errors=errors)
    with pytest.raises(errors.undecided):
        engine.load(manager, CARS, "key")
    with pytest.raises(errors.undecided):
        manager.is_model_package_access_granted(CARS, "pkgA1", "key")


@pytest.mark.parametrize("action", [Action.DISCOVER, Action.IDENTIFY])
def test_a_right_that_gives_nobody_a_model_is_no_action_for_it(process, errors, action):
    with pytest.raises(Misconfigured):
        CachegateAccessManager(process, errors=errors, action=action)


def test_a_bound_key_is_good_for_callers_in_its_networks_and_nobody_else(
    installed, process, manager, errors, engine
):
    token, _ = installed.new_key("acme", "10.0.0.0/8")
    inside, outside = (
        CachegateAccessManager(process, errors=errors, client=client) for client in ("10.0.0.7", "11.0.0.7")
    )
    assert engine.load(inside, CARS, token)
    for other in (outside, manager):
        with pytest.raises(errors.unauthorized):
            engine.load(other, CARS, token)
