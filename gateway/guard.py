"""The guard: the pipeline that decides and records every read of the shared caches; there is no other (I4).

    extract → authenticate → locate → decide → find → record → Receipt ─ confirm ─▶ deliver

`_weigh` is the pipeline up to the record, written once. Each stage answers from memory where it can; where it
has to wait, the pipeline yields what to wait for. `weigh_now` runs it up to the first such place, and then
gives up: what it returns was decided without waiting, and can be answered from within the server's parser.
`admit` waits.

Each stage has one entry point and returns a value. A refusal at any stage is recorded with what was known by
then (I5). The disk is read only after a decision, and only for what the caller may at least discover: a name
that does not exist and one that the caller may not see take the same path (I3).

`confirm` is the last check, made by the code that is about to write the first byte: it is synchronous, and
nothing is awaited between it and the write (I6).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.credential.extract import extract, extract_plain
from gateway.identity.tokens import TokenShape, parse_token
from gateway.model.access import Access, Action, Credential, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal, Unavailable, WithdrawnError
from gateway.model.recorded import recorded, then
from gateway.model.routes import Needed
from gateway.model.verdicts import (
    WITHDRAWN,
    Admission,
    Allowed,
    Declined,
    Denied,
    Forwarded,
    Receipt,
    Rejection,
)
from gateway.platform.confirmation import reach_confirmed, with_platform_reason
from gateway.resource.disk_checks import SeenOnDisk

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from gateway.authorized_files import AuthorizedFiles
    from gateway.decisions import Decisions, Judgement
    from gateway.model.access import Principal, SignedLink, WireRequest
    from gateway.model.names import ModelId
    from gateway.model.ports import Authenticate, Directory, PlatformAuthority, Recorder
    from gateway.model.routes import Asked, GuardedRoute
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Verdict

    Weighed = Admission | Rejection
    Steps = Generator[Callable[[], Awaitable[Any]], Any, Weighed]
    """The pipeline: yields what to wait for, is sent its result, and returns what it came to."""

MAX_MODELS = 32  # of one request, with all that they bring
FACTLESS = frozenset(
    {
        *(Reason.MISTYPED_KEY, Reason.INVALID_LINK, Reason.EXPIRED_LINK),
        *(Reason.MALFORMED_TOKEN, Reason.INVALID_TOKEN, Reason.EXPIRED_TOKEN),
    }
)
"""Refusals of a caller that are decided without facts. Which keys sign tokens is known as facts are: a worker
that was cut off may not have heard of a new one."""


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline over the stages that `assembly/` built."""

    identity: Authenticate
    directory: Directory
    decisions: Decisions
    authorized_files: AuthorizedFiles
    recorder: Recorder
    authority: PlatformAuthority | None = None  # is asked about keys that may be the platform's

    async def admit(self, request: WireRequest, route: GuardedRoute) -> Receipt | Declined:
        """Decide and record. The Receipt may be delivered once `confirm` has passed."""
        weighed = await _run(self._weigh(request, route, SeenOnDisk(), may_open=True))
        if isinstance(weighed, Rejection):
            return await self.decline(weighed)
        if route.readings is None:
            return await self._record(weighed)
        receipt = route.readings.recall(weighed)
        if receipt is None:
            receipt = await self._record(weighed)
            route.readings.note(receipt)
        return receipt

    async def admit_all(self, request: WireRequest, asked: Asked) -> tuple[Receipt, ...] | Declined:
        """Decide about every model that a forwarded request asks for, and record all of it in one write.

        One refusal refuses the request. Then the refusals are what is recorded, and the first is answered.
        """
        results = await recorded(self.record_all(await self._weigh_all(request, asked)), if_left=_close_all)
        declined = next((one for one in results if isinstance(one, Declined)), None)
        return declined or tuple(one for one in results if isinstance(one, Receipt))

    async def find_refusal_by_head(self, request: WireRequest, action: Action) -> Declined | None:
        """The same, for a key in a header; a request without one is declined as well."""
        try:
            credential = extract(request.headers, request.query)
        except Refusal as refusal:
            return await self.decline(Rejection(request=request, reason=refusal.reason, action=action))
        return await self.find_refusal(request, credential, action)

    async def find_refusal(
        self, request: WireRequest, credential: Credential, action: Action = Action.INFER
    ) -> Declined | None:
        """Decline a caller whose key is refused whatever the body of the request says.

        A key that is unknown here may be the platform's, which is asked about it together with a model.
        """
        try:
            if self.identity.recall(credential, request.client, request.received_at) is None:
                await self._authenticate(credential, request, lambda: None)
        except Refusal as refusal:
            if refusal.reason is Reason.UNKNOWN_KEY and self._may_be_of_platform(credential):
                return None
            return await self.decline(
                Rejection(
                    request=request,
                    reason=refusal.reason,
                    claimed_key_id=refusal.key_id,
                    claimed_tenant=refusal.tenant,
                    claimed_tenant_record=refusal.tenant_record,
                    action=action,
                )
            )
        except Unavailable:
            return None  # it may be known again when the body is there
        return None

    def _may_be_of_platform(self, credential: Credential) -> bool:
        return self.authority is not None and parse_token(credential.secret) is not TokenShape.OURS

    def weigh_now(
        self, request: WireRequest, route: GuardedRoute, looks: SeenOnDisk, *, may_open: bool
    ) -> Weighed | None:
        """Decide without waiting; None where something has to be waited for. Nothing is recorded yet.

        A file that is not in memory is opened if `may_open`: then `record_all` is given what is returned, or
        `Admission.release` is called.
        """
        steps = self._weigh(request, route, looks, may_open=may_open)
        try:
            next(steps)
        except StopIteration as done:
            weighed: Weighed = done.value
            return weighed
        steps.close()
        return None

    def record_all(
        self, weighed: Sequence[Weighed]
    ) -> list[Receipt | Declined] | Future[list[Receipt | Declined]]:
        """Record what was weighed, in one write: all of it, or nothing.

        A future where the disk is waited for: nothing is delivered before it has its result (I5).
        """
        try:
            results = self.recorder.record_all(weighed)
        except BaseException:
            _release_all(weighed)
            raise
        if isinstance(results, list):
            return _answers(weighed, results)
        return then(results, partial(_answers, weighed), partial(_release_all, weighed))

    async def _record(self, admission: Admission) -> Receipt:
        try:
            return await recorded(self.recorder.admit(admission), if_left=partial(_close_left, admission))
        except Unavailable:
            admission.release()
            raise

    def confirm(self, receipt: Receipt, now: float) -> None:
        """The last check before the first byte: facts unchanged, lease held, key not expired.

        Raises `WithdrawnError` when the request has to be decided anew, `Unavailable` without a lease.
        In both cases the receipt is closed as withdrawn.
        """
        admission = receipt.admission
        principal = admission.allowed.access.principal
        is_true = False
        try:
            is_true = self.directory.still_true(admission.stamp, principal.degraded_seconds) and (
                principal.expires_at is None or now < principal.expires_at
            )
        finally:
            if not is_true:
                receipt.close(WITHDRAWN)
        if not is_true:
            raise WithdrawnError

    def confirm_all(self, receipts: Sequence[Receipt], beside: Stamp | None, now: float) -> None:
        """The same for all receipts of one request; `beside` is what its answer depends on beyond them."""
        principal = receipts[0].admission.allowed.access.principal
        is_true = False
        try:
            stamps = [one.admission.stamp for one in receipts] + ([] if beside is None else [beside])
            are_true = all(self.directory.still_true(one, principal.degraded_seconds) for one in stamps)
            is_true = are_true and (principal.expires_at is None or now < principal.expires_at)
        finally:
            if not is_true:
                for one in receipts:
                    one.close(WITHDRAWN)
        if not is_true:
            raise WithdrawnError

    def is_degraded(self) -> bool:
        """Whether answers are served without a lease now, on the last known facts."""
        return not self.directory.is_leased()

    async def give_up(self, request: WireRequest) -> Declined:
        """Decline a request whose facts changed each time that it was about to be answered."""
        return await self.decline(Rejection(request=request, reason=Reason.FACTS_MOVED))

    async def decline(self, rejection: Rejection) -> Declined:
        """Record a refusal. The client gets its status and the record's id, and nothing else."""
        return _declined(rejection, await recorded(self.recorder.reject(rejection)))

    async def _authenticate(
        self,
        credential: Credential | SignedLink,
        request: WireRequest,
        find_model: Callable[[], ModelId | None],
    ) -> tuple[Principal, Stamp]:
        """Identify the caller. Without a lease no refusal is based on facts: old denials may be wrong, too.

        A key that is unknown here may be the platform's.
        """
        was_leased = self.directory.is_leased()
        try:
            return await self.identity.authenticate(credential, request.client, request.received_at)
        except Refusal as refusal:
            if not was_leased and (refusal.stands_on_facts or refusal.reason not in FACTLESS):
                raise Unavailable("redis", "the lease on the facts ran out", Reason.NO_LEASE) from refusal
            if self.authority is None or refusal.reason is not Reason.UNKNOWN_KEY:
                raise
            if not isinstance(credential, Credential) or credential.is_token:
                raise
        await self.authority.introduce(credential, find_model(), request.client)
        return await self.identity.authenticate(credential, request.client, request.received_at)

    async def _reach(self, access: Access, credential: Credential | SignedLink) -> Judgement:
        return await reach_confirmed(self.decisions, self.authority, access, credential)

    def _weigh(
        self, request: WireRequest, route: GuardedRoute, looks: SeenOnDisk, *, may_open: bool
    ) -> Steps:
        principal = resource = meant = None
        verdict: Verdict | None = None
        try:
            if route.unwrap is not None:
                request, route = route.unwrap(request)
                meant = route.template
            credential = _extract(request, route)
            caller = self.identity.recall(credential, request.client, request.received_at)
            if caller is None:
                find_model = partial(_find_model, request, route)
                caller = yield partial(self._authenticate, credential, request, find_model)
            principal, key_stamp = caller
            self.directory.verify_fresh(principal.degraded_seconds)
            resource = route.locate(request)
            access = Access(principal=principal, action=route.action, resource=resource)
            if resource.kind is ResourceKind.BLOB:
                file = self.authorized_files.resolve_now(access, looks)
                if file is None:
                    file = yield partial(self.authorized_files.resolve, access)
                    looks = SeenOnDisk()  # what was seen on disk before a wait is not used after it
                access = file
            judgement = self._recall(access)
            if judgement is None:
                judgement = yield partial(self._reach, access, credential)
                looks = SeenOnDisk()
            verdict = judgement.verdict
            if isinstance(verdict, Denied):
                reason = self.authorized_files.reason_now(verdict)
                reason = reason or (yield partial(self.authorized_files.answer_to, verdict))
                raise Refusal(reason)  # noqa: TRY301 -- one way out for every refusal
            if route.find is not None:
                known = route.find_now(request, verdict, looks) if route.find_now is not None else None
                found, stamp = known or (yield partial(route.find, request, verdict))
            else:
                needs_content = route.sends_content and request.method != "HEAD"
                now = self.authorized_files.find_now(
                    verdict, looks, needs_content=needs_content, may_open=may_open
                )
                found, stamp = now or (yield partial(self.authorized_files.find, verdict))
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
                claimed_tenant=failure.tenant if isinstance(failure, Refusal) else None,
                claimed_tenant_record=failure.tenant_record if isinstance(failure, Refusal) else None,
                resource=resource,
                action=route.action,
                model=verdict.model if verdict else None,
                policies=verdict.policies if verdict else (),
                stamp=verdict.stamp if verdict else None,
                grant=verdict.grant if isinstance(verdict, Denied) else None,
                meant=meant,
                client_detail=failure.client_detail if isinstance(failure, Refusal) else None,
                fields=failure.fields if isinstance(failure, Refusal) else (),
            )

    async def _weigh_all(self, request: WireRequest, asked: Asked) -> list[Weighed]:
        """Authenticate once, and decide `infer` for each model. Either all are admitted, or none is.

        Every model is decided, whatever the first one came to: the work is the same for each of them (I3).
        """
        principal = None
        credential, models = asked.credential, asked.models
        needed = Needed(models=models)  # or what is found out below
        try:
            caller = self.identity.recall(credential, request.client, request.received_at)
            if caller is None:
                first = models[0] if models else None
                caller = await self._authenticate(credential, request, lambda: first)
            principal, key_stamp = caller
            self.directory.verify_fresh(principal.degraded_seconds)
            if asked.find_needed is not None:
                judged = [await self._judge(_identification(principal), credential)]
                if isinstance(judged[0].verdict, Denied):
                    return [_rejection(request, judged[0].verdict)]
                needed = await asked.find_needed(principal)
            judged = [await self._judge(one, credential) for one in _accesses(principal, needed)]
            if all(isinstance(one.verdict, Allowed) for one in judged):
                judged += await self._judge_dependencies(principal, asked, needed.models)
        except (Refusal, Unavailable) as failure:
            return [
                Rejection(
                    request=request,
                    reason=failure.reason,
                    principal=principal,
                    claimed_key_id=failure.key_id if isinstance(failure, Refusal) else None,
                    claimed_tenant=failure.tenant if isinstance(failure, Refusal) else None,
                    claimed_tenant_record=failure.tenant_record if isinstance(failure, Refusal) else None,
                    resource=_named(models[0]) if models else None,
                    action=Action.INFER if models else Action.IDENTIFY,
                    client_detail=failure.client_detail if isinstance(failure, Refusal) else None,
                )
            ]
        verdicts = [one.verdict for one in judged]
        denied = [one for one in verdicts if isinstance(one, Denied)]
        if denied:
            return [_rejection(request, one, needed.client_detail.get(one.access.action)) for one in denied]
        return [
            Admission(
                request=request,
                allowed=one,
                found=Forwarded(answer=asked.answer),
                stamp=key_stamp.joined(one.stamp),
                key_stamp=key_stamp,
            )
            for one in verdicts
            if isinstance(one, Allowed)
        ]

    async def _judge(self, access: Access, credential: Credential) -> Judgement:
        return self._recall(access) or await self._reach(access, credential)

    async def _judge_dependencies(
        self, principal: Principal, asked: Asked, models: Sequence[ModelId]
    ) -> list[Judgement]:
        """Decide what the models of a request bring, and what that brings, until a model is refused.

        It is asked for only once all that brings it is allowed.
        """
        judged: list[Judgement] = []
        known, waiting = set(models), list(models)
        while waiting:
            for model in await asked.find_dependencies(principal, waiting.pop(0)):
                if model in known:
                    continue
                if len(known) >= MAX_MODELS:
                    raise Unavailable("upstream", "a model brings too many others", Reason.UPSTREAM_UNDECIDED)
                known.add(model)
                waiting.append(model)
                judged.append(await self._judge(_inference(principal, model), asked.credential))
                if isinstance(judged[-1].verdict, Denied):
                    return judged
        return judged

    async def inferable(
        self, receipt: Receipt, credential: Credential, models: Sequence[ModelId]
    ) -> tuple[frozenset[ModelId], Stamp]:
        """Those of these models that the caller of an admitted request may infer, and what that stands on."""
        principal = receipt.admission.allowed.access.principal
        stamp, allowed = receipt.admission.key_stamp, set()
        for model in models:
            access = _inference(principal, model)
            verdict = (await self._judge(access, credential)).verdict
            if isinstance(verdict, Allowed):
                allowed.add(model)
            if verdict.stamp is not None:
                stamp = stamp.joined(verdict.stamp)
        return frozenset(allowed), stamp

    def _recall(self, access: Access) -> Judgement | None:
        """The remembered decision, if there is one and nobody has to be asked about it."""
        judgement = self.decisions.recall(access)
        if judgement is None or not (judgement.facts.is_confirmed or access.principal.is_link):
            return None
        return judgement if isinstance(judgement.verdict, Allowed) else with_platform_reason(judgement)


async def _run(steps: Steps) -> Weighed:
    """Run the pipeline to its end, and wait where it has to."""
    try:
        step = next(steps)
        while True:
            try:
                result = await step()
            except Exception as error:  # noqa: BLE001 -- raised where the stage was called
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        weighed: Weighed = done.value
        return weighed


def _answers(weighed: Sequence[Weighed], recorded_as: Sequence[Receipt | str]) -> list[Receipt | Declined]:
    return [
        one if isinstance(one, Receipt) else _declined(what, one)
        for what, one in zip(weighed, recorded_as, strict=True)
    ]


def _release_all(weighed: Sequence[Weighed]) -> None:
    """Close the files of admissions that could not be recorded."""
    for one in weighed:
        if isinstance(one, Admission):
            one.release()


def _close_left(admission: Admission, recording: Future[Receipt]) -> None:
    """Close an admission that nobody waits for any more, however recording it ended."""
    if recording.exception() is None:
        recording.result().close(WITHDRAWN)
    else:
        admission.release()


def _close_all(recording: Future[list[Receipt | Declined]]) -> None:
    """The same for several. Those that could not be recorded were released already."""
    if recording.exception() is None:
        for one in recording.result():
            if isinstance(one, Receipt):
                one.close(WITHDRAWN)


def _declined(weighed: Weighed, record_id: str) -> Declined:
    if not isinstance(weighed, Rejection):
        raise TypeError("an allow has a receipt")
    return Declined(
        reason=weighed.reason,
        record_id=record_id,
        meant=weighed.meant,
        client_detail=weighed.client_detail,
        fields=weighed.fields,
    )


def _named(model: ModelId) -> Resource:
    return Resource(kind=ResourceKind.MODEL, model=model)


def _inference(principal: Principal, model: ModelId) -> Access:
    return Access(principal=principal, action=Action.INFER, resource=_named(model))


def _accesses(principal: Principal, needed: Needed) -> list[Access]:
    """All that has to be permitted for a forwarded request: at least that the caller is one."""
    tenant = Resource(kind=ResourceKind.TENANT)
    accesses = [_inference(principal, name) for name in (*needed.models, *needed.projects)]
    accesses += [Access(principal=principal, action=one, resource=tenant) for one in needed.actions]
    return accesses or [_identification(principal)]


def _identification(principal: Principal) -> Access:
    """What every valid key may: the access of a request that names no model."""
    return Access(principal=principal, action=Action.IDENTIFY, resource=Resource(kind=ResourceKind.SELF))


def _rejection(request: WireRequest, denied: Denied, client_detail: str | None = None) -> Rejection:
    return Rejection(
        request=request,
        reason=denied.reason,
        principal=denied.access.principal,
        resource=denied.access.resource,
        action=denied.access.action,
        model=denied.model,
        policies=denied.policies,
        stamp=denied.stamp,
        client_detail=client_detail,
        grant=denied.grant,
    )


def _extract(request: WireRequest, route: GuardedRoute) -> Credential | SignedLink:
    """The caller's credential: a key in a header, unless the route reads it from elsewhere."""
    if route.extract is not None:
        return route.extract(request)
    if request.fields is not None and not request.query:
        plain = extract_plain(request.fields)
        if plain is not None:
            return plain
    return extract(request.headers, request.query)


def _find_model(request: WireRequest, route: GuardedRoute) -> ModelId | None:
    """The model that a request names; None for a bad path, which is refused once the caller is known."""
    try:
        return route.locate(request).model
    except Refusal:
        return None
