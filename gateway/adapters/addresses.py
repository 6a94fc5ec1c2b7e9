"""Where a host name may lead: addresses that are looked up once, judged, and then used as they are.

Whoever may name a URL for us to fetch may name one inside our network. So a name is resolved here, every
address that it has is judged, and one of these very addresses is connected to: a name that answers
differently the second time (DNS rebinding) gets nowhere. One bad address among several refuses the name.

Some are never connected to: unspecified, multicast, reserved and link-local ones, where clouds keep
their machines' credentials. Private and loopback ones are, where the operator says that the provider
lives there. An IPv4 address in IPv6 clothes is judged as what it is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

MAX_ADDRESSES = 4  # tried in turn: a name with both families, and a second server of each

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressError(Exception):
    """A host has no address that we connect to. The message names no host."""


async def find_addresses(host: str, port: int, *, may_be_private: bool) -> list[str]:
    """The addresses of a host, in the order to be tried. Raises `AddressError`."""
    addresses = await _look_up(host.strip("[]"), port)
    if not addresses:
        raise AddressError("its name has no address")
    if not all(is_permitted(address, may_be_private=may_be_private) for address in addresses):
        raise AddressError("its address is none that is connected to")
    return [str(address) for address in addresses[:MAX_ADDRESSES]]


def is_permitted(address: IPv4Address | IPv6Address, *, may_be_private: bool) -> bool:
    """Whether it may be connected to: itself, and whatever address it carries within it."""
    inner = _find_embedded(address)
    if inner is not None and not is_permitted(inner, may_be_private=may_be_private):
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return True  # judged by what it carries; as an IPv6 address it is "reserved"
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return False
    if address.is_loopback or (address.is_private and not address.is_reserved):
        return may_be_private
    if address.is_reserved:
        return inner is not None
    return address.is_global or may_be_private  # neither: shared between a carrier's customers


def _find_embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to, through whatever translates it."""
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
        pass  # a name
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError("its name cannot be resolved") from error
    return [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]
