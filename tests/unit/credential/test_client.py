from __future__ import annotations

import pytest

from gateway.credential import client
from gateway.credential.client import MAX_HOPS, Peer, parse_trusted_networks
from gateway.model.errors import BadNameError

PROXIES = parse_trusted_networks(["10.0.0.0/8", "2001:db8::/32", "unix"])
NOBODY = parse_trusted_networks([])


def address_of(peer, headers, trusted):
    return Peer(peer, trusted).client(headers)


def forwarded(*values):
    return [(b"host", b"x"), *((b"x-forwarded-for", value) for value in values)]


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        # An untrusted peer is the client, whatever it sends.
        ("203.0.113.9", [b"198.51.100.1"], "203.0.113.9"),
        # A trusted peer names its own peer.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [b" 198.51.100.1 "], "198.51.100.1"),
        ("10.0.0.1", [b"198.51.100.1:5555"], "198.51.100.1"),
        ("2001:db8::1", [b"[2001:db9::7]:5555"], "2001:db9::7"),
        ("10.0.0.1", [b"[2001:db9::7]"], "2001:db9::7"),
        ("10.0.0.1", [b"2001:DB9:0:0::7"], "2001:db9::7"),
        # The right-most untrusted entry; entries further left can be forged by the client.
        ("10.0.0.1", [b"192.0.2.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", [b"10.9.9.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [b"192.0.2.1", b"198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [b"junk, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [b", ,\xff, 198.51.100.1"], "198.51.100.1"),
        # The next entry does not parse, or no hop is untrusted: the peer.
        ("10.0.0.1", [b"198.51.100.1, junk"], "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.1,"], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.1:99:99"], "10.0.0.1"),
        ("10.0.0.1", [b"198.051.100.1"], "10.0.0.1"),
        ("10.0.0.1", [b"fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.1"),
        # An IPv4-mapped IPv6 address is IPv4, on both sides.
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
        ("::ffff:10.0.0.1", [b"::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [b"198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
        # A unix socket has no address.
        (None, [], "local"),
        (None, [b"198.51.100.1"], "198.51.100.1"),
        ("testclient", [b"198.51.100.1"], "testclient"),
    ],
)
def test_the_client_is_who_the_last_trusted_hop_saw(peer, values, expected):
    assert address_of(peer, forwarded(*values), PROXIES) == expected


@pytest.mark.parametrize("peer", [None, "10.0.0.1", "::1"])
def test_nobody_is_trusted_unless_configured(peer):
    assert address_of(peer, forwarded(b"198.51.100.1"), NOBODY) == (peer or "local")


def test_a_unix_peer_is_not_trusted_because_a_network_is():
    trusted = parse_trusted_networks(["0.0.0.0/0", "::/0"])
    assert address_of(None, forwarded(b"198.51.100.1"), trusted) == "local"


def test_only_so_many_hops_are_followed():
    def hops(count):
        return forwarded(b", ".join([b"198.51.100.1", *[b"10.0.0.2"] * count]))

    assert address_of("10.0.0.1", hops(MAX_HOPS - 1), PROXIES) == "198.51.100.1"
    assert address_of("10.0.0.1", hops(MAX_HOPS), PROXIES) == "10.0.0.1"


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "host.example", "UNIX", "*"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(BadNameError):
        parse_trusted_networks([text])


def test_whom_a_short_list_names_is_remembered_and_no_long_list_is():
    """Clients begin these lists, and choose how long they are."""
    peer = Peer("10.0.0.1", PROXIES)
    short, long = b"198.51.100.1", b"203.0.113.7, " * 2000 + b"198.51.100.2"
    client._find_client.cache_clear()
    for value, named in [(short, "198.51.100.1"), (long, "198.51.100.2"), (short, "198.51.100.1")]:
        assert peer.client(forwarded(value)) == peer.named_by(value) == named
    assert client._find_client.cache_info().currsize == 1


def test_what_a_list_names_depends_on_whom_is_trusted_and_who_sent_it():
    hops = b"198.51.100.1, 10.0.0.2"
    nobody = parse_trusted_networks(["10.0.0.1/32"])
    assert Peer("10.0.0.1", PROXIES).named_by(hops) == "198.51.100.1"
    assert Peer("10.0.0.1", nobody).named_by(hops) == "10.0.0.2"
    assert Peer("192.0.2.9", PROXIES).named_by(hops) == "192.0.2.9"
    assert [Peer(one, PROXIES).named_by(b"unreadable") for one in ("10.0.0.1", "10.0.0.3")] == [
        "10.0.0.1",
        "10.0.0.3",
    ]
