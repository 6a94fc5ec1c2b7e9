"""What is in the cache of a delivery benchmark, and who may read it.

Twenty tenants have five models each, and each model a package of two files of 10 KB, as the engine writes
them: a link in the package to a blob, a manifest, locks. Each tenant has two keys. One more tenant has a
large file of 1 GB, and a package of eight large files, as the engine would load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import file_digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RANGE_BYTES = 16 << 20
RANGES_OF_A_PART = 8  # as the engine requests a large file: eight ranges, of 16 MiB or more


@dataclass(frozen=True)
class Item:
    """A file: what it is called, where its blob lies, and what is in it."""

    path: str
    blob: Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, blob: Path) -> Item:
        """Reads the file once, after which it is in memory."""
        with blob.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        return cls(path, blob, blob.stat().st_size, digest)

    @property
    def md5(self) -> str:
        """The engine names a blob by it."""
        return self.blob.name

    @property
    def package_path(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def model_path(self) -> str:
        return self.path.partition("/-/")[0]

    @property
    def model(self) -> str:
        return self.model_path.removeprefix("/v1/models/")

    @property
    def link_path(self) -> str:
        """Where a signed link to it points."""
        return self.path.replace("/v1/models/", "/d/", 1)


@dataclass(frozen=True)
class Tenant:
    """Who reads: each with its own keys and files."""

    name: str
    tokens: tuple[str, ...]
    files: tuple[Item, ...]


@dataclass(frozen=True)
class Ask:
    """The bytes of a request for a large file or a range of it, and how many bytes have to come back."""

    item: Item
    target: str
    headers: tuple[tuple[str, str], ...]
    first: int
    length: int

    @property
    def raw(self) -> bytes:
        lines = [
            f"GET {self.target} HTTP/1.1",
            "Host: bench",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join((*lines, "", "")).encode()


@dataclass(frozen=True)
class Workload:
    """All of it. `links`, `part_links` and `etags` are by the path of their file."""

    tenants: tuple[Tenant, ...]
    token: str  # of the tenant of the large files
    large: Item
    parts: tuple[Item, ...]
    unknown_tokens: tuple[str, ...]
    links: dict[str, str]
    part_links: dict[str, str]
    etags: dict[str, str]

    def readers(self) -> Iterator[tuple[Tenant, str, Item]]:
        """Every file with every key that may read it."""
        for tenant in self.tenants:
            for item in tenant.files:
                for token in tenant.tokens:
                    yield tenant, token, item

    @property
    def smallest_bytes(self) -> int:
        return min(item.size for tenant in self.tenants for item in tenant.files)

    def whole(self) -> Ask:
        """All of the large file."""
        return Ask(self.large, self.large.path, self._key(), 0, self.large.size)

    def ranges(self) -> list[Ask]:
        """The large file in ranges of 16 MiB, by key."""
        return [
            self._range(self.large, self.large.path, first, RANGE_BYTES, self._key())
            for first in range(0, self.large.size - RANGE_BYTES, RANGE_BYTES)
        ]

    def part_ranges(self) -> list[Ask]:
        """The package of eight files, each in eight ranges, by signed link: what the engine sends at once."""
        return [
            self._range(item, self.part_links[item.path], number * length, length, ())
            for item in self.parts
            for length in (item.size // RANGES_OF_A_PART,)
            for number in range(RANGES_OF_A_PART)
        ]

    def _key(self) -> tuple[tuple[str, str], ...]:
        return (("Authorization", f"Bearer {self.token}"),)

    @staticmethod
    def _range(item: Item, target: str, first: int, length: int, headers: tuple[tuple[str, str], ...]) -> Ask:
        return Ask(item, target, (*headers, ("Range", f"bytes={first}-{first + length - 1}")), first, length)
