from __future__ import annotations

import ipaddress
import socket

import pytest

from gateway.adapters.addresses import MAX_ADDRESSES, AddressError, find_addresses, is_permitted

pytestmark = pytest.mark.anyio

PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "2606:2800:220:1::1",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "64:ff9b::808:808",
]
PRIVATE = [
    "10.0.0.1", "172.16.3.4", "192.168.0.1", "127.0.0.1", "127.8.8.8", "100.64.0.1", "fd00::1", "::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "2002:a00:1::1", "2002:7f00:1::", "64:ff9b::a00:1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "169.254.169.254", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::",
    "fe80::1", "ff02::1", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_connected_to(text):
    assert is_permitted(ipaddress.ip_address(text), may_be_private=False)


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_address_is_connected_to_only_where_the_operator_says_so(text):
    address = ipaddress.ip_address(text)
    assert not is_permitted(address, may_be_private=False)
    assert is_permitted(address, may_be_private=True)


@pytest.mark.parametrize("text", NEVER)
@pytest.mark.parametrize("may_be_private", [False, True])
def test_some_addresses_are_never_connected_to(text, may_be_private):
    assert not is_permitted(ipaddress.ip_address(text), may_be_private=may_be_private)


def _names(monkeypatch, *addresses):
    """Replaces the machine's resolver, which the tests cannot configure."""

    def look_up(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_one_bad_address_among_several_refuses_the_name(monkeypatch):
    _names(monkeypatch, "93.184.216.34", "10.0.0.1")
    with pytest.raises(AddressError):
        await find_addresses("files.example", 443, may_be_private=False)


async def test_no_more_addresses_are_tried_than_are_judged(monkeypatch):
    _names(monkeypatch, *(f"93.184.216.{n}" for n in range(10)))
    found = await find_addresses("files.example", 443, may_be_private=False)
    assert found == [f"93.184.216.{n}" for n in range(MAX_ADDRESSES)]


async def test_a_scoped_address_is_judged_without_its_scope(monkeypatch):
    _names(monkeypatch, "fe80::1%eth0")
    with pytest.raises(AddressError):
        await find_addresses("files.example", 443, may_be_private=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_the_machine_itself_is_private_by_any_name(host):
    with pytest.raises(AddressError):
        await find_addresses(host, 80, may_be_private=False)
    assert await find_addresses(host, 80, may_be_private=True)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "xn--a"])
async def test_a_name_that_does_not_resolve_is_refused_without_being_repeated(host):
    with pytest.raises(AddressError) as caught:
        await find_addresses(host, 80, may_be_private=True)
    assert host not in str(caught.value)
