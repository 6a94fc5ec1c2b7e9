"""The audit face: what a tenant may see of the audit log.

    GET/HEAD /audit/v1/proofs/{record}     the proof of one of its own allowed requests (scope audit:read)

A proof (`audit/proof.py`) is checked with the gateway's public key, anywhere and without the gateway. There
is one for the record of an allow and for that of its outcome. Refusals have none: their records hold what the
caller may not know, such as the rules and the model behind an alias; and so do outcomes at an inference
server, which name it. Whatever has no proof for this caller, the records of other tenants among it, is
answered as absent, after the same search.

A search reads files, so it runs in threads of its own: two at a time, and few waiting, of each tenant fewer.
A key that is narrowed to some models has no proofs: what it may see of the log would depend on the record.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from gateway.audit.proof_search import Unproven, prove
from gateway.audit.record import DecisionRecord, OutcomeRecord
from gateway.audit.timeline import parse_record_id
from gateway.delivery.document import answer_json
from gateway.faces.route import FaceRoute
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Misconfigured, Reason, Refusal, Unavailable
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import RecordProof

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.audit.record import Record
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.clocks import Clock
    from gateway.model.names import TenantId
    from gateway.model.stamps import Stamp
    from gateway.model.tenant_records import TenantRecordId
    from gateway.model.verdicts import Allowed, Receipt

PROOFS_PATH = b"/audit/v1/proofs/"
THREADS = 2
MOST_WAITING = 16  # a search takes some ten milliseconds
MOST_OF_TENANT = 4  # of these: one tenant cannot take all places


class AuditFace:
    """The routes that read the audit log of this node."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "audit-proofs")
        self._searching: Counter[TenantId] = Counter()

    async def find_proof(self, request: WireRequest, allowed: Allowed) -> tuple[RecordProof, Stamp]:
        """The proof that is asked for. Raises `Refusal`, and `Unavailable` when the log cannot be read."""
        record_id = _record_id(request)
        principal = allowed.access.principal
        tenant = principal.tenant
        if tenant is None or principal.only is not None:
            raise Refusal(Reason.ABSENT)
        if self._searching.total() >= MOST_WAITING or self._searching[tenant] >= MOST_OF_TENANT:
            raise Refusal(Reason.BUSY)
        search = partial(
            prove,
            self._folder,
            record_id,
            now=self._clock.now(),
            may_show=partial(may_show, tenant=tenant, tenant_record=principal.tenant_record),
        )
        self._searching[tenant] += 1
        try:
            proof = await asyncio.get_running_loop().run_in_executor(self._threads, search)
        except Misconfigured as error:  # damaged around the record: `verify` says how
            raise Unavailable("audit", str(error), Reason.NO_AUDIT) from error
        finally:
            self._searching[tenant] -= 1
            if not self._searching[tenant]:
                del self._searching[tenant]
        if proof is None:
            raise Refusal(Reason.ABSENT)
        if isinstance(proof, Unproven):
            raise Refusal(Reason.NOT_PROVABLE if proof.again_in_seconds is None else Reason.NOT_YET_PROVEN)
        return RecordProof(body=proof), allowed.stamp


def may_show(record: Record, *, tenant: TenantId, tenant_record: TenantRecordId | None) -> bool:
    """Whether this tenant may see this record: its own, of what it was allowed, and all of it.

    A tenant that has the name of one that is gone has another record, and sees nothing of that one's.
    """
    if not isinstance(record, OutcomeRecord | DecisionRecord):
        return False
    if (record.tenant, record.tenant_record) != (tenant, tenant_record):
        return False
    if isinstance(record, OutcomeRecord):
        return record.upstream is None and record.reason is None
    return record.decision == "allow"


def _record_id(request: WireRequest) -> str:
    """The id in the path. What is no record id is no record: the answer is the one for that."""
    record_id = request.raw_path.removeprefix(PROOFS_PATH).decode("latin-1")
    try:
        parse_record_id(record_id)
    except ValueError:
        raise Refusal(Reason.ABSENT) from None
    return record_id


def _matches(raw_path: bytes) -> bool:
    record_id = raw_path.removeprefix(PROOFS_PATH)
    return record_id != raw_path and b"/" not in record_id and record_id != b""


def _locate(_request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.SELF)


def answer_proof(receipt: Receipt) -> Answer:
    """The file."""
    found = receipt.admission.found
    if not isinstance(found, RecordProof):
        raise TypeError("this route is for proofs")
    return answer_json(found.body)


def routes(face: AuditFace) -> list[FaceRoute]:
    """The routes of this face."""
    proofs = GuardedRoute(
        template="/audit/v1/proofs/{record}",
        methods=("GET", "HEAD"),
        action=Action.AUDIT_READ,
        matches=_matches,
        locate=_locate,
        find=face.find_proof,
        answer=answer_proof,
    )
    return [FaceRoute(proofs)]
