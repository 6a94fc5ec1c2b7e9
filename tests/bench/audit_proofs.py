"""What proofs cost: `.venv/bin/python tests/bench/audit_proofs.py [--quick] [--json FILE]`.

- `prove_ms`: the proof of a record, found by its id in a log of a million records, as a tenant gets it.
- `verify_records_per_s`: the whole log verified on one core, Merkle roots and all.
- Beside them: the check of a proof, the CPU of writing a read (decision and outcome), and the share of that
  which is the tree of a head.

`measure` can be called by another program, which has a report of its own.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from program import amount_of, arguments_of, run

from gateway.audit import AuditLog, verify
from gateway.audit.head import fingerprint
from gateway.audit.merkle import root_of
from gateway.audit.promise import PROMISED_RECORDS
from gateway.audit.proof import check_proof
from gateway.audit.proof_search import prove
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.facts import DEFAULT_SCOPES, KeyKind
from gateway.model.header_block import Headers
from gateway.model.names import KeyId, TenantId
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Admission, Allowed, Ending, HeldFile, Outcome

if TYPE_CHECKING:
    from report import Report

OUTCOME = Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=4096, milliseconds=1.25)
BATCH = 16  # reads that are answered in one turn of the event loop
PER_SECOND = 5_000  # reads, by the clock of the log


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int
    proofs: int
    verifications: int


FULL = Size(records=1_000_000, proofs=300, verifications=5)
QUICK = Size(records=200_000, proofs=50, verifications=3)
SMOKE = Size(records=3_200, proofs=5, verifications=1)


class Clock:
    """The time of the log, which passes with what is written."""

    def __init__(self) -> None:
        self.time = 1_790_000_000.0

    def now(self) -> float:
        return self.time


def measure(report: Report, size: Size) -> None:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="cg-bench-") as folder:
        measure_in(report, size, Path(folder) / "audit")


def measure_in(report: Report, size: Size, folder: Path) -> None:
    """All figures, with the log in this folder."""
    key, clock = Ed25519PrivateKey.generate(), Clock()
    keys = {fingerprint(key.public_key()): key.public_key()}
    ids, seconds = write_log(folder, key, clock, size.records)
    entries = [bytes([number & 0xFF]) * 32 for number in range(PROMISED_RECORDS)]
    began = time.process_time()
    for _ in range(20):
        root_of(entries)
    tree_us = (time.process_time() - began) / 20 / PROMISED_RECORDS * 1e6
    report.row(
        "written_read_us", seconds / (size.records / 2) * 1e6, "CPU of a read's two records, as written"
    )
    report.row("tree_us", 2 * tree_us, "of this, in the trees of heads")
    taken, checked = [], []
    chance = random.Random(1)
    for record_id in chance.choices(ids, k=size.proofs):
        began = time.perf_counter()
        proof = prove(folder, record_id, now=clock.time)
        taken.append((time.perf_counter() - began) * 1000)
        if not isinstance(proof, bytes):
            raise TypeError("a record of the benchmark's own log has no proof")
        began = time.perf_counter()
        if check_proof(proof, keys).record.id != record_id:
            raise RuntimeError("a proof of another record")
        checked.append((time.perf_counter() - began) * 1000)
    report.spread("prove_ms", taken, f"the proof of a record, among {size.records:,}")
    report.spread("check_proof_ms", checked, "the check of a proof, without the log")
    middle = sorted(taken)[len(taken) // 2]
    report.figure("prove_ms", middle, target=50, meaning=f"the median, in a log of {size.records:,} records")
    rates = []
    for _ in range(size.verifications):
        began = time.process_time()
        found = verify(folder, trusted_keys=[key.public_key()])
        rates.append(found.records / (time.process_time() - began))
        if not found.is_intact:
            raise RuntimeError("the benchmark's own log does not verify")
    report.figure("verify_records_per_s", max(rates), target=250_000, meaning="one core, with Merkle roots")


def write_log(folder: Path, key: Ed25519PrivateKey, clock: Clock, records: int) -> tuple[list[str], float]:
    """Write reads; returns the ids of their decisions, and the CPU seconds that it took."""
    log = AuditLog(folder=folder, node="bench", signing_key=key, clock=clock, on_left=lambda: None)
    batch = [admission(number) for number in range(BATCH)]
    ids: list[str] = []
    began = time.process_time()
    for _ in range(records // 2 // BATCH):
        clock.time += BATCH / PER_SECOND
        for receipt in log.record_all(batch):
            if isinstance(receipt, str):
                raise TypeError("the benchmark's own reads are allowed")
            ids.append(receipt.record_id)
            receipt.close(OUTCOME)
    log.close()
    return ids, time.process_time() - began


def admission(number: int) -> Admission:
    """An allowed read, as a client's request becomes one."""
    principal = Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId(f"key_{number:012}"),
        key_name="a key",
        tenant=TenantId(f"tenant-{number}"),
        scopes=DEFAULT_SCOPES,
        expires_at=None,
    )
    model = f"tenant-{number}/model/1"
    resource = Resource(kind=ResourceKind.FILE, model=model, package="pkg", file="weights.onnx")
    stamp = Stamp(7, ())
    headers = (
        (b"host", b"models.example"),
        (b"authorization", b"Bearer cg_test_AAAAAAAAAAAAAAAAAAAAAAAA000000"),
        (b"user-agent", b"python-requests/2.32.3"),
        (b"accept", b"*/*"),
    )
    return Admission(
        request=WireRequest(
            method="GET",
            raw_path=b"/v1/models/" + model.encode() + b"/-/pkg/weights.onnx",
            query=b"",
            headers=headers,
            client="192.0.2.7",
            route="/v1/models/{model}/-/{package}/{file}",
            trace_id=None,
            received_at=1.0,
        ),
        allowed=Allowed(
            access=Access(principal=principal, action=Action.READ, resource=resource),
            model=model,
            policies=("tenant-reads-own",),
            grant="owner",
            stamp=stamp,
        ),
        found=HeldFile(
            descriptor=-1,
            content=b"abc",
            headers=Headers.of(),
            size=4096,
            identity=(1, 2, 3, 4, 5),
            model=model,
            package="pkg",
            handle="weights.onnx",
            md5="d41d8cd98f00b204e9800998ecf8427e",
            sha256="ab" * 32,
        ),
        stamp=stamp,
        key_stamp=stamp,
    )


if __name__ == "__main__":
    chosen = arguments_of(__doc__, "a smaller log").parse_args()
    sys.exit(
        run("Proofs", partial(measure, size=amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)), chosen)
    )
