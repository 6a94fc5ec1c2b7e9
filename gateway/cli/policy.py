"""`cachegate policy`: check the policy folder, see what it would change, apply it; show what is in force."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli import remote_policy
from gateway.cli.distrust import Warnings
from gateway.cli.perform import NoWait, barrier_document, barrier_notes, in_session, is_sure
from gateway.cli.remote import find_gateway, told_change
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import refuse
from gateway.operations.policy_folder import (
    apply_folder,
    check_folder,
    find_policy,
    load_folder,
    plan_folder,
    recorded_plan,
    rules_document,
)
from gateway.terminal.console import AsJson, Note, Table, say, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.adapters.admin_client import AdminClient
    from gateway.directory.documents.plan import DocumentPlan
    from gateway.model.trusted_files import Distrusted
    from gateway.operations.policy_folder import FolderCheck, PolicyFolder
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(
    help="Rules and policy documents: check, test, diff, apply, show.", no_args_is_help=True
)

Folder = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="The policy folder; CACHEGATE_POLICIES if none is given.")
]


@commands.command("check")
def check(folder: Folder = None, as_json: AsJson = False) -> None:
    """Check rules, documents and cases. Every complaint names file and line.

    What others could have written is checked all the same, with a warning; `apply` refuses it.
    """
    warn = Warnings()
    path, private_issuers = _folder(folder, warn)
    checked = check_folder(path, on_distrust=warn, private_issuers=private_issuers)
    document = {"folder": str(path), "passed": checked.has_passed, **_plain(checked)}

    def shown() -> Iterator[Note | Table]:
        yield from _shown_check(checked, only_failed=True)
        if checked.has_passed and checked.folder is not None:
            count, documents = len(checked.folder.policy_set.policies), len(checked.folder.documents)
            cases, issuers = len(checked.cases.results) if checked.cases else 0, len(checked.folder.issuers)
            outside = f", {issuers} issuer documents" if issuers else ""
            yield Note(
                f"{path}: {count} policy files, {documents} tenant documents{outside}, {cases} cases passed",
                "green",
            )

    show(document, shown(), as_json=as_json, is_yes=checked.has_passed)


@commands.command("test")
def run_tests(folder: Folder = None, as_json: AsJson = False) -> None:
    """Run the cases in tests/ and show each."""
    warn = Warnings()
    path, private_issuers = _folder(folder, warn)
    checked = check_folder(path, on_distrust=warn, private_issuers=private_issuers)
    document = {"passed": checked.has_passed, **_plain(checked)}
    shown = _shown_check(checked, only_failed=False)
    show(document, shown, as_json=as_json, is_yes=checked.has_passed)


@commands.command("diff")
def diff(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show what applying the folder would change. Exit status 1 when there is something."""
    path, read = _load(folder)
    plan = _plan(path, read)
    _say_untested(read)
    _show_plan(plan, as_json=as_json, is_yes=plan.is_empty)


@commands.command("apply")
def apply(
    folder: Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Show the difference, ask, and apply it as one transaction. Applying twice changes nothing."""
    if as_json and not yes and not dry_run:
        raise Misconfigured("policy apply", "--json asks nobody; say --yes, or --dry-run to look only")
    path, read = _load(folder)  # once: what is shown is what is applied, whatever happens to the files
    plan = _plan(path, read)
    _say_untested(read)
    if dry_run or plan.is_empty or plan.conflicts:
        _show_plan(plan, as_json=as_json, is_yes=not plan.conflicts)
        return
    if not yes:
        _show_plan(plan, as_json=False)
        if not sys.stdin.isatty():
            raise Misconfigured(
                "policy apply", "there is nobody to ask; say --yes, or --dry-run to look only"
            )
        if not typer.confirm("Apply this?", err=True):
            raise typer.Exit(1)

    applied, done = plan.apply(wait=not no_wait)
    _show_plan(applied, as_json=as_json, done=done, is_yes=is_sure(done.barrier))


@commands.command("show")
def show_(as_json: AsJson = False) -> None:
    """Show the rules in force: their digest, where they come from, their files. With --json: their texts."""
    if (gateway := find_gateway()) is not None:
        found = remote_policy.find_policy(gateway)
    else:
        found = in_session(find_policy)
    rows = [
        ("digest", found.digest),
        ("source", found.source),
        ("schema", f"{len(found.schema.splitlines())} lines"),
        ("files", "\n".join(f"{one.file}: {len(one.text.splitlines())} lines" for one in found.policies)),
    ]
    show(found, [Table("Rules in force", ("", ""), rows)], as_json=as_json)


class _Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as it is shown, and the way to make it true: on the state folder, or through a gateway."""

    lines: Sequence[str]
    conflicts: Sequence[str]
    rules: dict[str, Any] | None
    apply: Callable[..., tuple[_Planned, Done[Any]]]

    @property
    def is_empty(self) -> bool:
        return not self.lines and not self.conflicts


def _plan(path: Path, folder: PolicyFolder) -> _Planned:
    """What applying the folder would change."""
    gateway = find_gateway()
    return _planned_here(folder) if gateway is None else _planned_there(gateway, path, folder)


def _planned_here(folder: PolicyFolder) -> _Planned:
    async def work(session: OperatorSession) -> tuple[DocumentPlan, float]:
        now = session.clock.now()
        return await plan_folder(folder, session.listing, now), now

    plan, now = in_session(work)

    def apply_here(*, wait: bool) -> tuple[_Planned, Done[Any]]:
        done = in_session(
            lambda session: session.perform(
                "policy.apply",
                lambda changes: apply_folder(changes, folder, now, confirmed=plan),
                subject=recorded_plan(folder, plan),
                wait=wait,
            )
        )
        return _shown_by(done.result, apply_here), done

    return _shown_by(plan, apply_here)


def _shown_by(plan: DocumentPlan, apply: Callable[..., tuple[_Planned, Done[Any]]]) -> _Planned:
    rules = None if plan.rules is None else rules_document(plan.rules)
    return _Planned(lines=plan.lines, conflicts=plan.conflicts, rules=rules, apply=apply)


def _planned_there(gateway: AdminClient, path: Path, folder: PolicyFolder) -> _Planned:
    sent = remote_policy.folder_document(path, folder.policy_set)
    told = gateway.ask("/policy/plan", sent)

    def apply_there(*, wait: bool) -> tuple[_Planned, Done[Any]]:
        changed = gateway.change("POST", "/policy/apply", {**sent, "confirmed": told["digest"]}, wait=wait)
        return shown_by(changed["plan"]), told_change(changed, is_waited_for=wait)

    def shown_by(plan: dict[str, Any]) -> _Planned:
        return _Planned(
            lines=plan["changes"], conflicts=plan["conflicts"], rules=plan["rules"], apply=apply_there
        )

    return shown_by(told)


def _say_untested(folder: PolicyFolder) -> None:
    if not folder.is_tested:
        say("The folder has no tests/, so none of its rules is tested; `policy check` fails.", "yellow")


def _load(given: Path | None) -> tuple[Path, PolicyFolder]:
    path, private_issuers = _folder(given)
    return path, load_folder(path, private_issuers=private_issuers)


def _folder(given: Path | None, on_distrust: Callable[[Distrusted], None] = refuse) -> tuple[Path, bool]:
    """The folder, and whether issuers may be in the operator's own network."""
    settings = load_settings(on_distrust=on_distrust)
    return settings.policies if given is None else given.absolute(), settings.private_issuers


def _show_plan(plan: _Planned, *, as_json: bool, done: Done[Any] | None = None, is_yes: bool = True) -> None:
    """Show a plan; with `done`, its result."""
    document = {
        "changes": plan.lines,
        "conflicts": plan.conflicts,
        "rules": plan.rules,
        "applied": done is not None,
        "generation": done.generation if done else None,
        **barrier_document(done.barrier if done else None),
    }
    show(document, _shown_plan(plan, done), as_json=as_json, is_yes=is_yes)


def _shown_plan(plan: _Planned, done: Done[Any] | None) -> Iterator[Note]:
    colours = {"+": "green", "-": "red", "~": "yellow"}
    for line in plan.lines:
        yield Note(line, colours.get(line[:1], ""))
    for conflict in plan.conflicts:
        yield Note(f"conflict: {conflict}", "bold red")
    if plan.is_empty:
        yield Note("Nothing to change: what is in force says what the folder says.")
    elif done is not None:
        yield Note(f"Applied, generation {done.generation}.", "bold")
        yield from barrier_notes(done.barrier)


def _shown_check(checked: FolderCheck, *, only_failed: bool) -> Iterator[Note | Table]:
    for problem in checked.problems:
        yield Note(problem, "red")
    results = checked.cases.results if checked.cases else ()
    rows = [
        (
            "passed" if one.has_passed else "FAILED",
            f"{one.file}:{one.line}",
            one.name,
            one.expected,
            one.found,
        )
        for one in results
        if not (only_failed and one.has_passed)
    ]
    if rows:
        yield Table("Cases", ("", "where", "case", "expected", "found"), rows)
    for gap in checked.gaps:
        yield Note(gap, "red")


def _plain(checked: FolderCheck) -> dict[str, Any]:
    cases = checked.cases
    return {
        "problems": checked.problems,
        "cases": [
            {
                "file": one.file,
                "line": one.line,
                "name": one.name,
                "passed": one.has_passed,
                "expected": one.expected,
                "found": one.found,
            }
            for one in (cases.results if cases else ())
        ],
        "uncovered": [rule.policy for rule in cases.uncovered] if cases else [],
        "gaps": checked.gaps,
    }
