"""A caller, a request and an admission as most tests need them: a test names only what matters to it."""

from __future__ import annotations

from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.facts import KeyKind
from gateway.model.names import KeyId, TenantId
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Admission, Allowed, Identity


def principal(**changes):
    """A key of the tenant acme, without scopes."""
    fields = {
        "kind": KeyKind.TENANT,
        "key_id": KeyId("key_abcdefghijkl"),
        "key_name": "",
        "tenant": TenantId("acme"),
        "scopes": frozenset(),
        "expires_at": None,
    }
    return Principal(**{**fields, **changes})


def wire_request(**changes):
    """A GET of `/` from this machine."""
    fields = {
        "method": "GET",
        "raw_path": b"/",
        "query": b"",
        "headers": (),
        "client": "127.0.0.1",
        "route": "",
        "trace_id": None,
        "received_at": 0.0,
    }
    return WireRequest(**{**fields, **changes})


def admission(caller, *, request=None, action=Action.READ, policies=(), stamp=None, found=None):
    """An allowed request of this caller. What was found is the caller itself, unless the test says."""
    stamp = Stamp(1, ()) if stamp is None else stamp
    access = Access(principal=caller, action=action, resource=Resource(kind=ResourceKind.SELF))
    return Admission(
        request=wire_request() if request is None else request,
        allowed=Allowed(access=access, model=None, policies=policies, grant=None, stamp=stamp),
        found=Identity(principal=caller) if found is None else found,
        stamp=stamp,
        key_stamp=stamp,
    )
