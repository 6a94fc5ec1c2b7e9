"""Fixtures of the audit tests: a clock that is set by hand, an audit folder, and requests to record."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from gateway.audit import AuditLog, Durability, Limits, VerifyReport, verify
from gateway.audit.envelope import Envelopes
from gateway.audit.folder import node_of
from gateway.audit.record import ChainPosition, OpenRecord, encode, seal
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.errors import Reason
from gateway.model.facts import DEFAULT_SCOPES
from gateway.model.header_block import Headers
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Admission, Allowed, Ending, HeldFile, OpenFile, Outcome, Rejection
from tests import samples

if TYPE_CHECKING:
    from pathlib import Path

START = 1_790_000_000.25


@dataclass
class HandClock:
    """A clock that stands still until a test sets it."""

    time: float = START

    def now(self) -> float:
        return self.time


@dataclass
class AuditFolder:
    """An audit folder, with methods to write to it, forge it and verify it."""

    folder: Path
    clock: HandClock = field(default_factory=HandClock)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def open(self, *, durability: Durability = Durability.PROCESS, on_left=None, **limits) -> AuditLog:
        return AuditLog(
            folder=self.folder,
            node="node-1",
            signing_key=self.key,
            clock=self.clock,
            durability=durability,
            limits=Limits(**limits),
            on_left=on_left,
        )

    def verify(self) -> VerifyReport:
        return verify(self.folder)

    @property
    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*-0*.jsonl"))

    @property
    def heads(self) -> Path:
        return self.folder / "heads.jsonl"

    def listed(self) -> list[dict[str, Any]]:
        """The listed heads, in order."""
        return [json.loads(line)["head"] for line in self.heads.read_bytes().splitlines()]

    def kill(self, log: AuditLog) -> None:
        """The effect of `kill -9` on a log's process, as seen in its files: its locks are released."""
        writer = log._writer
        writer._segment.close()
        os.close(writer._live._descriptor)
        writer._process = -1

    def forge(
        self,
        path: Path,
        count: int = 1,
        *,
        seconds: float = 0.5,
        chain: str | None = None,
        kind: str = "open",
    ) -> None:
        """Append records with right hashes to a segment, as an attacker who may write there can."""
        lines = path.read_bytes().splitlines() if path.exists() else []
        last = json.loads(lines[-1]) if lines else {"seq": 0, "hash": "0" * 64, "chain": chain}
        head = next((json.loads(line) for line in reversed(lines) if b'"kind":"head"' in line), None)
        moment = datetime.fromisoformat(head["time"]).timestamp() if head else self.clock.time
        links = ChainPosition(last["chain"])
        links.seq, links.hash = last["seq"], last["hash"]
        envelopes = Envelopes(node_of(links.chain))
        for _ in range(count):
            record = OpenRecord(**envelopes.members(moment + seconds, links), reason="forged")
            line, links.hash = seal(encode(record).replace(b'"open"', b'"%b"' % kind.encode(), 1))
            links.seq += 1
            with path.open("ab") as file:
                file.write(line)

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
        return samples.principal(key_name="the name of a key", scopes=DEFAULT_SCOPES)

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

    def held_admission(self) -> Admission:
        """An admission of a file in memory: its outcome may be deferred to the next record."""
        admission = self.admission()
        admission.release()
        found = HeldFile(
            descriptor=-1, content=b"abc", headers=Headers.of(),
            size=3, identity=(1, 2, 3, 4, 5), model="acme/yolo", package="p1",
            handle="weights.onnx", md5="d41d8cd98f00b204e9800998ecf8427e",
        )  # fmt: skip
        return replace(admission, found=found)

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
        """Record some decisions of both kinds; returns their ids."""
        ids = []
        for index in range(records):
            self.clock.time += 0.001
            if index % 2:
                ids.append(log.reject(self.denial()))
            else:
                admission = self.admission()
                admission.release()
                ids.append(log.admit(admission).record_id)
        return ids


@pytest.fixture
def audit(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audit")
