"""Operations on the rules: one document, whose digest is its ETag. Only an owner changes it.

A set is checked as `cachegate policy check` checks it, and one that would lock its own author out of the
administration is refused: it could not be taken back by the same way.

A whole policy folder (rules, documents of tenants and issuers, cases) is planned and applied here too, by the
operations of `cachegate policy diff` and `apply`: its texts are written to a folder of our own and read from
there, so that nothing is parsed by a second way.
"""

from __future__ import annotations

import asyncio
import tempfile
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.admin.call import Reply, changed, impossible
from gateway.admin.documents import (
    FolderApplied,
    FolderNew,
    FolderPlan,
    FolderToApply,
    Policy,
    PolicyFile,
    PolicyNew,
    RulesDiffer,
    Waiting,
)
from gateway.admin.operation import POLICY_BYTES, Operation
from gateway.decision.policyset import SCHEMA_FILE, digest_of, schema_problems, validate
from gateway.decision.rulebook import Rulebook
from gateway.decision.set_changes import compare_sets
from gateway.directory.documents.plan import apply_plan
from gateway.directory.edits.effect import Effect
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.errors import FieldProblem, Misconfigured, Reason, Refusal, Unavailable
from gateway.model.facts import PolicySet
from gateway.model.verdicts import Allowed
from gateway.operations.folder_checking import check_apart
from gateway.operations.policy_folder import (
    find_policy_set,
    plan_folder,
    recorded_plan,
    recorded_rules,
    rules_document,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.admin.call import Call
    from gateway.directory.documents.plan import DocumentPlan
    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.operations.policy_folder import ComparedRules, PolicyFolder

SOURCE = "admin"
QUICK_SCHEMA_CHARACTERS = 32 * 1024  # ours has a quarter of it; Cedar reads it within milliseconds
FOLDER_PREFIX = "policies-"  # of the folders that clients sent, in the state folder, while they are checked


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
    _verify_names(file for file, _ in policies)
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


async def plan_policy(call: Call) -> Reply:
    """What applying a folder would change now."""
    folder, compared = await _folder(call)
    return Reply(document=plan_document(await plan_folder(folder, call.listing, call.now, compared)))


async def apply_policy(call: Call) -> Reply:
    """Apply a folder as one transaction, if it changes what its author was shown, and what is recorded."""
    folder, compared = await _folder(call)
    confirmed = call.body.confirmed
    await _verify_author(call, folder.policy_set)
    shown = await plan_folder(folder, call.listing, call.now, compared)

    async def edit(changes: Changes) -> Effect:
        plan = await plan_folder(folder, changes, call.now, compared)
        if plan != shown or confirmed not in {None, plan_digest(plan)}:
            raise Refusal(Reason.CONFLICT, client_detail=MOVED)
        await apply_plan(changes, plan)
        return Effect(is_changed=not plan.is_empty, sentences=plan.lines)

    subject = recorded_plan(folder, shown)
    done = await call.change(edit, subject=subject, made=folder.policy_set.digest)
    plan = plan_document(shown)
    return changed(done, call, made=folder.policy_set.digest, kind=FolderApplied, plan=plan)


MOVED = (
    "The facts changed since the plan was shown, and what would be applied now is something else; nothing "
    "was applied."
)


def plan_digest(plan: DocumentPlan) -> str:
    """What confirms a plan: the SHA-256 of all its lines, as they were shown."""
    lines = [*plan.lines, "", *plan.conflicts]
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def plan_document(plan: DocumentPlan) -> FolderPlan:
    """A plan, as it is answered."""
    return FolderPlan(
        changes=list(plan.lines),
        conflicts=list(plan.conflicts),
        rules=None if plan.rules is None else msgspec.convert(rules_document(plan.rules), type=RulesDiffer),
        digest=plan_digest(plan),
    )


async def _folder(call: Call) -> tuple[PolicyFolder, ComparedRules]:
    """The folder that the body holds, checked: its cases have passed. Raises `Refusal`.

    One at a time in each worker, since that is work for seconds: of a process of its own.
    """
    files = _files(call.body)
    if len({name for name, _ in files}) < len(files):
        raise impossible("", "a file is there twice")
    settings = call.session.settings
    schema = call.body.schema
    problems = schema_problems(schema) if len(schema) <= QUICK_SCHEMA_CHARACTERS else ()
    for problem in problems:  # no process is started for it
        raise impossible("/schema", problem)
    if _CHECKING:
        raise Refusal(Reason.BUSY)
    _CHECKING.add(call.principal.key_id)
    made: tempfile.TemporaryDirectory[str] | None = None
    try:
        in_force = await find_policy_set(call.listing)
        make = partial(tempfile.TemporaryDirectory, prefix=FOLDER_PREFIX, dir=settings.state)
        made = await asyncio.to_thread(make)
        folder = Path(made.name) / "policies"
        await asyncio.to_thread(_write, files, folder)
        return await check_apart(folder, in_force, private_issuers=settings.private_issuers)
    except Misconfigured as error:  # not in the words of a folder that its author never saw
        where = "" if made is None else f"{made.name}/"
        raise impossible("", str(error).replace(where, "")) from error
    except OSError as error:
        why = f"no folder can be written to {settings.state} ({error.strerror})"
        raise Unavailable("state", why) from error
    finally:
        try:
            if made is not None:
                await asyncio.to_thread(made.cleanup)
        finally:  # also where the client left meanwhile
            _CHECKING.clear()


_CHECKING: set[str] = set()
"""Who has a folder checked by this worker now."""


def _files(body: FolderNew) -> list[tuple[str, str]]:
    """The files by their place in a folder."""
    files = [(SCHEMA_FILE, body.schema), *((one.file, one.text) for one in body.policies)]
    for part in ("tenants", "issuers", "tests"):
        files += [(f"{part}/{one.file}", one.text) for one in getattr(body, part)]
    _verify_names(name for name, _ in files)
    return files


def _verify_names(names: Iterable[str]) -> None:
    """Refuse a name with a line break at its end: a file of this name would not be read."""
    if not all(name.isprintable() for name in names):
        raise impossible("", "the name of a file has printable characters only")


def _write(files: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write a folder. The tenants are there also where none is named: that there are none was said."""
    (folder / "tenants").mkdir(parents=True)
    for name, text in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())


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
    Operation(
        action=Action.POLICY_PLAN,
        method="POST",
        path="/policy/plan",
        summary="Check a policy folder, its cases included, and tell what applying it would change.",
        handle=plan_policy,
        body=FolderNew,
        body_bytes=POLICY_BYTES,
        reply=FolderPlan,
    ),
    Operation(
        action=Action.POLICY_APPLY,
        method="POST",
        path="/policy/apply",
        summary="Apply a policy folder, all of it in one transaction.",
        handle=apply_policy,
        query=Waiting,
        body=FolderToApply,
        body_bytes=POLICY_BYTES,
        reply=FolderApplied,
    ),
)
