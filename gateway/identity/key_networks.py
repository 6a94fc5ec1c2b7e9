"""Note in memory from which networks keys are used, to be compared later with those of before.

A network is what one site has: a /24 of IPv4, a /48 of IPv6. A stolen key shows by a network that it was
never used from. Like last uses (`last_uses.py`) this decides nothing and is written outside of any request. A
use from the address of the use before costs one look into a dict.

Signed links do not count: they are made to be handed on. Nor do tokens of outside issuers, whose callers,
such as the runners of a build service, come from anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model.addresses import find_network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.access import Principal
    from gateway.model.names import KeyId, TenantId
    from gateway.model.tenant_records import TenantRecordId

MAX_KEYS = 100_000  # whose latest address is remembered: some 15 MB; beyond that, all are looked up again
MAX_KNOWN = 50_000  # pairs of key and network that were noted: some 10 MB; beyond that, they are noted again
MAX_NEW = 2_000  # between two calls of `take`; further ones are noted at their next use


class NetworkUse(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A use of a key from a network that this worker had not noted for it."""

    key_id: KeyId
    tenant: TenantId | None
    tenant_record: TenantRecordId | None = None
    network: str
    at: float


class KeyNetworks:
    """The networks that keys were used from since the last `take`."""

    __slots__ = ("_known", "_moved", "_new", "latest")

    def __init__(self) -> None:
        self.latest: dict[KeyId, str] = {}  # the address of each key's latest use
        self._known: set[tuple[KeyId, str | None]] = set()
        self._new: list[NetworkUse] = []
        self._moved: dict[KeyId, str] = {}  # networks of latest uses that are not those of the uses before

    def note(self, principal: Principal, client: str, now: float) -> None:
        """Note a use of a key."""
        if principal.is_link or principal.issuer is not None:
            return
        key_id, latest = principal.key_id, self.latest
        network = find_network(client)
        if key_id not in latest and len(latest) >= MAX_KEYS:
            latest.clear()
        seen = key_id, network
        if network is not None and seen not in self._known:
            if len(self._new) >= MAX_NEW:
                return
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known.add(seen)
            self._new.append(
                NetworkUse(
                    key_id=key_id,
                    tenant=principal.tenant,
                    tenant_record=principal.tenant_record,
                    network=network,
                    at=now,
                )
            )
        if network is not None and network != find_network(latest.get(key_id, "")):
            if key_id not in self._moved and len(self._moved) >= MAX_KEYS:
                return
            self._moved[key_id] = network
        latest[key_id] = client

    def take(self) -> list[NetworkUse]:
        """Return the notes and clear them."""
        taken, self._new = self._new, []
        return taken

    def forget(self, uses: Iterable[NetworkUse]) -> None:
        """Note these again at their next use: they could not be written."""
        for use in uses:
            self._known.discard((use.key_id, use.network))
            self.latest.pop(use.key_id, None)

    def take_moved(self) -> dict[KeyId, str]:
        """Return the network of each key's latest use, where it is another than before, and clear them."""
        taken, self._moved = self._moved, {}
        return taken
