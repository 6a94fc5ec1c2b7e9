"""Addresses of clients as text, parsed once: an IPv4-mapped IPv6 address becomes the IPv4 address.

So networks that are written for IPv4 contain it. Any text may come from behind a trusted proxy: long text is
refused before it takes space in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

MAX_ADDRESS_CHARACTERS = 80  # IPv6 takes up to 45; a zone adds the name of an interface


def find_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address; None for text that is none."""
    return _remembered_address(text) if len(text) <= MAX_ADDRESS_CHARACTERS else None


@lru_cache(maxsize=4096)
def _remembered_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def _remembered_network(text: str) -> str | None:
    address = find_address(text)
    if address is None:
        return None
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 80 << 80, 48)))
    return str(IPv4Network((int(address) >> 8 << 8, 24)))


def find_network(text: str) -> str | None:
    """The network of an address: its /24, or /48 of IPv6; None for text that is no address."""
    return _remembered_network(text) if len(text) <= MAX_ADDRESS_CHARACTERS else None
