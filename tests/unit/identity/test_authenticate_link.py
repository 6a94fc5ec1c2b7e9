"""Signed links depend on their key, which is checked as usual, and have no more rights and no longer life."""

from __future__ import annotations

import asyncio
import math

import pytest
from msgspec.structs import replace

from gateway.identity import keys_by_id
from gateway.identity.any_credential import AnyAuthenticator
from gateway.identity.authenticate import Authenticator
from gateway.identity.authenticate_link import LinkAuthenticator
from gateway.identity.authenticate_token import TokenAuthenticator
from gateway.identity.keys_by_id import KeysById
from gateway.identity.links import LinkKeys, sign
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.model.access import Credential, SignedLink
from gateway.model.bounded_memory import ENTRY_BYTES
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind, Scope, Tenant
from gateway.model.names import TenantId
from gateway.model.stamps import Leaf, Stamp

NOW, END = 1_800_000_000.0, 1_800_003_600
PEPPERS = Peppers(current=Pepper(id="p2", secret=b"2" * 32), previous=(Pepper(id="p1", secret=b"1" * 32),))
LINK_KEYS = LinkKeys(current=b"k" * 32)
ACME = Tenant(tenant_id=TenantId("acme"), name="Acme", is_suspended=False, created_at=NOW)
ORDER = KeyOrder(now=NOW, kind=KeyKind.TENANT, tenant=ACME.tenant_id, name="ci")
NEW, OTHER = (issue_key(ORDER, environment="live", peppers=PEPPERS) for _ in range(2))
KEY_ID = NEW.key.key_id


class Directory:
    """Records by digest, the index by id, and the requests made of both."""

    def __init__(self, key=NEW.key, tenant=ACME):
        self.keys = {NEW.digest: key, OTHER.digest: OTHER.key}
        self.index = {KEY_ID: NEW.digest, OTHER.key.key_id: OTHER.digest}
        self.tenant = tenant
        self.stamp = Stamp(7, (Leaf(b"key", b"record"),))
        self.asked = []

    async def find_key(self, digests):
        self.asked += digests
        found = (self.keys[digest] for digest in digests if digest in self.keys)
        return next(found, None), self.tenant, self.stamp

    async def find_key_digest(self, key_id):
        self.asked.append(key_id)
        return self.index.get(key_id)

    def change(self, **changes):
        self.stamp.leaves[0].is_current = False
        self.stamp = Stamp(8, (Leaf(b"key", b"another record"),))
        self.keys[NEW.digest] = replace(self.keys[NEW.digest], **changes)


def link_of(key_id=KEY_ID, expires_at=END, beside=None):
    path = b"/d/acme/cars/1/-/pkgA1/weights.onnx"
    mac = sign(LINK_KEYS, key_id=key_id, expires_at=expires_at, signed=path)
    return SignedLink(key_id=key_id, expires_at=expires_at, signed=path, mac=mac, beside=beside)


def authenticator_over(directory, link_keys=LINK_KEYS):
    keys, by_id = Authenticator(directory, PEPPERS), KeysById(directory)
    tokens = TokenAuthenticator(keys, by_id, None)
    return AnyAuthenticator(keys, LinkAuthenticator(keys, by_id, link_keys, tokens), tokens)


def authenticate(subject, link=None, client="192.0.2.1", now=NOW):
    return asyncio.run(subject.authenticate(link or link_of(), client, now))


def refusal(subject, link=None, **circumstances):
    with pytest.raises(Refusal) as caught:
        authenticate(subject, link, **circumstances)
    assert subject.recall(link or link_of(), "192.0.2.1", NOW) is None
    return caught.value.reason


def test_a_link_is_its_key_with_the_right_to_read_and_no_other():
    directory = Directory()
    principal, stamp = authenticate(authenticator_over(directory))
    assert (principal.key_id, principal.tenant, principal.is_link) == (KEY_ID, "acme", True)
    assert principal.scopes == {Scope.READ}
    assert stamp is directory.stamp


def test_a_link_of_a_key_that_may_not_read_may_nothing():
    directory = Directory(replace(NEW.key, scopes=frozenset({Scope.DISCOVER, Scope.INFER})))
    assert authenticate(authenticator_over(directory))[0].scopes == frozenset()


@pytest.mark.parametrize(("of_key", "end"), [(None, END), (END + 9.0, END), (END - 9.0, END - 9.0)])
def test_it_ends_with_the_link_or_with_the_key_whichever_is_first(of_key, end):
    subject = authenticator_over(Directory(replace(NEW.key, expires_at=of_key)))
    principal, _ = authenticate(subject)
    assert principal.expires_at == end
    assert principal.key_ends_at == of_key  # a transfer that the link started ends with the key alone
    assert subject.is_valid_still(principal, NOW, math.nextafter(end, 0))
    assert not subject.is_valid_still(principal, NOW, end)


@pytest.mark.parametrize(
    "forged", [{"mac": b"x" * 32}, {"expires_at": END + 1}, {"key_id": OTHER.key.key_id}]
)
def test_a_made_up_link_is_refused_before_any_fact_is_looked_up(forged):
    directory = Directory()
    subject = authenticator_over(directory)
    assert refusal(subject, replace(link_of(), **forged)) is Reason.INVALID_LINK
    assert directory.asked == []


def test_an_expired_link_is_refused_before_any_fact_is_looked_up():
    directory = Directory()
    assert refusal(authenticator_over(directory), now=float(END)) is Reason.EXPIRED_LINK
    assert directory.asked == []


def test_a_clock_that_goes_back_revives_no_link():
    subject = authenticator_over(Directory())
    authenticate(subject)
    assert refusal(subject, now=float(END)) is Reason.EXPIRED_LINK
    assert refusal(subject, now=NOW) is Reason.EXPIRED_LINK
    assert subject.recall(link_of(), "192.0.2.1", NOW) is None


def test_where_no_links_are_handed_out_none_is_ours():
    assert refusal(authenticator_over(Directory(), link_keys=None)) is Reason.INVALID_LINK


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": NOW - 1}, Reason.REVOKED_KEY),
        ({"expires_at": NOW}, Reason.EXPIRED_KEY),
        ({"not_before": NOW + 1}, Reason.NOT_YET_VALID),
        ({"networks": ("10.0.0.0/8",)}, Reason.OUTSIDE_NETWORKS),
    ],
)
def test_a_link_is_refused_for_what_its_key_would_be(change, reason):
    assert refusal(authenticator_over(Directory(replace(NEW.key, **change)))) is reason


def test_a_link_of_a_suspended_tenant_is_refused():
    suspended = replace(ACME, is_suspended=True)
    assert refusal(authenticator_over(Directory(tenant=suspended))) is Reason.SUSPENDED_TENANT


def test_a_link_of_a_key_that_is_gone_is_refused_by_its_id():
    directory = Directory()
    directory.index.clear()
    with pytest.raises(Refusal) as caught:
        authenticate(authenticator_over(directory))
    assert (caught.value.reason, caught.value.key_id) == (Reason.UNKNOWN_KEY, KEY_ID)


def test_an_index_that_leads_to_another_key_decides_nothing():
    directory = Directory()
    directory.index[KEY_ID] = OTHER.digest
    assert refusal(authenticator_over(directory)) is Reason.UNKNOWN_KEY


def test_the_index_is_asked_once_for_all_links_of_a_key():
    directory = Directory()
    subject = authenticator_over(directory)
    for expires_at in (END, END + 60, END + 120):
        authenticate(subject, link_of(expires_at=expires_at))
    assert directory.asked.count(KEY_ID) == 1


def test_a_key_whose_record_moved_is_found_by_the_index_anew():
    directory = Directory()
    subject = authenticator_over(directory)
    authenticate(subject)
    directory.keys[b"m" * 32] = directory.keys.pop(NEW.digest)
    directory.index[KEY_ID] = b"m" * 32
    assert authenticate(subject)[0].key_id == KEY_ID


def test_what_is_remembered_of_the_index_is_bounded(monkeypatch):
    of_one = ENTRY_BYTES + keys_by_id.DIGEST_BYTES
    monkeypatch.setattr(keys_by_id, "DIGESTS_BYTES", of_one)
    directory = Directory()
    subject = authenticator_over(directory)
    for key_id in (KEY_ID, OTHER.key.key_id, KEY_ID):
        authenticate(subject, link_of(key_id))
    assert directory.asked.count(KEY_ID) == 2


def test_a_caller_is_recalled_without_a_look_until_its_records_move():
    directory = Directory()
    subject = authenticator_over(directory)
    principal, stamp = authenticate(subject)
    looked = len(directory.asked)
    assert subject.recall(link_of(), "192.0.2.1", NOW + 1) == (principal, stamp)
    assert subject.recall(replace(link_of(), mac=b"x" * 32), "192.0.2.1", NOW + 1) is None
    assert subject.recall(link_of(expires_at=END + 60), "192.0.2.1", NOW + 1) is None
    assert len(directory.asked) == looked
    directory.change(revoked_at=NOW)
    assert subject.recall(link_of(), "192.0.2.1", NOW + 1) is None
    assert refusal(subject) is Reason.REVOKED_KEY


def test_a_caller_is_recalled_until_the_link_ends_and_no_longer():
    subject = authenticator_over(Directory())
    authenticate(subject)
    assert subject.recall(link_of(), "192.0.2.1", math.nextafter(END, 0)) is not None
    assert subject.recall(link_of(), "192.0.2.1", float(END)) is None
    assert subject.recall(link_of(), "192.0.2.1", NOW) is None


def test_a_caller_is_recalled_from_inside_its_networks_only():
    subject = authenticator_over(Directory(replace(NEW.key, networks=("10.0.0.0/8",))))
    authenticate(subject, client="10.1.2.3")
    assert subject.recall(link_of(), "10.1.2.3", NOW) is not None
    assert subject.recall(link_of(), "192.0.2.1", NOW) is None


def test_the_links_own_key_beside_it_changes_nothing():
    beside = link_of(beside=Credential(NEW.token))
    assert authenticate(authenticator_over(Directory()), beside)[0].is_link


@pytest.mark.parametrize("token", [OTHER.token, "sk-a-key-that-nobody-knows"], ids=["ours", "nobodys"])
def test_another_key_beside_a_link_is_a_conflict(token):
    subject = authenticator_over(Directory())
    assert refusal(subject, link_of(beside=Credential(token))) is Reason.CONFLICTING_CREDENTIALS
    authenticate(subject)  # a result for the link alone is not used for the link with a key beside it
    assert subject.recall(link_of(beside=Credential(token)), "192.0.2.1", NOW) is None


def test_a_key_without_a_link_is_authenticated_as_ever():
    subject = authenticator_over(Directory())
    principal, stamp = authenticate(subject, Credential(NEW.token))
    assert (principal.key_id, principal.is_link, principal.scopes) == (KEY_ID, False, NEW.key.scopes)
    assert subject.recall(Credential(NEW.token), "192.0.2.1", NOW) == (principal, stamp)


def test_a_link_never_becomes_the_key_and_the_key_never_a_link():
    subject = authenticator_over(Directory())
    assert authenticate(subject)[0].is_link
    assert not authenticate(subject, Credential(NEW.token))[0].is_link
    assert subject.recall(link_of(), "192.0.2.1", NOW)[0].is_link
