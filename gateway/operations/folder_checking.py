"""Check a policy folder that a client sent in a process of its own, and within a time.

Cedar parses for as long as a set is large, and holds the interpreter meanwhile: a mebibyte of rules takes
seconds, during which the worker would answer nobody. Cases multiply that by their number. So the worker
starts a process for it, which gives way to requests, and ends it when its time is over. The worker itself
only reads the documents of a folder that has passed.

Non-goals: the folder is written, and removed, by whoever asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec

from gateway.decision.policyset import load_policy_folder
from gateway.decision.set_changes import compare_sets
from gateway.directory.documents.issuers import load_issuer_documents
from gateway.directory.documents.parse import load_tenant_documents
from gateway.model.errors import Misconfigured
from gateway.model.facts import PolicySet  # noqa: TC001 -- msgspec reads annotations
from gateway.model.rule_changes import RuleSetChanges  # noqa: TC001 -- as above
from gateway.operations.policy_folder import ComparedRules, PolicyFolder, load_folder

CHECK_SECONDS = 20.0  # below the time that a command waits for its answer
CPU_SECONDS = 60  # the process ends by itself, too, where nobody is left to end it
NICE = 10  # requests come first
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gateway.operations.folder_checking import main; main()"
)


class CheckOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is checked, and the set that it is compared with."""

    folder: str
    private_issuers: bool
    in_force: PolicySet | None


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says: how the rules differ, or where and what the problem is."""

    is_tested: bool = False
    rules: RuleSetChanges | None = None
    where: str | None = None
    why: str = ""


async def check_apart(
    folder: Path, in_force: PolicySet | None, *, private_issuers: bool, seconds: float = CHECK_SECONDS
) -> tuple[PolicyFolder, ComparedRules]:
    """The folder, and how its rules differ from those in force. Raises `Misconfigured` with its problems."""
    order = CheckOrder(folder=str(folder), private_issuers=private_issuers, in_force=in_force)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)), stdin=PIPE, stdout=PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            raw, _ = await process.communicate(msgspec.json.encode(order))
    except TimeoutError:
        why = f"takes longer than {seconds:g} s to check; it needs fewer rules, or fewer cases"
        raise Misconfigured(str(folder), why) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        said = msgspec.json.decode(raw, type=_Said)
    except msgspec.DecodeError:
        said = _Said(where=str(folder), why="could not be checked: checking it ended before it was done")
    if said.where is not None:
        raise Misconfigured(said.where, said.why)
    read = await asyncio.to_thread(_read, folder, is_tested=said.is_tested, private_issuers=private_issuers)
    return read, ComparedRules(None if in_force is None else in_force.digest, said.rules)


def _read(folder: Path, *, is_tested: bool, private_issuers: bool) -> PolicyFolder:
    """A folder that has passed, without checking it once more."""
    return PolicyFolder(
        policy_set=load_policy_folder(folder),
        documents=load_tenant_documents(folder / "tenants"),
        issuers=load_issuer_documents(folder / "issuers", may_be_private=private_issuers),
        is_tested=is_tested,
    )


def _checked(order: CheckOrder) -> _Said:
    try:
        folder = load_folder(Path(order.folder), private_issuers=order.private_issuers)
    except Misconfigured as error:
        return _Said(where=error.where, why=error.why)
    new, old = folder.policy_set, order.in_force
    rules = None if old is not None and old.digest == new.digest else compare_sets(old, new)
    return _Said(is_tested=folder.is_tested, rules=rules)


def main() -> None:
    """Check one folder: the order comes on standard input, what there is to say goes to standard output."""
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=CheckOrder)
    sys.stdout.buffer.write(msgspec.json.encode(_checked(order)))
