"""The guard: every read of the shared caches passes here, in this order, and nowhere else (I4).

    extract → authenticate → locate → decide → find → record → Receipt ─ confirm ─▶ deliver

Each stage has one door, and each hands on a value. A refusal at any of them is recorded with what
was known by then (I5). The disk is asked after a decision only, and only for what the caller may at
least discover: a name that is not there and one that is not the caller's take the same way (I3).

`confirm` is the last check, made by whoever is about to write the first byte: synchronous, and with
nothing awaited between it and the write (I6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.credential.extract import extract
from gateway.model.access import Access
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.verdicts import WITHDRAWN, Admission, Declined, Denied, Rejection

if TYPE_CHECKING:
    from gateway.decisions import Decisions
    from gateway.holdings import Holdings
    from gateway.model.access import Credential, GuardedRoute, Principal, WireRequest
    from gateway.model.facts import Stamp
    from gateway.model.ports import Authenticate, Directory, Recorder
    from gateway.model.verdicts import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The pipeline over the rooms that `app.py` built."""

    identity: Authenticate
    directory: Directory
    decisions: Decisions
    holdings: Holdings
    recorder: Recorder

    async def admit(self, request: WireRequest, route: GuardedRoute) -> Receipt | Declined:
        """Decide and record. The Receipt is good for delivery once it is confirmed."""
        admission = await self._weigh(request, route)
        if isinstance(admission, Rejection):
            return self.decline(admission)
        try:
            return self.recorder.admit(admission)
        except Unavailable:
            admission.let_go()
            raise

    def confirm(self, receipt: Receipt, now: float) -> None:
        """The last check before the first byte: nothing moved, the lease holds, the key has not expired.

        Raises `WithdrawnError` when the request has to be decided anew, `Unavailable` without a lease.
        Either way the receipt is closed as withdrawn.
        """
        principal = receipt.admission.allowed.access.principal
        is_true = False
        try:
            is_true = self.directory.still_true(receipt.admission.stamp, principal.degraded_seconds) and (
                principal.expires_at is None or now < principal.expires_at
            )
        finally:
            if not is_true:
                receipt.close(WITHDRAWN)
        if not is_true:
            raise WithdrawnError

    def is_degraded(self) -> bool:
        """Whether what is served now is served on what was last known."""
        return not self.directory.is_leased()

    def give_up(self, request: WireRequest) -> Declined:
        """The facts moved each time that the request was about to be answered."""
        return self.decline(Rejection(request=request, reason=Reason.FACTS_MOVED))

    def decline(self, rejection: Rejection) -> Declined:
        """Record a refusal. The client gets its status and the record's id, and nothing else."""
        return Declined(reason=rejection.reason, record_id=self.recorder.reject(rejection))

    async def _authenticate(self, credential: Credential, request: WireRequest) -> tuple[Principal, Stamp]:
        """Who asks. Without a lease nobody is refused on facts: old denials are as untrue as old allows."""
        was_leased = self.directory.is_leased()
        try:
            return await self.identity.authenticate(credential, request.client, request.received_at)
        except Refusal as refusal:
            if was_leased or refusal.reason is Reason.MISTYPED_KEY:  # the one that no fact is needed for
                raise
            raise Unavailable("redis", "the lease on the facts ran out", Reason.NO_LEASE) from refusal

    async def _weigh(self, request: WireRequest, route: GuardedRoute) -> Admission | Rejection:
        principal = resource = verdict = None
        try:
            credential = extract(request.headers, request.query)
            caller = self.identity.recall(credential, request.client, request.received_at)
            principal, key_stamp = caller or await self._authenticate(credential, request)
            self.directory.verify_fresh(principal.degraded_seconds)
            resource = route.locate(request)
            access = Access(principal=principal, action=route.action, resource=resource)
            known = self.decisions.recall(access)  # the common case, which waits for nothing
            judgement = known or await self.decisions.reach(await self.holdings.resolve(access))
            verdict = judgement.verdict
            if isinstance(verdict, Denied):
                raise Refusal(self.holdings.answer_to(verdict))  # noqa: TRY301 -- one way out for every refusal
            found, stamp = await self.holdings.find(verdict)
            return Admission(
                request=request,
                allowed=verdict,
                found=found,
                stamp=key_stamp.joined(stamp),
                key_stamp=key_stamp,
            )
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
                stamp=verdict.stamp if verdict else None,
            )
