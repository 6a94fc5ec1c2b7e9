from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.identity.authenticate import Authenticator, principal_of
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.recent_callers import Caller, RecentCallers
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind, Tenant
from gateway.model.names import TenantId
from gateway.model.stamps import Leaf, Stamp

NOW = 1_800_000_000.0
PEPPERS = Peppers(current=Pepper(id="p1", secret=b"1" * 32))
ACME = Tenant(tenant_id=TenantId("acme"), name="Acme", is_suspended=False, created_at=NOW)
ORDER = KeyOrder(
    now=NOW,
    kind=KeyKind.TENANT,
    tenant=ACME.tenant_id,
    not_before=NOW,
    expires_at=NOW + 60,
    networks=("192.0.2.0/24",),
)
NEW = issue_key(ORDER, environment="live", peppers=PEPPERS)
CREDENTIAL = Credential(NEW.token)


class Directory:
    """One key, its tenant, and how often it was requested."""

    def __init__(self):
        self.key, self.tenant, self.asked = NEW.key, ACME, 0
        self.leaf = Leaf(b"key", b"record")

    async def find_key(self, digests):
        self.asked += 1
        found = self.key if NEW.digest in digests else None
        return found, self.tenant, Stamp(1, (self.leaf,))

    def changes(self, *, key=None, tenant=None):
        """Replace its record, and mark the old leaf as not current."""
        self.leaf.is_current = False
        self.leaf = Leaf(b"key", b"another")
        self.key, self.tenant = key or self.key, tenant or self.tenant


@pytest.fixture
def directory():
    return Directory()


@pytest.fixture
def enter(directory):
    authenticator = Authenticator(directory, PEPPERS)

    def call(*, credential=CREDENTIAL, client="192.0.2.1", now=NOW):
        known = authenticator.recall(credential, client, now)
        return (known or asyncio.run(authenticator.authenticate(credential, client, now)))[0]

    return call


def test_a_caller_who_was_valid_is_not_looked_up_again(directory, enter):
    assert enter() is enter()
    assert directory.asked == 1


def test_a_revocation_reaches_a_remembered_caller(directory, enter):
    enter()
    directory.changes(key=replace(NEW.key, revoked_at=NOW))
    with pytest.raises(Refusal, match=Reason.REVOKED_KEY):
        enter()


def test_a_suspension_reaches_a_remembered_caller(directory, enter):
    enter()
    directory.changes(tenant=replace(ACME, is_suspended=True))
    with pytest.raises(Refusal, match=Reason.SUSPENDED_TENANT):
        enter()
    directory.changes(tenant=ACME)
    assert enter().tenant == "acme"


def test_time_and_address_are_judged_anew_each_time(enter):
    enter()
    with pytest.raises(Refusal, match=Reason.OUTSIDE_NETWORKS):
        enter(client="198.51.100.1")
    with pytest.raises(Refusal, match=Reason.NOT_YET_VALID):
        enter(now=NOW - 1)
    with pytest.raises(Refusal, match=Reason.NOT_YET_VALID):
        enter(now=float("nan"))
    assert enter()
    with pytest.raises(Refusal, match=Reason.EXPIRED_KEY):
        enter(now=NOW + 60)
    with pytest.raises(Refusal, match=Reason.EXPIRED_KEY):
        enter(now=NOW)  # a clock that was set back makes no expired key valid


def test_whoever_is_refused_is_no_caller_and_is_asked_about_again_once_a_record_changes(directory, enter):
    directory.changes(tenant=replace(ACME, is_suspended=True))
    for _ in range(2):
        with pytest.raises(Refusal):
            enter()
    assert directory.asked == 1  # what was read is remembered, as it is for a key that nobody knows
    directory.changes(tenant=ACME)
    assert enter().tenant == "acme"
    assert directory.asked == 2


def test_what_a_caller_may_do_is_what_the_newest_record_says(directory, enter):
    assert enter().key_name == ""
    directory.changes(key=replace(NEW.key, name="another"))
    assert enter().key_name == "another"


def test_no_more_callers_are_remembered_than_allowed_and_the_oldest_goes_first():
    def caller():
        principal = principal_of(NEW.key, ACME)
        return Caller(NEW.key, ACME, principal, Stamp(1, (Leaf(b"key", b"record"),)))

    recent = RecentCallers()
    recent.put(b"a", caller())
    recent = RecentCallers(max_bytes=2 * recent.held_bytes)
    for name in (b"a", b"b"):
        recent.put(name, caller())
    assert recent.find(b"a") is not None
    recent.put(b"c", caller())
    assert len(recent) == 2
    assert recent.find(b"b") is None
    assert recent.find(b"a") is not None


def test_a_remembered_caller_says_nothing_of_the_key(directory):
    authenticator = Authenticator(directory, PEPPERS)
    asyncio.run(authenticator.authenticate(CREDENTIAL, "192.0.2.1", NOW))
    assert NEW.token not in repr(authenticator._recent._entries)
