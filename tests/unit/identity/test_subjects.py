"""Subjects are judged as callers, now and at the claimed moment; those of others are as if absent."""

from __future__ import annotations

import asyncio
import math

import pytest
from msgspec.structs import replace

from gateway.identity.authenticate import Authenticator, principal_of
from gateway.identity.keys_by_id import KeysById
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.subjects import ANY_KEY, Subjects
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import DEFAULT_SCOPES, KeyKind, KeyLife, Tenant
from gateway.model.names import KeyId, TenantId
from gateway.model.questions import Question, Subject, SubjectKind
from gateway.model.stamps import Leaf, Stamp
from tests import samples

NOW = 1_800_000_000.0
PEPPERS = Peppers(current=Pepper(id="p1", secret=b"1" * 32))
ACME, GLOBEX = (
    Tenant(tenant_id=TenantId(name), name=name, is_suspended=False, created_at=NOW)
    for name in ("acme", "globex")
)
ORDER = KeyOrder(now=NOW, kind=KeyKind.TENANT, tenant=ACME.tenant_id)
OWN = issue_key(ORDER, environment="live", peppers=PEPPERS)
OTHERS = issue_key(replace(ORDER, tenant=GLOBEX.tenant_id), environment="live", peppers=PEPPERS)
BY_ACME = samples.principal(tenant=ACME.tenant_id)
BY_OPERATOR = samples.principal(kind=KeyKind.ADMIN, tenant=None)


class Directory:
    """Records by digest and by name, and what was asked."""

    def __init__(self, **changes):
        self.keys = {OWN.digest: replace(OWN.key, **changes), OTHERS.digest: OTHERS.key}
        self.tenants = {one.tenant_id: one for one in (ACME, GLOBEX)}
        self.stamp = Stamp(7, (Leaf(b"key", b"record"),))
        self.asked = []

    async def find_key(self, digests):
        key = next((self.keys[one] for one in digests if one in self.keys), None)
        return key, None if key is None else self.tenants.get(key.tenant), self.stamp

    async def find_key_digest(self, key_id):
        return next((digest for digest, key in self.keys.items() if key.key_id == key_id), None)

    async def find_key_of(self, key_id, tenant):
        self.asked.append(("key", tenant))
        key = next((one for one in self.keys.values() if (one.key_id, one.tenant) == (key_id, tenant)), None)
        return key, None if key is None else self.tenants.get(tenant), self.stamp

    async def find_tenant(self, tenant):
        self.asked.append(("tenant", tenant))
        return self.tenants.get(tenant), self.stamp


class Site:
    def __init__(self, **changes):
        self.directory = Directory(**changes)
        self.used_decoys = []
        self.keys = Authenticator(self.directory, PEPPERS, lambda key, _: self.used_decoys.append(key))
        self.subjects = Subjects(self.directory, self.keys, KeysById(self.directory), self)
        self.time = NOW

    def now(self):
        return self.time

    def find(self, name, asking=BY_ACME, now=NOW, **claimed):
        kind = SubjectKind.KEY if name.startswith("key_") else SubjectKind.TENANT
        subject = Subject(kind=kind, name=name)
        question = Question(subject=subject, **claimed)
        principal, self.stamp = asyncio.run(self.subjects.find(subject, question, asking, now))
        return principal

    def reason(self, *asked, **claimed):
        with pytest.raises(Refusal) as caught:
            self.find(*asked, **claimed)
        return caught.value.reason


def test_a_key_is_the_very_caller_that_its_own_request_has():
    site = Site()
    assert site.find(OWN.key.key_id) == principal_of(OWN.key, ACME)
    assert site.find(OWN.key.key_id, BY_OPERATOR) == principal_of(OWN.key, ACME)
    assert site.find(OTHERS.key.key_id, BY_OPERATOR) == principal_of(OTHERS.key, GLOBEX)


def test_a_key_of_others_and_none_are_one_reason():
    site = Site()
    assert site.reason(OTHERS.key.key_id) is site.reason(KeyId("key_000000000000")) is Reason.UNKNOWN_KEY
    assert site.directory.asked == [("key", "acme")] * 2


def test_about_another_tenant_nothing_is_read():
    site = Site()
    assert site.reason("globex") is site.reason("nobody") is Reason.SUSPENDED_TENANT
    assert site.directory.asked == []


def test_a_tenant_is_asked_about_as_a_key_that_it_could_have():
    site = Site()
    found = site.find("acme")
    assert (found.kind, found.tenant, found.key_id) == (KeyKind.TENANT, "acme", ANY_KEY)
    assert (found.scopes, found.expires_at, found.is_of_platform) == (DEFAULT_SCOPES, None, False)
    assert site.find("globex", BY_OPERATOR).tenant == "globex"
    assert site.reason("nobody", BY_OPERATOR) is Reason.SUSPENDED_TENANT
    site.directory.tenants[ACME.tenant_id] = replace(ACME, is_suspended=True)
    assert site.reason("acme") is site.reason(OWN.key.key_id) is Reason.SUSPENDED_TENANT


def test_a_token_that_is_narrowed_asks_within_its_narrowing():
    narrowed = replace(BY_ACME, only="acme/cars/*")
    assert Site().find("acme", narrowed).only == "acme/cars/*"
    assert Site().find(OWN.key.key_id, narrowed).only == "acme/cars/*"


@pytest.mark.parametrize(
    ("changes", "moment", "reason"),
    [
        ({"expires_at": NOW - 1}, None, Reason.EXPIRED_KEY),
        ({"expires_at": NOW - 1}, NOW - 100, Reason.EXPIRED_KEY),  # a claim revives nobody
        ({"not_before": NOW + 50}, None, Reason.NOT_YET_VALID),
        ({"not_before": NOW + 50}, NOW + 100, Reason.NOT_YET_VALID),  # nor does it show what begins later
        ({"expires_at": NOW + 50}, NOW + 100, Reason.EXPIRED_KEY),
        ({"not_before": NOW - 50}, NOW - 100, Reason.NOT_YET_VALID),
        ({"revoked_at": NOW + 50}, NOW - 100, Reason.REVOKED_KEY),
        ({"expires_at": NOW + 50}, math.nan, Reason.NOT_YET_VALID),
        ({"life": KeyLife(disabled_at=NOW + 50)}, NOW - 100, Reason.DISABLED_KEY),
        ({"life": KeyLife(is_decoy=True)}, None, Reason.DECOY_KEY),
    ],
)
def test_a_key_has_to_be_valid_now_and_at_the_moment(changes, moment, reason):
    site = Site(**changes)
    assert site.reason(OWN.key.key_id, moment=moment) is reason
    assert site.used_decoys == []  # a question is no use of a key


def test_a_key_of_a_tenant_that_had_the_name_before_is_no_subject():
    site = Site(tenant_record="ten_000000000000")
    assert site.reason(OWN.key.key_id, BY_OPERATOR) is Reason.REMOVED_TENANT


def test_an_answer_about_a_key_ends_when_the_key_does():
    """The last check is made when the answer is sent, which may be seconds later."""
    site = Site(expires_at=NOW + 2)
    site.find(OWN.key.key_id)
    assert site.stamp.is_current
    site.time = NOW + 2
    assert not site.stamp.is_current
    site.time = NOW  # not even if the clock is set back
    assert not site.stamp.is_current


def test_a_claimed_moment_never_moves_the_clock_that_keys_expire_by():
    site = Site(expires_at=NOW + 50)
    site.reason(OWN.key.key_id, moment=NOW + 1e9)
    site.find(OTHERS.key.key_id, BY_OPERATOR, moment=NOW + 1e9)
    assert site.keys.latest(NOW) == NOW
    assert site.find(OWN.key.key_id).key_id == OWN.key.key_id


def test_a_key_that_is_bound_to_networks_is_valid_from_a_claimed_address_in_them():
    site = Site(networks=("203.0.113.0/24",))
    assert site.find(OWN.key.key_id, address="203.0.113.9").key_id == OWN.key.key_id
    assert site.reason(OWN.key.key_id, address="203.0.114.9") is Reason.OUTSIDE_NETWORKS
    assert site.reason(OWN.key.key_id) is Reason.OUTSIDE_NETWORKS
