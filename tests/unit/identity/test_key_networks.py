"""Networks of keys: noted once for each key, in bounded memory, and not for links and outside tokens."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity import key_networks
from gateway.identity.key_networks import KeyNetworks
from gateway.identity.last_uses import LastUses
from gateway.model.access import Credential
from gateway.model.names import KeyId, TenantId
from gateway.model.stamps import Stamp
from tests import samples

KEY = KeyId("key_abcdefghijkl")
PRINCIPAL = samples.principal(key_id=KEY, tenant=TenantId("acme"))


def taken(networks):
    return [(use.key_id, use.tenant, use.network, use.at) for use in networks.take()]


def test_each_network_of_a_key_is_noted_once_with_its_tenant():
    networks = KeyNetworks()
    for number, client in enumerate(
        ("192.0.2.7", "192.0.2.200", "::ffff:192.0.2.9", "198.51.100.1", "2001:db8:1:2::3", "2001:db8:1:f::1")
    ):
        networks.note(PRINCIPAL, client, float(number))
    assert taken(networks) == [
        (KEY, "acme", "192.0.2.0/24", 0.0),
        (KEY, "acme", "198.51.100.0/24", 3.0),
        (KEY, "acme", "2001:db8:1::/48", 4.0),
    ]
    assert networks.take() == []
    assert networks.take_moved() == {KEY: "2001:db8:1::/48"}
    networks.note(PRINCIPAL, "2001:db8:1:2::3", 9.0)
    assert networks.take_moved() == {}


@pytest.mark.parametrize("client", ["", "unknown", "x" * 1000])
def test_what_is_no_address_is_in_no_network(client):
    networks = KeyNetworks()
    networks.note(PRINCIPAL, client, 1.0)
    assert (networks.take(), networks.take_moved()) == ([], {})


@pytest.mark.parametrize("changes", [{"is_link": True}, {"issuer": "https://ci.example"}])
def test_links_and_tokens_of_outside_issuers_do_not_count(changes):
    networks = KeyNetworks()
    networks.note(samples.principal(key_id=KEY, **changes), "192.0.2.7", 1.0)
    assert (networks.take(), networks.latest) == ([], {})


def test_what_could_not_be_stored_is_noted_at_its_next_use():
    networks = KeyNetworks()
    networks.note(PRINCIPAL, "192.0.2.7", 1.0)
    networks.forget(networks.take())
    networks.note(PRINCIPAL, "192.0.2.7", 2.0)
    assert taken(networks) == [(KEY, "acme", "192.0.2.0/24", 2.0)]


def test_memory_is_bounded_and_what_did_not_fit_is_noted_later(monkeypatch):
    for name in ("MAX_KEYS", "MAX_KNOWN", "MAX_NEW"):
        monkeypatch.setattr(key_networks, name, 3)
    networks = KeyNetworks()
    principals = [samples.principal(key_id=KeyId(f"key_{number:012}")) for number in range(10)]
    for one in principals:
        networks.note(one, "192.0.2.7", 1.0)
    assert len(networks._known) <= 3
    assert len(networks.latest) <= 3
    assert [use.key_id for use in networks.take()] == [one.key_id for one in principals[:3]]
    networks.note(principals[9], "192.0.2.7", 2.0)
    assert [use.key_id for use in networks.take()] == [principals[9].key_id]


class Inner:
    def recall(self, credential, client, now):
        return PRINCIPAL, Stamp(0, ())

    async def authenticate(self, credential, client, now):
        return PRINCIPAL, Stamp(0, ())


def test_a_use_that_is_recalled_from_another_address_is_noted_too():
    networks = KeyNetworks()
    noting = LastUses(lambda _: b"mark", networks).noting(Inner())
    credential = Credential("good")
    asyncio.run(noting.authenticate(credential, "192.0.2.7", 1.0))
    for now, client in ((2.0, "192.0.2.7"), (3.0, "198.51.100.1"), (4.0, "192.0.2.7")):
        noting.recall(credential, client, now)
    assert [use.network for use in networks.take()] == ["192.0.2.0/24", "198.51.100.0/24"]
    assert networks.latest == {KEY: "192.0.2.7"}
