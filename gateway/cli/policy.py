"""`cachegate policy`: check the policy folder, see what it would change, apply it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.distrust import Warnings
from gateway.cli.perform import NoWait, barrier_document, barrier_notes, in_session, is_sure
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import refuse
from gateway.operations.policy_folder import (
    apply_folder,
    check_folder,
    load_folder,
    plan_folder,
    recorded_plan,
)
from gateway.terminal.console import AsJson, Note, Table, say, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.directory.documents.plan import DocumentPlan
    from gateway.model.rule_changes import RulePlace, RuleSetChanges
    from gateway.model.trusted_files import Distrusted
    from gateway.operations.policy_folder import FolderCheck, PolicyFolder
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

commands = typer.Typer(help="Rules and policy documents: check, test, diff, apply.", no_args_is_help=True)

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
    read = _load(folder)
    plan, _ = _plan(read)
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
    read = _load(folder)  # once: what is shown is what is applied, whatever happens to the files
    plan, now = _plan(read)
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

    async def work(session: OperatorSession) -> Done[DocumentPlan]:
        return await session.perform(
            "policy.apply",
            lambda changes: apply_folder(changes, read, now, confirmed=plan),
            subject=recorded_plan(read, plan),
            wait=not no_wait,
        )

    done = in_session(work)
    _show_plan(done.result, as_json=as_json, done=done, is_yes=is_sure(done.barrier))


def _plan(folder: PolicyFolder) -> tuple[DocumentPlan, float]:
    """What applying the folder would change, and as of when."""

    async def work(session: OperatorSession) -> tuple[DocumentPlan, float]:
        now = session.clock.now()
        return await plan_folder(folder, session.listing, now), now

    return in_session(work)


def _say_untested(folder: PolicyFolder) -> None:
    if not folder.is_tested:
        say("The folder has no tests/, so none of its rules is tested; `policy check` fails.", "yellow")


def _load(given: Path | None) -> PolicyFolder:
    path, private_issuers = _folder(given)
    return load_folder(path, private_issuers=private_issuers)


def _folder(given: Path | None, on_distrust: Callable[[Distrusted], None] = refuse) -> tuple[Path, bool]:
    """The folder, and whether issuers may be in the operator's own network."""
    settings = load_settings(on_distrust=on_distrust)
    return settings.policies if given is None else given.absolute(), settings.private_issuers


def _show_plan(
    plan: DocumentPlan, *, as_json: bool, done: Done[DocumentPlan] | None = None, is_yes: bool = True
) -> None:
    """Show a plan; with `done`, its result."""
    document = {
        "changes": plan.lines,
        "conflicts": plan.conflicts,
        "rules": None if plan.rules is None else _rules_document(plan.rules),
        "applied": done is not None,
        "generation": done.generation if done else None,
        **barrier_document(done.barrier if done else None),
    }
    show(document, _shown_plan(plan, done), as_json=as_json, is_yes=is_yes)


def _shown_plan(plan: DocumentPlan, done: Done[DocumentPlan] | None) -> Iterator[Note]:
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


def _rules_document(rules: RuleSetChanges) -> dict[str, Any]:
    """How the rule sets differ, for scripts."""
    return {
        "new": [_place_document(rule) for rule in rules.new],
        "gone": [_place_document(rule) for rule in rules.gone],
        "changed": [
            {**_place_document(pair.now), "was": _place_document(pair.was)} for pair in rules.changed
        ],
        "schema_changed": rules.is_schema_changed,
        "compared": rules.is_known,
    }


def _place_document(rule: RulePlace) -> dict[str, Any]:
    return {"id": rule.rule_id, "effect": rule.effect, "file": rule.file, "line": rule.line}


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
