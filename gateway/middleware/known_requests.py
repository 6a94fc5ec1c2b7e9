"""Requests that are known by their bytes: what each of them was admitted as.

A digest of the bytes and the peer are the key: what a request means depends on nothing else. Of its
fields only those are kept that a record is made of, so no credential is, wherever it stands (I8). What
is kept is the admission, with the file's content and the records that it stands on: it is charged both,
each once however many requests hold it. A file that the disk no longer has as it was must not stay in
memory only because somebody once asked for it.
"""

from __future__ import annotations

from hashlib import sha256
from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.audit.record_fields import recorded_headers
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.verdicts import HeldFile

if TYPE_CHECKING:
    from gateway.model.verdicts import Admission

    RequestKey = tuple[bytes, str | None]

MOST_REQUESTS = 4096  # a client and what it asks for
REQUEST_BYTES = 3_000  # an admission with its request, access, caller, stamps and key: measured, rounded up
FIELD_BYTES = 150  # of a header's field, beside its texts


def request_key(raw_request: bytes, peer: str | None) -> RequestKey:
    """Under what a request is known."""
    return sha256(raw_request).digest(), peer


class KnownRequests(BoundedMemory["RequestKey", "Admission"]):
    """The known requests of a worker; the one that became known first goes first.

    Whoever peeks at one has the guard look whether it holds still.
    """

    __slots__ = ()

    def __init__(self, *, max_bytes: int) -> None:
        super().__init__(
            max_bytes=max_bytes,
            max_entries=MOST_REQUESTS,
            weigh=_held_bytes,
            stands_on=attrgetter("stamp.leaves"),
            other_parts=_files,
        )

    def learn(self, key: RequestKey, admission: Admission) -> None:
        """Know this request from here on."""
        request = replace(admission.request, headers=recorded_headers(admission.request.headers))
        self.put(key, replace(admission, request=request))


def _files(admission: Admission) -> tuple[HeldFile, ...]:
    return (admission.found,) if isinstance(admission.found, HeldFile) else ()


def _held_bytes(key: RequestKey, admission: Admission) -> int:
    """What a request holds alone: what a client can make larger at will, and names."""
    request, allowed = admission.request, admission.allowed
    resource = allowed.access.resource
    texts = (request.raw_path, request.client, key[1], resource.model, allowed.model, resource.file)
    names = sum([getsizeof(text) for text in (*texts, resource.package, allowed.grant) if text is not None])
    fields = sum([FIELD_BYTES + len(value) for _, value in request.headers])
    tables = 16 * len(admission.stamp.leaves)
    return REQUEST_BYTES + names + fields + tables
