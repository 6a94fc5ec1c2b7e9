"""What may be changed of a key that exists: a name, what it may do, from where, and its end."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from gateway.model.facts import Scope  # noqa: TC001 -- msgspec resolves it

MAX_REASON_CHARACTERS = 200  # why a key was revoked: a line in a list, and in each of its records


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """The values that a key is to have; what is unset stays as it is. No expiry (None) is a value."""

    name: str | UnsetType = UNSET
    scopes: frozenset[Scope] | UnsetType = UNSET
    networks: tuple[str, ...] | UnsetType = UNSET
    expires_at: float | UnsetType | None = UNSET

    @property
    def named(self) -> tuple[str, ...]:
        """The fields that it sets."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) is not UNSET)
