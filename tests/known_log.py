"""An audit log with known findings in it, for what reads logs: questions, queries, counts, exports.

It is written without a gateway: chains of sealed records at chosen times, of a node that was in use for some
days. Each finding stands in it once, so that a query that finds more or less is wrong.

    acme      key_laptop reads its models in working hours, day by day, from 10.1.2.0/24
              key_stolen does so too, until somebody reads 60 files of 20 models from 203.0.113.9 in a minute
              key_gone is revoked, and used three times after that
    globex    key_prober asks for 40 names that it may not know of
              key_waiting is refused a model, gets a grant, and reads it
    nobody    the decoy key is used once; 500 refusals of unknown keys within a second
    operator  cli:eve changes a policy at three in the night of a Sunday
    the log   a gap of a minute; a chain that was recovered, with three records that are not proven
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gateway.audit.folder import LIVE_NAME, segment_name
from gateway.audit.record import (
    SCHEMA_VERSION,
    ChainPosition,
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    GapRecord,
    HeadRecord,
    OpenRecord,
    OutcomeRecord,
    RequestPart,
    ResourcePart,
    SummaryRecord,
    encode,
    seal,
)
from gateway.audit.timeline import RecordIds, time_text

if TYPE_CHECKING:
    from pathlib import Path

NODE = "node-1"
FIRST = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)  # a Monday
DAYS = 5
FILE_BYTES = 1000
LAPTOP, STOLEN, GONE = "key_laptop000001", "key_stolen000001", "key_gone00000001"
PROBER, WAITING, DECOY = "key_prober000001", "key_waiting00001", "key_decoy0000001"
RECORDS_OF = {"acme": "ten_acme00000001", "globex": "ten_globex000001"}
THIEF = "203.0.113.9"


@dataclass
class WrittenChain:
    """One chain, written line by line."""

    folder: Path
    chain: str
    position: ChainPosition = field(init=False)
    ids: RecordIds = field(default_factory=RecordIds)

    def __post_init__(self) -> None:
        self.position = ChainPosition(self.chain)
        self.path = self.folder / segment_name(self.chain, 1)

    def add(self, kind: type, at: datetime, **fields: Any) -> str:
        """Append a record; its id."""
        now = at.timestamp()
        record_id = self.ids.next(now)
        record = kind(
            schema=SCHEMA_VERSION,
            id=record_id,
            chain=self.chain,
            seq=self.position.seq + 1,
            prev=self.position.hash,
            time=time_text(now),
            node=NODE,
            **fields,
        )
        line, self.position.hash = seal(encode(record))
        self.position.seq += 1
        with self.path.open("ab") as file:
            file.write(line)
        return record_id

    def read(
        self,
        at: datetime,
        key: str,
        tenant: str,
        model: str,
        *,
        client: str,
        file: str = "weights.onnx",
        **other,
    ) -> str:
        """An allowed read of a file, with its outcome."""
        decision_id = self.add(
            DecisionRecord,
            at,
            decision="allow",
            reason="permitted",
            tenant=tenant,
            tenant_record=RECORDS_OF[tenant],
            key_id=key,
            principal="tenant",
            action=other.get("action", "read"),
            resource=ResourcePart("file", model, model, "p1", file, "ab" * 16, "cd" * 32),
            size=FILE_BYTES,
            request=_request(client),
        )
        self.add(
            OutcomeRecord,
            at + timedelta(milliseconds=20),
            decision_id=decision_id,
            tenant=tenant,
            tenant_record=RECORDS_OF[tenant],
            key_id=key,
            ending="complete",
            status=200,
            bytes=FILE_BYTES,
            microseconds=900,
        )
        return decision_id

    def refuse(self, at: datetime, reason: str, *, client: str, model: str | None = None, **who: Any) -> str:
        """A refusal."""
        resource = None if model is None else ResourcePart("model", requested=model)
        return self.add(
            DecisionRecord,
            at,
            decision="deny",
            reason=reason,
            action="read",
            resource=resource,
            request=_request(client),
            **who,
        )

    def change(self, at: datetime, actor: str, action: str, **fields: Any) -> str:
        """A change that was made."""
        change_id = self.add(ChangeRecord, at, actor=actor, action=action, **fields)
        named = {name: fields[name] for name in ("tenant", "tenant_record", "key_id") if name in fields}
        self.add(
            ChangeOutcomeRecord, at, change_id=change_id, generation=self.position.seq, result="done", **named
        )
        return change_id


def _request(client: str) -> RequestPart:
    return RequestPart("GET", "/v1/models/{model}/-/{package}/{file}", client, "curl/8.5.0")


def write_known_log(folder: Path) -> None:
    """Write the log. Nothing about it is signed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIVE_NAME).mkdir()  # nobody writes any more
    acme = {"tenant": "acme", "tenant_record": RECORDS_OF["acme"]}
    globex = {"tenant": "globex", "tenant_record": RECORDS_OF["globex"]}
    worker = WrittenChain(folder, f"{NODE}.{int(FIRST.timestamp() * 1000):012x}-0000000a")
    worker.add(OpenRecord, FIRST, reason="start")
    for day in range(DAYS):
        for hour in range(8):
            at = FIRST + timedelta(days=day, hours=hour)
            worker.read(at, LAPTOP, "acme", "acme/cars/1", client=f"10.1.2.{hour + 1}")
            worker.read(at + timedelta(minutes=7), STOLEN, "acme", "acme/cars/1", client="10.1.2.20")
        if day == 2:
            at = FIRST + timedelta(days=day, hours=9)
            worker.read(at, LAPTOP, "acme", "acme/vans/2", client="10.1.2.1", action="infer")
    friday = FIRST + timedelta(days=4, hours=10)
    for number in range(60):
        at = friday + timedelta(seconds=number)
        model, file = f"acme/model-{number % 20}/1", f"part-{number // 20}.onnx"
        worker.read(at, STOLEN, "acme", model, client=THIEF, file=file)
    for number in range(40):
        at = friday + timedelta(minutes=5, seconds=number)
        worker.refuse(
            at, "not-permitted", client="10.9.9.9", model=f"globex/guess-{number}/1", key_id=PROBER, **globex
        )
    waited = friday + timedelta(minutes=10)
    worker.refuse(waited, "not-permitted", client="10.8.8.8", model="acme/cars/1", key_id=WAITING, **globex)
    worker.read(waited + timedelta(minutes=20), WAITING, "globex", "acme/cars/1", client="10.8.8.8")
    worker.refuse(friday + timedelta(minutes=40), "decoy-key", client="198.51.100.7", claimed_key_id=DECOY)
    worker.add(
        SummaryRecord,
        friday + timedelta(minutes=41),
        source="198.51.100.7",
        second=time_text((friday + timedelta(minutes=40, seconds=59)).timestamp()),
        count=500,
        reasons={"unknown-key": 500},
    )
    for number in range(3):
        at = friday + timedelta(minutes=50 + number)
        worker.refuse(at, "revoked-key", client="10.1.2.30", claimed_key_id=GONE, **acme)
    worker.add(
        GapRecord,
        friday + timedelta(minutes=61),
        since=time_text((friday + timedelta(minutes=60)).timestamp()),
        until=time_text((friday + timedelta(minutes=61)).timestamp()),
        refused=12,
        why="no space left on device",
    )
    worker.add(
        HeadRecord,
        friday + timedelta(minutes=62),
        state="recovered",
        segment=1,
        signer="ab" * 16,
        live=(),
        unproven_from=worker.position.seq - 2,
        signature="ab" * 64,
    )
    begun = FIRST - timedelta(hours=1)
    command = WrittenChain(folder, f"{NODE}.{int(begun.timestamp() * 1000):012x}-0000000b")
    command.add(OpenRecord, begun, reason="start")
    command.change(begun, "cli:anna", "tenants.create", **acme)
    command.change(begun, "cli:anna", "keys.create", key_id=LAPTOP, **acme)
    command.change(waited + timedelta(minutes=15), "cli:anna", "grants.add", subject=("g1",), **globex)
    command.change(friday + timedelta(minutes=45), "cli:anna", "keys.revoke", key_id=GONE, **acme)
    sunday = FIRST + timedelta(days=6) - timedelta(hours=6)
    command.change(sunday, "cli:eve", "policy.apply", subject=("grants.cedar",))
