"""Whether a clock tells refused keys apart: `.venv/bin/python tests/bench/refusals.py [--quick]`.

A revoked, disabled, expired or decoy key, and one that is bound to another network, is refused with the same
answer as a key that nobody knows. Here one client on one connection asks with all of them in turn, in random
order, and compares the times: the figure is the AUC, the share of pairs in which the known key took longer.
0.5 tells nothing; 0.6 tells something after some hundred requests. It is folded, so that 0.4 counts as 0.6.

`again` asks with the same keys over and over, within the limits of the audit log and beyond; `once` asks with
each key once in its life. `cpu` is what a refusal takes of a worker's time, for ever new keys.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from installation import Installation
from processes import LOAD_CORE, cpu_seconds, on_cores, tree
from program import amount_of, arguments_of, run
from rounds import add_row

from gateway.adapters.clock import SystemClock
from gateway.directory.edits import keys as edits
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.tokens import mint_token
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId
from gateway.operations.session import open_session

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from report import Report

    from gateway.operations.session import OperatorSession

TENANT = TenantId("acme")
UNKNOWN = "unknown"
KINDS = ("revoked", "disabled", "expired", "decoy", "elsewhere")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    again: int  # requests of each kind in a run
    once: int  # keys of each kind in a run
    strangers: int


FULL = Size(runs=7, again=3000, once=400, strangers=20_000)
QUICK = Size(runs=2, again=300, once=50, strangers=1000)
SMOKE = Size(runs=1, again=20, once=8, strangers=50)


async def _make(session: OperatorSession, kind: str, count: int) -> list[str]:
    """Keys of this kind."""
    if kind == UNKNOWN:
        return [mint_token("bench") for _ in range(count)]
    now = session.clock.now()
    order = KeyOrder(
        now=now - 100,
        kind=KeyKind.TENANT,
        tenant=TENANT,
        name="bench",
        networks=("203.0.113.0/24",) if kind == "elsewhere" else (),
        expires_at=now - 1 if kind == "expired" else None,
        **({"is_decoy": True} if kind == "decoy" else {}),
    )
    tokens = []
    for _ in range(count):
        new = issue_key(order, environment="bench", peppers=session.peppers)
        tokens.append(new.token or "")
        edit = partial(edits.create_key, key=new.key, digest=new.digest)
        await session.perform("keys.create", edit, wait=False)
        if kind in {"revoked", "disabled"}:
            end = edits.revoke_key if kind == "revoked" else edits.disable_key
            await session.perform("keys.end", partial(end, key_id=new.key.key_id, now=now), wait=False)
    return tokens


async def _furnish(installation: Installation, counts: dict[str, int]) -> dict[str, list[str]]:
    async with open_session(installation.settings) as session:
        now = SystemClock().now()
        await session.perform(
            "tenants.create", partial(create_tenant, tenant_id=TENANT, name="", now=now), wait=False
        )
        return {kind: await _make(session, kind, count) for kind, count in counts.items()}


def _request(key: str) -> bytes:
    return f"GET /v1/whoami HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def _ask(connection: socket.socket, request: bytes) -> int:
    """Nanoseconds until the answer is there; it is one segment."""
    began = time.perf_counter_ns()
    connection.sendall(request)
    answer = connection.recv(65536)
    took = time.perf_counter_ns() - began
    if not answer.startswith(b"HTTP/1.1 401 "):
        raise RuntimeError(f"not refused: {answer[:200]!r}")
    return took


@dataclass(frozen=True)
class Difference:
    """What tells a known key from an unknown one in a run."""

    auc: float
    more_us: float  # that the median of the known key takes


def _difference(known: Sequence[int], unknown: Sequence[int]) -> Difference:
    return Difference(_auc(known, unknown), (median(known) - median(unknown)) / 1000)


def _auc(known: Sequence[int], unknown: Sequence[int]) -> float:
    """The share of pairs in which the known key took longer, folded at one half."""
    both = sorted([*((took, 1) for took in known), *((took, 0) for took in unknown)])
    ranks = sum(rank for rank, (_, is_known) in enumerate(both, 1) if is_known)
    area = (ranks - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown))
    return max(area, 1 - area)


def _worker() -> int:
    """The process that answers requests."""
    [pid] = [
        pid
        for pid in tree([os.getpid()])
        if b"gateway.server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


def _measure(port: int, asked: list[tuple[str, bytes]]) -> dict[str, list[int]]:
    """The times of these requests by kind, asked in random order on one connection."""
    random.shuffle(asked)
    times: dict[str, list[int]] = {}
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(200):
            _ask(connection, _request(mint_token("bench")))
        gc.disable()
        for kind, request in asked:
            times.setdefault(kind, []).append(_ask(connection, request))
        gc.enable()
    return times


def measure(report: Report, size: Size, kinds: Sequence[str]) -> None:
    with Installation.made() as installation:
        counts = dict.fromkeys((UNKNOWN, *kinds), size.runs * size.once)
        keys = asyncio.run(_furnish(installation, counts))
        again: dict[str, list[Difference]] = {kind: [] for kind in kinds}
        once: dict[str, list[Difference]] = {kind: [] for kind in kinds}
        cpu = []
        with installation.serving(workers=1) as port, on_cores(LOAD_CORE):
            for number in range(size.runs):
                first = number * size.once
                fresh = {kind: all_of[first : first + size.once] for kind, all_of in keys.items()}
                asked = [(kind, _request(key)) for kind, some in fresh.items() for key in some]
                times = _measure(port, asked)
                same = {kind: some[:4] for kind, some in fresh.items()}
                asked = [
                    (kind, _request(some[turn % len(some)]))
                    for kind, some in same.items()
                    for turn in range(size.again)
                ]
                times_again = _measure(port, asked)
                for kind in kinds:
                    once[kind].append(_difference(times[kind], times[UNKNOWN]))
                    again[kind].append(_difference(times_again[kind], times_again[UNKNOWN]))
                worker = _worker()
                before = cpu_seconds([worker])
                _measure(port, [("new", _request(mint_token("bench"))) for _ in range(size.strangers)])
                cpu.append((cpu_seconds([worker]) - before) / (size.strangers + 200) * 1e6)
    for kind in kinds:
        for name, found, how in (("again", again, "the same keys again"), ("once", once, "each key once")):
            against = f"{kind} against unknown, {how}"
            add_row(report, f"{name}_{kind}_auc", [one.auc for one in found[kind]], f"AUC of {against}")
            more = [one.more_us for one in found[kind]]
            add_row(report, f"{name}_{kind}_more_us", more, f"between the medians of {against}")
    add_row(report, "refusal_new_key_cpu_us", cpu, "CPU time of a refusal of a key that nobody knows")


def main() -> int:
    parser = arguments_of(__doc__ or "", "fewer runs of fewer requests")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="only these")
    chosen: argparse.Namespace = parser.parse_args()
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    return run("Refused keys", lambda report: measure(report, size, chosen.kinds), chosen)


if __name__ == "__main__":
    sys.exit(main())
