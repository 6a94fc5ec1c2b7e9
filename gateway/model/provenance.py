"""Provenance: records of earlier answers about a file that later answers have to respect.

An *origin* says whose URL was given out for a file without a digest: ours, or the provider's. The engine
keeps the URL as the identity of the content and refuses the package permanently when it changes, so the first
answer is binding.

An *attestation* is a statement by the provider, or by an operator, that a model has files with these digests.
Where links across owners count only if attested, it is what permits the link (I2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model.facts import SOURCE_CLI

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MAX_ATTESTED = 20_000  # digests of one model: a record of 320 kB, and more files than any model has


class Origin(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whose URL identifies a file without a digest."""

    model: ModelId
    package: PackageId
    handle: FileHandle
    is_ours: bool
    generation: int = 0
    source: str = SOURCE_CLI


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """The digests attested for a model."""

    model: ModelId
    digests: frozenset[Md5]
    generation: int = 0
    source: str = SOURCE_CLI
