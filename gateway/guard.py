"""The guard: every read of the shared caches passes here, in this order, and nowhere else (I4).

    extract → authenticate → locate → decide → find → record → still true? → Receipt → deliver

Each stage has one door, and each hands on a value. A refusal at any of them is recorded with what
was known by then (I5). The disk is asked after a decision only, and only for what the caller may at
least discover: a name that is not there and one that is not the caller's take the same way (I3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.credential.extract import extract
from gateway.model.access import Access
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import WITHDRAWN, Admission, Declined, Denied, Rejection

if TYPE_CHECKING:
    from gateway.holdings import Holdings
    from gateway.model.access import GuardedRoute, WireRequest
    from gateway.model.ports import Authenticate, Decide, Directory, Recorder
    from gateway.model.verdicts import Receipt

MAX_ATTEMPTS = 3  # an answer whose facts moved before its first byte is worked out anew this often


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The pipeline over the rooms that `app.py` built."""

    identity: Authenticate
    directory: Directory
    rules: Decide
    holdings: Holdings
    recorder: Recorder

    async def admit(self, request: WireRequest, route: GuardedRoute) -> Receipt | Declined:
        """Decide, record, and hand out the Receipt only while all that it stands on is still true (I6)."""
        admission: Admission | Rejection
        try:
            for _ in range(MAX_ATTEMPTS):
                admission = await self._weigh(request, route)
                if isinstance(admission, Rejection):
                    return self.decline(admission)
                receipt = self._record(admission)
                if await self._still_true(receipt):
                    return receipt
        except Unavailable as failure:
            return self.decline(Rejection(request=request, reason=failure.reason))
        return self.decline(Rejection(request=request, reason=Reason.FACTS_MOVED))

    def decline(self, rejection: Rejection) -> Declined:
        """Record a refusal. The client gets its status and the record's id, and nothing else."""
        return Declined(reason=rejection.reason, record_id=self.recorder.reject(rejection))

    async def _weigh(self, request: WireRequest, route: GuardedRoute) -> Admission | Rejection:
        principal = resource = verdict = None
        try:
            credential = extract(request.headers, request.query)
            principal, key_stamp = await self.identity.authenticate(
                credential, request.client, request.received_at
            )
            resource = route.locate(request)
            access = Access(principal=principal, action=route.action, resource=resource)
            access = await self.holdings.resolve(access)
            [facts] = await self.directory.bring(principal, [access.resource.model])
            verdict = self.rules.decide(access, facts)
            if isinstance(verdict, Denied):
                raise Refusal(self.holdings.answer_to(verdict))  # noqa: TRY301 -- one way out for every refusal
            found, stamp = await self.holdings.find(verdict, facts)
            return Admission(request=request, allowed=verdict, found=found, stamp=key_stamp.joined(stamp))
        except (Refusal, Unavailable) as failure:
            return Rejection(
                request=request,
                reason=failure.reason,
                principal=principal,
                claimed_key_id=failure.key_id if isinstance(failure, Refusal) else None,
                resource=resource,
                action=route.action,
                model=verdict.model if verdict else None,
                policies=verdict.policies if verdict else (),
            )

    def _record(self, admission: Admission) -> Receipt:
        try:
            return self.recorder.admit(admission)
        except Unavailable:
            admission.let_go()
            raise

    async def _still_true(self, receipt: Receipt) -> bool:
        """The last check before the first byte. Whatever ends it early closes the record too."""
        is_true = False
        try:
            is_true = await self.directory.still_true(receipt.admission.stamp)
        finally:
            if not is_true:
                receipt.close(WITHDRAWN)
        return is_true
