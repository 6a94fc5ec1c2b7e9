"""Requests that are known by their bytes: what each of them was admitted as.

A digest of the bytes and the peer are the key: what a request means depends on nothing else. Of its
fields only those are kept that a record is made of, so no credential is, wherever it stands (I8). What
is kept is the admission, which holds the file's content. So there are two bounds: how many requests, and
how many bytes of these and of different files; a file that the disk no longer has as it was must not
stay in memory only because somebody once asked for it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.audit.parts import recorded_headers

if TYPE_CHECKING:
    from gateway.model.access import WireRequest
    from gateway.model.verdicts import Admission, HeldFile

    RequestKey = tuple[bytes, str | None]

MOST_REQUESTS = 4096  # a client and what it asks for; some 3 kB each, tails of records included


def request_key(raw_request: bytes, peer: str | None) -> RequestKey:
    """Under what a request is known."""
    return sha256(raw_request).digest(), peer


class KnownRequests:
    """The known requests of a worker; the one that became known first goes first."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._admissions: OrderedDict[RequestKey, tuple[Admission, HeldFile]] = OrderedDict()
        self._uses: dict[int, int] = {}  # of a file, by its id: the entries that use it hold it
        self._bytes = 0

    def find(self, key: RequestKey) -> Admission | None:
        """What a request was admitted as."""
        known = self._admissions.get(key)
        return None if known is None else known[0]

    def learn(self, key: RequestKey, admission: Admission, file: HeldFile) -> None:
        """Know this request from here on."""
        self.forget(key)
        request = replace(admission.request, headers=recorded_headers(admission.request.headers))
        self._admissions[key] = replace(admission, request=request), file
        self._bytes += _size_of(request)
        self._count(file, 1)
        while len(self._admissions) > MOST_REQUESTS or self._bytes > self._max_bytes:
            self.forget(next(iter(self._admissions)))

    def forget(self, key: RequestKey) -> None:
        """Know it no longer."""
        known = self._admissions.pop(key, None)
        if known is not None:
            self._bytes -= _size_of(known[0].request)
            self._count(known[1], -1)

    def _count(self, file: HeldFile, more: int) -> None:
        before = self._uses.get(id(file), 0)
        self._uses[id(file)] = before + more
        if before == 0:
            self._bytes += file.size
        elif before + more == 0:
            self._bytes -= file.size
            del self._uses[id(file)]


def _size_of(request: WireRequest) -> int:
    """What a client can make larger at will."""
    return len(request.raw_path) + sum(len(value) for _, value in request.headers)
