"""Operations on the rules: one document, whose digest is its ETag. Only an owner changes it.

A set is checked as `cachegate policy check` checks it, and one that would lock its own author out of the
administration is refused: it could not be taken back by the same way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.admin.call import Reply, changed
from gateway.admin.documents import Policy, PolicyFile, PolicyNew, Waiting
from gateway.admin.operation import POLICY_BYTES, Operation
from gateway.decision.policyset import digest_of, validate
from gateway.decision.rulebook import Rulebook
from gateway.decision.set_changes import compare_sets
from gateway.directory.edits.effect import Effect
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import FieldProblem, Reason, Refusal
from gateway.model.facts import PolicySet
from gateway.model.verdicts import Allowed
from gateway.operations.policy_folder import recorded_rules

if TYPE_CHECKING:
    from gateway.admin.call import Call
    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing

SOURCE = "admin"


async def read_policy(call: Call) -> Reply:
    """The rules in force."""
    found = await call.listing.find_policy()
    if found is None:
        raise Refusal(Reason.ABSENT)
    files = [PolicyFile(file=file, text=text) for file, text in found.policies]
    document = Policy(
        digest=found.digest,
        schema=found.schema,
        policies=files,
        source=found.source,
        generation=found.generation,
    )
    return Reply(document=document, etag=found.digest)


async def change_policy(call: Call) -> Reply:
    """Put another set into force."""
    policies = tuple(sorted((one.file, one.text) for one in call.body.policies))
    if len({file for file, _ in policies}) < len(policies):
        raise Refusal(Reason.IMPOSSIBLE_VALUE, fields=(FieldProblem("/policies", "a file is there twice"),))
    schema = call.body.schema
    new = PolicySet(digest=digest_of(schema, policies), source=SOURCE, schema=schema, policies=policies)
    # Cedar parses for as long as a set is large: other requests go on meanwhile.
    problems = await asyncio.to_thread(validate, new)
    if problems:
        raise Refusal(
            Reason.IMPOSSIBLE_VALUE, fields=tuple(FieldProblem("/policies", str(one)) for one in problems)
        )
    await _verify_author(call, new)
    before = await call.listing.find_policy()
    rules = None if before is not None and before.digest == new.digest else compare_sets(before, new)

    async def edit(changes: Changes) -> Effect:
        current = await changes.find_policy()
        if current is not None and current.digest == new.digest:
            return Effect(is_changed=False, sentences=("these rules were in force already",))
        await changes.put_policy(new)
        return Effect(is_changed=True, sentences=(f"the rules {new.digest} are in force",))

    subject = (f"digest {new.digest}", *recorded_rules(rules))
    done = await call.change(edit, find=_find_tag, subject=subject, made=new.digest)
    return replace(changed(done, call, made=new.digest), etag=new.digest)


async def _find_tag(facts_now: Listing) -> str | None:
    found = await facts_now.find_policy()
    return None if found is None else found.digest


async def _verify_author(call: Call, new: PolicySet) -> None:
    """Raise `Refusal` where the new rules would not let the caller change them again."""
    access = Access(
        principal=call.principal,
        action=Action.POLICY_CHANGE,
        resource=Resource(kind=ResourceKind.ADMINISTRATION),
    )
    [facts] = await call.session.directory.gather(call.principal, [None])
    verdict = await asyncio.to_thread(Rulebook().decide, access, replace(facts, policy=new))
    if not isinstance(verdict, Allowed):
        raise Refusal(Reason.CONFLICT, client_detail="These rules would not let you change them again.")


OPERATIONS = (
    Operation(
        action=Action.POLICY_READ,
        method="GET",
        path="/policy",
        summary="Read the rules in force.",
        handle=read_policy,
        has_etag=True,
        reply=Policy,
        more_refusals=(Reason.ABSENT,),
    ),
    Operation(
        action=Action.POLICY_CHANGE,
        method="PUT",
        path="/policy",
        summary="Put other rules into force, all of them at once.",
        handle=change_policy,
        query=Waiting,
        body=PolicyNew,
        body_bytes=POLICY_BYTES,
        has_etag=True,
        needs_match=True,
    ),
)
