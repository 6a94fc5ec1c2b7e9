"""What the audit tests share: a clock that is set by hand, and requests to record."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import AuditLog, Durability, Limits, Report, verify
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.errors import Reason
from gateway.model.facts import DEFAULT_SCOPES, KeyKind, Leaf, Stamp
from gateway.model.verdicts import Admission, Allowed, Ending, OpenFile, Outcome, Rejection

if TYPE_CHECKING:
    from pathlib import Path

START = 1_790_000_000.25


@dataclass
class HandClock:
    """A clock that stands until it is moved."""

    time: float = START

    def now(self) -> float:
        return self.time


@dataclass
class Room:
    """An audit folder with the means to write to it."""

    folder: Path
    clock: HandClock = field(default_factory=HandClock)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def open(self, *, durability: Durability = Durability.PROCESS, **limits) -> AuditLog:
        return AuditLog(
            folder=self.folder,
            node="node-1",
            signing_key=self.key,
            clock=self.clock,
            durability=durability,
            limits=Limits(**limits),
        )

    def verify(self) -> Report:
        return verify(self.folder)

    @property
    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*-0*.jsonl"))

    def lines(self) -> list[bytes]:
        return [line for path in self.segments for line in path.read_bytes().splitlines()]

    def request(self, *, client="192.0.2.7", agent=b"curl/8.5.0", method="GET", **other) -> WireRequest:
        return WireRequest(
            method=method,
            raw_path=b"/v1/models/acme/yolo/-/p1/weights.onnx?api_key=raw-path-secret",
            query=b"api_key=query-secret",
            headers=(
                (b"authorization", b"Bearer header-secret"),
                (b"cookie", b"session=cookie-secret"),
                (b"user-agent", agent),
            ),
            client=client,
            route="/v1/models/{model}/-/{package}/{file}",
            trace_id=other.get("trace_id", "0af7651916cd43dd8448eb211c80319c"),
            received_at=START,
        )

    def principal(self) -> Principal:
        return Principal(
            kind=KeyKind.TENANT,
            key_id="key_abcdefghijkl",
            key_name="the name of a key",
            tenant="acme",
            scopes=DEFAULT_SCOPES,
            expires_at=None,
        )

    def admission(self, model: str = "acme/yolo", **request) -> Admission:
        resource = Resource(kind=ResourceKind.FILE, model="acme/alias", package="p1", file="weights.onnx")
        stamp = Stamp(7, (Leaf(b"cg:key:0123", b"redis-record-secret"),))
        return Admission(
            request=self.request(**request),
            allowed=Allowed(
                access=Access(principal=self.principal(), action=Action.READ, resource=resource),
                model=model,
                policies=("tenant-reads-own",),
                grant="grant_1",
                stamp=stamp,
            ),
            found=OpenFile(
                descriptor=os.open(os.devnull, os.O_RDONLY),
                size=4096,
                identity=(1, 2, 3, 4, 5),
                model=model,
                package="p1",
                handle="weights.onnx",
                md5="d41d8cd98f00b204e9800998ecf8427e",
            ),
            stamp=stamp,
            key_stamp=stamp,
        )

    def denial(self, reason: Reason = Reason.NOT_PERMITTED, **request) -> Rejection:
        resource = Resource(kind=ResourceKind.MODEL, model="globex/secret-model")
        return Rejection(
            request=self.request(**request),
            reason=reason,
            principal=self.principal(),
            resource=resource,
            action="discover",
            stamp=Stamp(9, ()),
        )

    def nobody(self, client: str = "192.0.2.7", reason: Reason = Reason.UNKNOWN_KEY) -> Rejection:
        return Rejection(request=self.request(client=client), reason=reason)

    def outcome(self) -> Outcome:
        return Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=4096, milliseconds=1.23456)

    def write(self, log: AuditLog, records: int) -> list[str]:
        """Some decisions of both kinds; their ids."""
        ids = []
        for index in range(records):
            self.clock.time += 0.001
            if index % 2:
                ids.append(log.reject(self.denial()))
            else:
                admission = self.admission()
                admission.let_go()
                ids.append(log.admit(admission).record_id)
        return ids


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "audit")
