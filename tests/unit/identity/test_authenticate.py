from __future__ import annotations

import asyncio
import hashlib
import math

import pytest
from msgspec.structs import replace

from gateway.identity.authenticate import Authenticator, principal_of
from gateway.identity.new_keys import KeyOrder, adopt_key, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import KeyKind, Scope, Tenant
from gateway.model.names import TenantId
from gateway.model.stamps import Leaf, Stamp

NOW = 1_800_000_000.0
STAMP = Stamp(7, (Leaf(b"key", b"record"),))
OLD = Pepper(id="p1", secret=b"1" * 32)
PEPPERS = Peppers(current=Pepper(id="p2", secret=b"2" * 32), previous=(OLD,))
ACME = Tenant(tenant_id=TenantId("acme"), name="Acme", is_suspended=False, created_at=NOW)
ORDER = KeyOrder(now=NOW, kind=KeyKind.TENANT, tenant=ACME.tenant_id, name="ci")
NEW = issue_key(ORDER, environment="live", peppers=PEPPERS)
CREDENTIAL = Credential(NEW.token)


class Directory:
    """A key directory of given records that remembers the digests it was asked for."""

    def __init__(self, keys, tenant=ACME):
        self.keys = keys
        self.tenant = tenant
        self.asked = []

    async def find_key(self, digests):
        self.asked.append(tuple(digests))
        for digest in digests:
            if key := self.keys.get(digest):
                return key, self.tenant, STAMP
        return None, None, STAMP


def authenticate(directory, credential=CREDENTIAL, client="192.0.2.1", now=NOW):
    return asyncio.run(Authenticator(directory, PEPPERS).authenticate(credential, client, now))


def refusal(key=NEW.key, tenant=ACME, **circumstances):
    with pytest.raises(Refusal) as caught:
        authenticate(Directory({NEW.digest: key}, tenant), **circumstances)
    assert caught.value.key_id == key.key_id
    return caught.value.reason


def test_a_valid_key_is_its_principal():
    principal, stamp = authenticate(Directory({NEW.digest: NEW.key}))
    assert (principal.key_id, principal.key_name, principal.tenant) == (NEW.key.key_id, "ci", "acme")
    assert (principal.kind, principal.scopes, principal.expires_at) == (KeyKind.TENANT, NEW.key.scopes, None)
    assert stamp is STAMP


def test_a_mistyped_token_never_reaches_the_directory():
    directory = Directory({})
    mistyped = Credential(NEW.token[:-1] + ("a" if NEW.token[-1] != "a" else "b"))
    with pytest.raises(Refusal) as caught:
        authenticate(directory, mistyped)
    assert caught.value.reason is Reason.MISTYPED_KEY
    assert directory.asked == []


def test_an_unknown_key_names_no_key():
    with pytest.raises(Refusal) as caught:
        authenticate(Directory({}))
    assert (caught.value.reason, caught.value.key_id) == (Reason.UNKNOWN_KEY, None)


def test_the_directory_is_asked_for_digests_of_all_peppers_and_never_sees_the_key():
    directory = Directory({NEW.digest: NEW.key})
    authenticate(directory)
    assert directory.asked == [PEPPERS.digests(hashlib.sha256(NEW.token.encode()).digest())]
    assert NEW.token.encode() not in b"".join(directory.asked[0])


def test_a_key_stored_under_an_older_pepper_still_verifies():
    digest = OLD.digest(hashlib.sha256(NEW.token.encode()).digest())
    principal, _ = authenticate(Directory({digest: NEW.key}))
    assert principal.key_id == NEW.key.key_id


def test_an_opaque_key_is_looked_up():
    adopted = adopt_key(ORDER, raw_key="sk-0123456789abcdef", peppers=PEPPERS)
    principal, _ = authenticate(Directory({adopted.digest: adopted.key}), Credential("sk-0123456789abcdef"))
    assert principal.key_id == adopted.key.key_id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": NOW - 1}, Reason.REVOKED_KEY),
        ({"revoked_at": NOW + 1}, Reason.REVOKED_KEY),
        ({"expires_at": NOW}, Reason.EXPIRED_KEY),
        ({"not_before": math.nextafter(NOW, math.inf)}, Reason.NOT_YET_VALID),
        ({"networks": ("10.0.0.0/8",)}, Reason.OUTSIDE_NETWORKS),
        ({"networks": ("10.0.0.0/8", "junk")}, Reason.UNREADABLE_KEY),
    ],
)
def test_a_key_that_is_not_valid_now_is_refused_by_its_id(change, reason):
    assert refusal(replace(NEW.key, **change)) is reason


@pytest.mark.parametrize(
    "tenant", [None, replace(ACME, is_suspended=True), replace(ACME, tenant_id=TenantId("other"))]
)
def test_a_key_without_its_tenant_is_refused(tenant):
    assert refusal(tenant=tenant) is Reason.SUSPENDED_TENANT


def test_the_checks_have_a_fixed_order():
    everything = {
        "revoked_at": NOW,
        "not_before": NOW + 1,
        "expires_at": NOW,
        "networks": ("10.0.0.0/8",),
    }
    seen = []
    while everything:
        seen.append(refusal(replace(NEW.key, **everything), tenant=None))
        del everything[next(iter(everything))]
    assert seen == [
        Reason.REVOKED_KEY,
        Reason.NOT_YET_VALID,
        Reason.EXPIRED_KEY,
        Reason.OUTSIDE_NETWORKS,
    ]
    assert refusal(tenant=None) is Reason.SUSPENDED_TENANT


def test_a_key_that_is_refused_is_still_who_it_is_and_served_as_its_tenant_is():
    tenant = replace(ACME, degraded_seconds=60.0)
    principal, _ = authenticate(Directory({NEW.digest: NEW.key}, tenant))
    assert principal == principal_of(replace(NEW.key, revoked_at=NOW), replace(tenant, is_suspended=True))
    assert principal.degraded_seconds == 60.0


def test_an_admin_key_has_no_tenant_to_be_suspended():
    order = KeyOrder(now=NOW, kind=KeyKind.ADMIN, tenant=None)
    new = issue_key(order, environment="live", peppers=PEPPERS)
    principal, _ = authenticate(Directory({new.digest: new.key}, None), Credential(new.token))
    assert (principal.kind, principal.tenant) == (KeyKind.ADMIN, None)
    assert principal.scopes == {Scope.AUDIT_READ, Scope.KEYS_MANAGE}


@pytest.mark.parametrize("client", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"])
def test_a_client_inside_the_networks_is_let_in(client):
    key = replace(NEW.key, networks=("10.0.0.0/8", "2001:db8::/32"))
    authenticate(Directory({NEW.digest: key}), client=client)


@pytest.mark.parametrize(
    "client", ["11.1.2.3", "2001:db9::1", "local", "", "10.1.2.3:80", "10.1.2.3 ", "::a01:203"]
)
def test_a_client_outside_or_without_an_address_is_not(client):
    assert refusal(replace(NEW.key, networks=("10.0.0.0/8",)), client=client) is Reason.OUTSIDE_NETWORKS


def test_a_clock_that_goes_back_revives_no_key():
    key = replace(NEW.key, expires_at=NOW + 10)
    authenticator = Authenticator(Directory({NEW.digest: key}), PEPPERS)
    authenticator.judge(key, ACME, "192.0.2.1", NOW)
    for now in (NOW + 10, NOW, NOW - 1e6):
        with pytest.raises(Refusal) as caught:
            authenticator.judge(key, ACME, "192.0.2.1", now)
        assert caught.value.reason is Reason.EXPIRED_KEY


def test_a_clock_that_goes_back_makes_no_key_valid_too_early():
    key = replace(NEW.key, not_before=NOW)
    authenticator = Authenticator(Directory({}), PEPPERS)
    authenticator.judge(key, ACME, "192.0.2.1", NOW)
    with pytest.raises(Refusal) as caught:
        authenticator.judge(key, ACME, "192.0.2.1", NOW - 1)
    assert caught.value.reason is Reason.NOT_YET_VALID


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_a_broken_clock_refuses_and_leaves_no_trace_once_it_is_mended(now):
    authenticator = Authenticator(Directory({}), PEPPERS)
    key = replace(NEW.key, expires_at=NOW + 10)
    with pytest.raises(Refusal):
        authenticator.judge(key, ACME, "192.0.2.1", now)
    authenticator.judge(key, ACME, "192.0.2.1", NOW)


def test_a_directory_that_does_not_answer_is_neither_an_allow_nor_a_refusal():
    class Gone:
        async def find_key(self, digests):
            raise Unavailable("redis", "connection refused")

    with pytest.raises(Unavailable):
        authenticate(Gone())


def test_a_caller_stays_valid_until_the_key_expires_and_not_a_moment_longer():
    key = replace(NEW.key, expires_at=NOW + 10)
    authenticator = Authenticator(Directory({}), PEPPERS)
    principal = authenticator.judge(key, ACME, "192.0.2.1", NOW)
    assert authenticator.is_valid_still(principal, NOW, NOW)
    assert authenticator.is_valid_still(principal, NOW, NOW + 9.9)
    assert not authenticator.is_valid_still(principal, NOW, NOW + 10)
    # The clock was set back; an expired key stays expired, for this method as for the other.
    assert not authenticator.is_valid_still(principal, NOW, NOW + 1)
    with pytest.raises(Refusal):
        authenticator.judge(key, ACME, "192.0.2.1", NOW + 1)


def test_a_key_that_expired_for_the_other_way_is_no_longer_valid_for_this_one():
    authenticator = Authenticator(Directory({}), PEPPERS)
    principal = authenticator.judge(replace(NEW.key, expires_at=NOW + 10), ACME, "192.0.2.1", NOW)
    authenticator.judge(NEW.key, ACME, "192.0.2.1", NOW + 20)
    assert not authenticator.is_valid_still(principal, NOW, NOW + 1)


class KnownKey(Directory):
    """A directory that finds the one key it has again."""

    async def find_key_again(self, stamp):
        [key] = self.keys.values()
        return key, self.tenant, stamp


MOMENTS = [NOW, NOW + 9.9, NOW + 10, NOW + 19.9, NOW + 20, NOW + 15, NOW - 1, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("not_before", [None, NOW + 10])
@pytest.mark.parametrize("expires_at", [None, NOW + 20])
def test_whether_a_key_is_in_time_is_what_authenticating_it_once_more_comes_to(not_before, expires_at):
    key = replace(NEW.key, not_before=not_before, expires_at=expires_at)
    quick, whole = (Authenticator(KnownKey({NEW.digest: key}), PEPPERS) for _ in range(2))
    principal = principal_of(key, ACME)
    for now in MOMENTS:  # in this order: the latest time seen counts
        try:
            asyncio.run(whole.reauthenticate(STAMP, "192.0.2.1", now))
            is_valid = True
        except Refusal:
            is_valid = False
        assert quick.is_in_time(principal, now) is is_valid, now


@pytest.mark.parametrize(
    ("change", "tenant", "reason"),
    [
        ({"revoked_at": NOW}, ACME, Reason.REVOKED_KEY),
        ({"expires_at": NOW}, ACME, Reason.EXPIRED_KEY),
        ({"not_before": NOW + 1}, ACME, Reason.NOT_YET_VALID),
        ({"networks": ("10.0.0.0/8",)}, ACME, Reason.OUTSIDE_NETWORKS),
        ({}, replace(ACME, is_suspended=True), Reason.SUSPENDED_TENANT),
        ({}, None, Reason.SUSPENDED_TENANT),
    ],
)
def test_a_key_is_judged_once_more_by_all_that_it_was_judged_by_at_first(change, tenant, reason):
    authenticator = Authenticator(KnownKey({NEW.digest: replace(NEW.key, **change)}, tenant), PEPPERS)
    with pytest.raises(Refusal) as caught:
        asyncio.run(authenticator.reauthenticate(STAMP, "192.0.2.1", NOW))
    assert caught.value.reason is reason


def test_a_key_that_is_judged_once_more_is_a_caller_with_the_times_of_its_record_now():
    key = replace(NEW.key, not_before=NOW - 5, expires_at=NOW + 5)
    tenant = replace(ACME, degraded_seconds=7.0)
    authenticator = Authenticator(KnownKey({NEW.digest: key}, tenant), PEPPERS)
    principal, stamp = asyncio.run(authenticator.reauthenticate(STAMP, "192.0.2.1", NOW))
    assert (principal.key_begins_at, principal.key_ends_at) == (NOW - 5, NOW + 5)
    assert (principal.degraded_seconds, stamp) == (7.0, STAMP)


@pytest.mark.parametrize("now", [NOW - 1, math.nan, math.inf, -math.inf])
def test_a_clock_that_went_back_or_broke_lets_nobody_in_by_what_was_known(now):
    authenticator = Authenticator(Directory({}), PEPPERS)
    principal = authenticator.judge(NEW.key, ACME, "192.0.2.1", NOW)
    assert not authenticator.is_valid_still(principal, NOW, now)
    assert authenticator.is_valid_still(principal, NOW, NOW + 1)


RECORD, OTHER = "ten_00000000000A", "ten_00000000000B"


@pytest.mark.parametrize(
    ("of_key", "of_tenant", "reason"),
    [
        (RECORD, RECORD, None),
        (None, None, None),  # both from before there were ids
        (RECORD, OTHER, Reason.REMOVED_TENANT),
        (None, RECORD, Reason.REMOVED_TENANT),
        (RECORD, None, Reason.REMOVED_TENANT),
    ],
)
def test_a_key_belongs_to_one_record_and_not_to_a_name(of_key, of_tenant, reason):
    key, tenant = replace(NEW.key, tenant_record=of_key), replace(ACME, record_id=of_tenant)
    if reason is None:
        principal, _ = authenticate(Directory({NEW.digest: key}, tenant))
        assert principal.tenant_record == of_key
    else:
        assert refusal(key, tenant) is reason


def test_a_tenant_that_is_being_removed_has_no_valid_key():
    tenant = replace(ACME, removal="rem_1", is_suspended=True)
    assert refusal(tenant=tenant) is Reason.REMOVED_TENANT
