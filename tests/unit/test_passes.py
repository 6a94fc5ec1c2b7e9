"""Passes: valid while the facts behind them are current, and for no other caller or path."""

from __future__ import annotations

from gateway.model.access import Access, Action, Principal, Resource, ResourceKind
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId, TenantId
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed
from gateway.passes import Pass, Passes

KEY = (b"fingerprint", "192.0.2.1", b"/v1/models/acme/cars/1/-/p/f")


def a_pass():
    """A pass, and the leaf that it was computed from."""
    leaf = Leaf(b"rule", b"value")
    stamp = Stamp(7, (leaf,))
    principal = Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId("key_abcdefghijkl"),
        key_name="",
        tenant=TenantId("acme"),
        scopes=frozenset({Scope.READ}),
        expires_at=None,
    )
    resource = Resource(
        kind=ResourceKind.FILE, model=ModelId("acme/cars/1"), package=PackageId("p"), file=FileHandle("f")
    )
    access = Access(principal=principal, action=Action.READ, resource=resource)
    allowed = Allowed(access=access, model=resource.model, policies=(), grant="owner", stamp=stamp)
    return Pass(allowed=allowed, key_stamp=stamp, stamp=stamp, since=1.0), leaf


def test_a_pass_is_found_under_all_that_it_was_given_for():
    passes, (granted, _) = Passes(max_bytes=1 << 20), a_pass()
    passes.put(KEY, granted)
    assert passes.find(KEY) is granted
    for index, other in enumerate((b"another", "192.0.2.2", b"/v1/models/acme/cars/1/-/p/g")):
        assert passes.find((*KEY[:index], other, *KEY[index + 1 :])) is None
    assert passes.hits == 1


def test_a_pass_ends_with_any_fact_that_it_stands_on():
    passes, (granted, leaf) = Passes(max_bytes=1 << 20), a_pass()
    passes.put(KEY, granted)
    leaf.is_current = False
    assert passes.find(KEY) is None
    leaf.is_current = True  # impossible for a real leaf; the dropped pass must stay gone
    assert passes.find(KEY) is None


def test_a_pass_on_a_fact_that_moved_while_it_was_worked_out_is_not_kept():
    passes, (granted, leaf) = Passes(max_bytes=1 << 20), a_pass()
    leaf.is_current = False
    passes.put(KEY, granted)
    leaf.is_current = True
    assert passes.find(KEY) is None


def test_the_pass_that_was_not_used_longest_goes_first():
    passes = Passes(max_bytes=1 << 20)
    passes.put(KEY, a_pass()[0])
    passes = Passes(max_bytes=int(2.5 * passes.held_bytes))
    one, two, three = ((name, *KEY[1:]) for name in (b"1", b"2", b"3"))
    passes.put(one, a_pass()[0])
    passes.put(two, a_pass()[0])
    passes.find(one)
    passes.put(three, a_pass()[0])
    assert passes.find(two) is None
    assert passes.find(one)
    assert passes.find(three)
