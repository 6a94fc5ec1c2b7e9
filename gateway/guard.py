"""The guard: the pipeline that decides and records every read of the shared caches; there is no other (I4).

    extract → authenticate → locate → decide → find → record → Receipt ─ confirm ─▶ deliver
    └──────────── or a pass ─────────┘

A pass (`passes.py`) is the remembered result of the first four stages for this caller and path, valid while
the facts behind it are current. `admit` waits where it has to; `admit_now` returns None instead of waiting,
and then `admit` is asked. Both use passes, run the same checks, and record.

Each stage has one entry point and returns a value. A refusal at any stage is recorded with what was known by
then (I5). The disk is read only after a decision, and only for what the caller may at least discover: a name
that does not exist and one that the caller may not see take the same path (I3).

`confirm` is the last check, made by the code that is about to write the first byte: it is synchronous, and
nothing is awaited between it and the write (I6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.credential.extract import extract
from gateway.credential.fingerprint import fingerprint
from gateway.model.access import Access, Credential, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.verdicts import WITHDRAWN, Admission, Declined, Denied, Rejection
from gateway.passes import Pass
from gateway.platform.confirmation import reach_confirmed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.authorized_files import AuthorizedFiles
    from gateway.decisions import Decisions, Judgement
    from gateway.model.access import Principal, Resource, SignedLink, WireRequest
    from gateway.model.names import ModelId
    from gateway.model.ports import Authenticate, Directory, PlatformAuthority, Recorder
    from gateway.model.routes import GuardedRoute
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Found, Receipt, Verdict
    from gateway.passes import Passes, PassKey

FACTLESS = frozenset({Reason.MISTYPED_KEY, Reason.INVALID_LINK, Reason.EXPIRED_LINK})
"""Refusals of a caller that are decided without facts."""


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline over the stages that `assembly/` built."""

    identity: Authenticate
    directory: Directory
    decisions: Decisions
    authorized_files: AuthorizedFiles
    recorder: Recorder
    passes: Passes
    authority: PlatformAuthority | None = None  # is asked about keys that may be the platform's

    async def admit(self, request: WireRequest, route: GuardedRoute) -> Receipt | Declined:
        """Decide and record. The Receipt may be delivered once `confirm` has passed."""
        admission = await self._weigh(request, route)
        if isinstance(admission, Rejection):
            return self.decline(admission)
        return self._record(admission)

    def admit_now(self, request: WireRequest) -> Receipt | None:
        """As `admit`, but from memory only and for small files; None where `admit` has to be asked."""
        known = self._recall(request)
        if known is None or not self.directory.is_leased():
            return None
        found = self.authorized_files.find_now(known.allowed, known.stamp)
        if found is None:
            return None
        file, stamp = found
        return self._record(_admission(request, known, file, stamp))

    def admit_again(self, admissions: Sequence[Admission], now: float) -> list[Receipt | None]:
        """Admit requests again that `admit_now` admitted before; None for those that it would not admit now.

        Everything an admission depends on is checked again: facts, time, lease, disk (once for a file that
        several requests want now). All that are admitted are recorded in one write.
        """
        is_leased, is_there = self.directory.is_leased(), {}
        sure = []
        for admission in admissions:
            found = id(admission.found)
            if found not in is_there:
                is_there[found] = is_leased and self.authorized_files.has_still(admission.found)
            if is_there[found] and self._stands(admission, now):
                sure.append(admission)
        if len(sure) == len(admissions):
            return [*self.recorder.admit_all(sure)]
        receipts = iter(self.recorder.admit_all(sure) if sure else ())
        kept = {id(admission) for admission in sure}
        return [next(receipts) if id(admission) in kept else None for admission in admissions]

    def _stands(self, admission: Admission, now: float) -> bool:
        principal, since = admission.allowed.access.principal, admission.request.received_at
        return admission.stamp.is_current and self.identity.is_valid_still(principal, since, now)

    def _record(self, admission: Admission) -> Receipt:
        try:
            return self.recorder.admit(admission)
        except Unavailable:
            admission.release()
            raise

    def confirm(self, receipt: Receipt, now: float) -> None:
        """The last check before the first byte: facts unchanged, lease held, key not expired.

        Raises `WithdrawnError` when the request has to be decided anew, `Unavailable` without a lease.
        In both cases the receipt is closed as withdrawn.
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
        """Whether answers are served without a lease now, on the last known facts."""
        return not self.directory.is_leased()

    def give_up(self, request: WireRequest) -> Declined:
        """Decline a request whose facts changed each time that it was about to be answered."""
        return self.decline(Rejection(request=request, reason=Reason.FACTS_MOVED))

    def decline(self, rejection: Rejection) -> Declined:
        """Record a refusal. The client gets its status and the record's id, and nothing else."""
        record_id = self.recorder.reject(rejection)
        return Declined(reason=rejection.reason, record_id=record_id, meant=rejection.meant)

    async def _authenticate(
        self, credential: Credential | SignedLink, request: WireRequest, route: GuardedRoute
    ) -> tuple[Principal, Stamp]:
        """Identify the caller. Without a lease no refusal is based on facts: old denials may be wrong, too.

        A key that is unknown here may be the platform's.
        """
        was_leased = self.directory.is_leased()
        try:
            return await self.identity.authenticate(credential, request.client, request.received_at)
        except Refusal as refusal:
            if not was_leased and refusal.reason not in FACTLESS:
                raise Unavailable("redis", "the lease on the facts ran out", Reason.NO_LEASE) from refusal
            if self.authority is None or refusal.reason is not Reason.UNKNOWN_KEY:
                raise
            if not isinstance(credential, Credential):
                raise
        await self.authority.introduce(credential, _find_model(request, route), request.client)
        return await self.identity.authenticate(credential, request.client, request.received_at)

    async def _reach(self, access: Access, credential: Credential | SignedLink) -> Judgement:
        return await reach_confirmed(self.decisions, self.authority, access, credential)

    async def _weigh(self, request: WireRequest, route: GuardedRoute) -> Admission | Rejection:
        principal = resource = meant = None
        verdict: Verdict | None = None
        try:
            if route.unwrap is not None:
                request, route = route.unwrap(request)
                meant = route.template
            known = self._recall(request)
            if known is not None:
                verdict = known.allowed
                principal, resource = verdict.access.principal, verdict.access.resource
                self.directory.verify_fresh(principal.degraded_seconds)
            else:
                credential = _extract(request, route)
                caller = self.identity.recall(credential, request.client, request.received_at)
                principal, key_stamp = caller or await self._authenticate(credential, request, route)
                self.directory.verify_fresh(principal.degraded_seconds)
                resource = route.locate(request)
                access = Access(principal=principal, action=route.action, resource=resource)
                judgement = self.decisions.recall(access)  # the common case, which waits for nothing
                if judgement is None or not judgement.facts.is_confirmed:
                    judgement = await self._reach(await self.authorized_files.resolve(access), credential)
                verdict = judgement.verdict
                if isinstance(verdict, Denied):
                    raise Refusal(await self.authorized_files.answer_to(verdict))  # noqa: TRY301 -- one way out for every refusal
                known = self._remember(request, resource, verdict, key_stamp)
            if route.find is None:
                found, stamp = await self.authorized_files.find(known.allowed)
            else:
                found, stamp = await route.find(request, known.allowed)
            return _admission(request, known, found, known.key_stamp.joined(stamp))
        except (Refusal, Unavailable) as failure:
            return Rejection(
                request=request,
                reason=failure.reason,
                principal=principal,
                claimed_key_id=failure.key_id if isinstance(failure, Refusal) else None,
                claimed_tenant=failure.tenant if isinstance(failure, Refusal) else None,
                resource=resource,
                action=route.action,
                model=verdict.model if verdict else None,
                policies=verdict.policies if verdict else (),
                stamp=verdict.stamp if verdict else None,
                meant=meant,
            )

    def _recall(self, request: WireRequest) -> Pass | None:
        """The remembered pass of this caller and path, if it is still valid."""
        known = self.passes.find(_pass_key(request))
        if known is None:
            return None
        principal = known.allowed.access.principal
        return known if self.identity.is_valid_still(principal, known.since, request.received_at) else None

    def _remember(self, request: WireRequest, resource: Resource, allowed: Allowed, key_stamp: Stamp) -> Pass:
        stamp = key_stamp.joined(allowed.stamp)
        new = Pass(allowed=allowed, key_stamp=key_stamp, stamp=stamp, since=request.received_at)
        if resource.kind is ResourceKind.FILE:
            self.passes.put(_pass_key(request), new)
        return new


def _extract(request: WireRequest, route: GuardedRoute) -> Credential | SignedLink:
    """The caller's credential: a key in a header, unless the route reads it from elsewhere."""
    return route.extract(request) if route.extract else extract(request.headers, request.query)


def _find_model(request: WireRequest, route: GuardedRoute) -> ModelId | None:
    """The model that a request names; None for a bad path, which is refused once the caller is known."""
    try:
        return route.locate(request).model
    except Refusal:
        return None


def _pass_key(request: WireRequest) -> PassKey:
    """All inputs of a pass in the request."""
    return fingerprint(request.headers, request.query), request.client, request.raw_path


def _admission(request: WireRequest, known: Pass, found: Found, stamp: Stamp) -> Admission:
    return Admission(
        request=request, allowed=known.allowed, found=found, stamp=stamp, key_stamp=known.key_stamp
    )
