"""Determine the client's address: the socket's peer, or the address that a trusted proxy forwarded.

Keys may be bound to networks, and refusals of anonymous callers are rate-limited by address, so the client
must not be able to choose its address. `X-Forwarded-For` is a list to which each hop appends. Only the
entries written by trusted hops can be believed, so it is read from the right, and nothing to the left
of the first untrusted entry is even parsed: a client can write anything there.

When the next entry does not parse, or all entries are trusted hops, the result is the peer: the one
address that the kernel reports.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

import msgspec

from gateway.model.addresses import find_address
from gateway.model.errors import BadNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

UNIX_PEER = "local"
"""The address of a peer on a unix socket, which has no other."""

MAX_HOPS = 32  # proxies before us; a longer list of trusted hops is a loop or an attack

REMEMBERED_PEERS = 4096
REMEMBERED_LISTS = 4096
MAX_REMEMBERED_BYTES = 256  # of a list; clients begin these lists

_UNIX = "unix"  # in a configuration: trust peers on unix sockets
_WITH_PORT = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5}")


class TrustedNetworks(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The peers whose `X-Forwarded-For` is believed. Empty by default: no peer is."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    is_unix_trusted: bool = False

    def hold(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the address is in one of the networks."""
        return any(address in network for network in self.networks)


def parse_trusted_networks(texts: Iterable[str]) -> TrustedNetworks:
    """Parse networks in CIDR notation, single addresses, and `unix` for unix socket peers."""
    networks: list[IPv4Network | IPv6Network] = []
    is_unix_trusted = False
    for text in texts:
        if text == _UNIX:
            is_unix_trusted = True
            continue
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise BadNameError(
                f"{text!r} is not a network: {error}; expected CIDR such as 10.0.0.0/8, an address, or unix"
            ) from error
    return TrustedNetworks(networks=tuple(networks), is_unix_trusted=is_unix_trusted)


class Peer:
    """The other end of one connection: what does not change between its requests is determined once."""

    __slots__ = ("_own", "_trusted", "is_believed")

    def __init__(self, peer: str | None, trusted: TrustedNetworks) -> None:
        address = find_address(peer) if peer is not None else None
        self._trusted = trusted
        self._own = UNIX_PEER if peer is None else peer if address is None else str(address)
        self.is_believed = (
            trusted.is_unix_trusted if peer is None else address is not None and trusted.hold(address)
        )

    def client(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address of the client of one request."""
        if not self.is_believed:
            return self._own
        return self.named_by(b",".join([value for name, value in headers if name == b"x-forwarded-for"]))

    def named_by(self, forwarded: bytes | None) -> str:
        """The address of the client of a request with these values of `X-Forwarded-For`, joined by commas."""
        if not forwarded or not self.is_believed:
            return self._own
        is_short = len(forwarded) <= MAX_REMEMBERED_BYTES
        named = _find_client if is_short else _find_client.__wrapped__
        return named(forwarded, self._trusted) or self._own


@lru_cache(REMEMBERED_PEERS)
def peer_of(address: str | None, trusted: TrustedNetworks) -> Peer:
    """The other end of the connections from an address; None on a unix socket."""
    return Peer(address, trusted)


@lru_cache(REMEMBERED_LISTS)
def _find_client(forwarded: bytes, trusted: TrustedNetworks) -> str | None:
    """The client that a list names; None for the peer itself. It depends on nothing but its arguments."""
    # Split from the right: the unread rest to the left stays one piece, however long it is.
    for raw_hop in reversed(forwarded.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]):
        hop = find_forwarded(raw_hop)
        if hop is None:
            return None
        if not trusted.hold(hop):
            return str(hop)
    return None


def find_forwarded(raw_hop: bytes) -> IPv4Address | IPv6Address | None:
    """The address in one entry of the list, with or without a port; None when it does not parse."""
    text = raw_hop.strip(b" \t").decode("latin-1")
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    # A zone (fe80::1%eth0) names an interface of another machine.
    return None if "%" in text else find_address(text)
