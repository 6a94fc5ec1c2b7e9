"""A contender: a server that gets the same requests for the same two files as every other.

Before anything is measured, each has to give the right answer, and each that has a guard has to refuse a
wrong key: a fast server that serves wrong bytes, or serves without a key, would win every round.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

RANGE_BYTES = 16 << 20
SECONDS = 60.0
REFUSALS = (http.client.UNAUTHORIZED, http.client.FORBIDDEN, http.client.NOT_FOUND)


@dataclass(frozen=True)
class Item:
    """A file of the workload: what it is called, where its blob lies, and what is in it."""

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


@dataclass(frozen=True)
class Ask:
    """The bytes of a request, and how many bytes have to come back."""

    raw: bytes
    length: int


@dataclass(frozen=True)
class Workload:
    """What is read, and with which key."""

    small: Item
    large: Item
    token: str

    def ask(self, item: Item, first: int | None = None) -> Ask:
        """For all of a file, or for a range that begins there."""
        lines = [f"GET {item.path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {self.token}"]
        if first is not None:
            lines.append(f"Range: bytes={first}-{first + RANGE_BYTES - 1}")
        length = item.size if first is None else RANGE_BYTES
        return Ask("\r\n".join((*lines, "", "")).encode(), length)


@dataclass(frozen=True)
class Contender:
    """A server under way. `roots` are the process trees of which it consists."""

    name: str
    title: str
    port: int
    roots: tuple[int, ...]
    is_guarded: bool = True

    def renamed(self, name: str) -> Contender:
        """The same server under another name."""
        return replace(self, name=name)

    def verify_answers(self, workload: Workload, *, with_large: bool) -> None:
        """Raises when it does not serve what it should, or serves what it should not."""
        small, large = workload.small, workload.large
        self._verify(small.path, workload.token, 200, small.size, small.sha256)
        if with_large:
            self._verify(large.path, workload.token, 200, large.size, large.sha256)
            first = 3 * RANGE_BYTES
            with large.blob.open("rb") as file:
                file.seek(first)
                part = sha256(file.read(RANGE_BYTES)).hexdigest()
            span = f"bytes={first}-{first + RANGE_BYTES - 1}"
            self._verify(large.path, workload.token, 206, RANGE_BYTES, part, span)
        if self.is_guarded:
            wrong = workload.token[:-1] + ("0" if workload.token[-1] != "0" else "1")
            for path in (small.path, large.path):
                for token in (wrong, None):
                    self._verify_refused(path, token)

    def _verify(
        self, path: str, token: str, status: int, size: int, digest: str, span: str | None = None
    ) -> None:
        found, count, hashed = self._get(path, token, span)
        if (found, count, hashed) != (status, size, digest):
            raise RuntimeError(
                f"{self.title} answers {found} with {count} bytes to {path} ({span}), not {status}"
            )

    def _verify_refused(self, path: str, token: str | None) -> None:
        status, *_ = self._get(path, token)
        if status not in REFUSALS:
            raise RuntimeError(
                f"{self.title} answers {status} to a wrong key or none: its guard does not guard"
            )

    def _get(self, path: str, token: str | None, span: str | None = None) -> tuple[int, int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", path, headers=headers | ({"Range": span} if span else {}))
            answer, digest, count = connection.getresponse(), sha256(), 0
            while piece := answer.read(1 << 20):
                digest.update(piece)
                count += len(piece)
            return answer.status, count, digest.hexdigest()
        finally:
            connection.close()
