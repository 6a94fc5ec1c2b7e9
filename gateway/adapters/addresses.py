"""Resolve a host name once and check every address against server-side request forgery (SSRF).

A client or a provider may name a URL that leads into our own network. So a host name is resolved once here,
and every address that it has is checked. The caller connects to one of the returned addresses and does not
resolve the name again: a name that resolves differently the second time (DNS rebinding) has no effect. One
forbidden address among several refuses the whole name.

Unspecified, multicast, reserved and link-local addresses are never permitted; cloud metadata services, which
hand out credentials, are link-local. Private and loopback addresses are permitted only where the operator
says that the provider is there. An IPv4 address embedded in an IPv6 address is checked as IPv4.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

MAX_ADDRESSES = 4  # tried in order: enough for both address families and a second server in each

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressError(Exception):
    """A host has no address that we may connect to. The message does not contain the host."""


async def find_addresses(host: str, port: int, *, may_be_private: bool) -> list[str]:
    """Resolve a host and return its addresses in the order to try. Raises `AddressError`."""
    addresses = await _look_up(host.strip("[]"), port)
    if not addresses:
        raise AddressError("its name has no address")
    if not all(is_permitted(address, may_be_private=may_be_private) for address in addresses):
        raise AddressError("its address is none that is connected to")
    return [str(address) for address in addresses[:MAX_ADDRESSES]]


def is_permitted(address: IPv4Address | IPv6Address, *, may_be_private: bool) -> bool:
    """Return whether this address may be connected to. An IPv4 address embedded in it is checked too."""
    inner = _find_embedded(address)
    if inner is not None and not is_permitted(inner, may_be_private=may_be_private):
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return True  # the embedded IPv4 address was checked above; as IPv6 the address counts as reserved
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return False
    if address.is_loopback or (address.is_private and not address.is_reserved):
        return may_be_private
    if address.is_reserved:
        return inner is not None
    return address.is_global or may_be_private  # neither global nor private: carrier-grade NAT (RFC 6598)


def _find_embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that is embedded in an IPv6 address (mapped, 6to4, Teredo, NAT64)."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


async def _look_up(host: str, port: int) -> list[IPv4Address | IPv6Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass  # not an address literal: resolve it below
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError("its name cannot be resolved") from error
    return [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]
