"""Provenance: what was said of a file before it was served, where that binds us later.

An *origin* says whose URL was handed out for a file without a digest: ours, or the provider's. The engine
keeps the URL as the name of the content and refuses the package for good when it becomes another one, so
the first answer decides for ever.

An *attestation* is the word of the provider, or of an operator, that a model has files with these digests.
Where links across owners count only with one, it is what a link stands on (I2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model.facts import SOURCE_CLI

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MAX_ATTESTED = 20_000  # digests of one model: 320 kB of record, and more files than any model has


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose URL stands for a file without a digest."""

    model: ModelId
    package: PackageId
    handle: FileHandle
    is_ours: bool
    generation: int = 0
    source: str = SOURCE_CLI


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """The digests that were said to be a model's."""

    model: ModelId
    digests: frozenset[Md5]
    generation: int = 0
    source: str = SOURCE_CLI
