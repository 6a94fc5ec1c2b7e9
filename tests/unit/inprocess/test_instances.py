"""Kept models: found by the digest of the request that they were loaded for, and bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gateway.inprocess.instances import Instances, Kept


def kept(canonical, model="a model"):
    return Kept(model=model, canonical=canonical, package="p", key_id="key_abcdefghijkl")


def load(instances, requested, digest, canonical=None):
    """One load without dependencies, as the hooks report it."""
    instances.find(requested, digest)
    if canonical is not None:
        instances.stands_for(requested, canonical)
    instances.find(requested, digest)
    instances.keep(kept(canonical or requested, f"{canonical or requested} by {digest}"))


def test_a_model_is_found_by_the_digest_that_it_was_asked_for_with():
    instances = Instances(3)
    load(instances, "a", "d1")
    assert instances.find("a", "d1").model == "a by d1"
    assert instances.find("a", "d2") is None
    assert instances.find("a", None) is None


def test_an_alias_is_found_by_the_digest_of_the_alias():
    instances = Instances(3)
    load(instances, "alias", "d1", canonical="a")
    assert instances.find("alias", "d1").canonical == "a"


def test_a_dependency_and_what_needs_it_do_not_take_each_others_place():
    instances = Instances(3)
    instances.find("parent", "dp")
    instances.find("parent", "dp")
    load(instances, "base", "db")
    instances.keep(kept("parent", "the parent"))
    assert instances.find("base", "db").model == "base by db"
    assert instances.find("parent", "dp").model == "the parent"


def test_of_two_requests_for_one_model_the_latest_is_the_one_that_was_loaded():
    instances = Instances(3)
    instances.find("a", "failed")
    load(instances, "a", "d2")
    assert instances.find("a", "failed") is None
    assert instances.find("a", "d2").model == "a by d2"


def test_what_nobody_asked_for_in_this_thread_is_not_kept():
    instances = Instances(3)
    instances.find("a", "d1")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(instances.keep, kept("a")).result()
    instances.keep(kept("b"))
    assert len(instances) == 0


def test_the_one_that_was_not_used_for_longest_goes_first():
    instances = Instances(2)
    for name in ("a", "b"):
        load(instances, name, f"d{name}")
    instances.find("a", "da")
    load(instances, "c", "dc")
    assert [instances.find(name, f"d{name}") is not None for name in "abc"] == [True, False, True]


def test_a_limit_of_nothing_keeps_nothing():
    instances = Instances(0)
    load(instances, "a", "d1")
    assert len(instances) == 0


def test_what_is_dropped_or_cleared_is_gone():
    instances = Instances(2)
    for name in ("a", "b"):
        load(instances, name, f"d{name}")
    instances.drop("da")
    assert len(instances) == 1
    instances.drop(None)
    instances.clear()
    assert len(instances) == 0


def test_a_model_is_not_printed_with_what_is_said_of_it():
    assert "weights" not in repr(kept("a", "weights"))
