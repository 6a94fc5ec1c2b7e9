"""The policy folder: read it, check it, plan its changes, apply it.

    schema.cedarschema, *.cedar   rules, parsed by gateway/decision
    tenants/*.toml                facts, parsed by gateway/directory
    issuers/*.toml                facts about outside issuers, parsed there too
    tests/*.toml                  cases that say what the rules must decide

The two packages that parse it do not import each other; this module combines them.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gateway.configuration.settings import CHECKOUT_POLICIES, PACKAGED_POLICIES
from gateway.decision.cases import CaseReport, load_cases, run_cases
from gateway.decision.policyset import load_policy_folder, validate
from gateway.decision.rulebook import Rulebook
from gateway.decision.set_changes import compare_sets
from gateway.directory.documents.issuers import load_issuer_documents
from gateway.directory.documents.parse import load_tenant_documents
from gateway.directory.documents.plan import CurrentFacts, DocumentPlan, apply_plan, plan_changes
from gateway.model.errors import Conflict, Misconfigured
from gateway.model.toml_tables import DocumentProblems
from gateway.model.trusted_files import Distrusted, refuse, verify_trusted

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.directory.documents.issuers import IssuerDocument
    from gateway.directory.documents.parse import TenantDocument
    from gateway.directory.edits.changes import Changes
    from gateway.directory.reading.listing import Listing
    from gateway.model.facts import PolicySet
    from gateway.model.rule_changes import RulePlace, RuleSetChanges
    from gateway.operations.session import OperatorSession


T = TypeVar("T")

MAX_RECORDED_LINES = 50  # the rest of a plan is covered by its digest
MAX_RECORDED_RULES = 20  # of new, removed and changed rules, each
MAX_RECORDED_CHARACTERS = 300  # of one line, which may name a tenant, its patterns or a rule's @id

_PROGRAM = Path(__file__).parent.parent
_OTHER_FOLDER = (
    "Or name another folder with CACHEGATE_POLICIES, without which ./policies in the working directory is "
    "the one."
)


class PolicyFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that was read and has no problems. `is_tested`: it holds cases, and they pass."""

    policy_set: PolicySet
    documents: tuple[TenantDocument, ...]
    is_tested: bool
    issuers: tuple[IssuerDocument, ...] = ()


class ComparedRules(msgspec.Struct, frozen=True):
    """How the rules of a folder differ from the set with this digest (None: from no set)."""

    old: str | None
    changes: RuleSetChanges | None


class FolderCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking a folder. The cases run only when there is no other problem."""

    name: str
    problems: tuple[str, ...]
    folder: PolicyFolder | None
    cases: CaseReport | None

    @property
    def has_passed(self) -> bool:
        """Whether there is no problem and every rule is tested. A folder without cases does not pass."""
        return not self.problems and self.cases is not None and self.cases.has_passed

    @property
    def gaps(self) -> tuple[str, ...]:
        """What the cases leave untested, a line each."""
        if self.cases is None:
            return ()
        if not self.cases.results:
            return (
                f"{self.name}/tests: there is no case; expected *.toml files with [[cases]] for every rule",
            )
        return tuple(f"{self.name}/{rule}" for rule in self.cases.uncovered)


def check_folder(
    path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse, private_issuers: bool = False
) -> FolderCheck:
    """All problems of a folder, each with file and line.

    That others could have written it is one of them, unless `on_distrust` returns. `private_issuers` is the
    setting: whether issuers may be asked by plain http.
    """
    problems: list[str] = []
    on_distrust = _judge_of(path, on_distrust)
    try:
        policy_set = load_policy_folder(path, on_distrust=on_distrust)
        problems += (f"{path.name}/{problem}" for problem in validate(policy_set))
    except Distrusted as error:
        return FolderCheck(
            name=path.name, problems=(str(error),), folder=None, cases=None
        )  # this problem covers the rest of the folder as well
    except Misconfigured as error:
        policy_set = None
        problems.append(str(error))
    documents = _read(lambda: load_tenant_documents(path / "tenants", on_distrust=on_distrust), problems)
    issuers = _read(
        lambda: load_issuer_documents(
            path / "issuers", may_be_private=private_issuers, on_distrust=on_distrust
        ),
        problems,
    )
    cases = None
    if policy_set is not None and not problems:
        mapped, rules = [one.issuer for one in issuers or ()], policy_set
        cases = _read(
            lambda: run_cases(load_cases(path / "tests", on_distrust=on_distrust), rules, Rulebook(), mapped),
            problems,
        )
    folder = None
    if policy_set is not None and documents is not None and issuers is not None and not problems:
        folder = PolicyFolder(
            policy_set=policy_set,
            documents=documents,
            issuers=issuers,
            is_tested=cases is not None and cases.has_passed,
        )
    return FolderCheck(name=path.name, problems=tuple(problems), folder=folder, cases=cases)


def _read(read: Callable[[], T], problems: list[str]) -> T | None:
    """What a part of the folder says; None with its problems added if it has some."""
    try:
        return read()
    except DocumentProblems as error:
        problems += map(str, error.problems)
    except Misconfigured as error:
        problems.append(str(error))
    return None


def load_folder(path: Path, *, private_issuers: bool = False) -> PolicyFolder:
    """A folder that may be applied. Raises `Misconfigured` with all its problems.

    Existing cases must pass. A folder without any may be applied: a node may get the rules alone, after
    `policy check` passed where they are written. The command that applies it is told (`is_tested`).
    """
    checked = check_folder(path, private_issuers=private_issuers)
    if checked.folder is None:
        raise Misconfigured(str(path), "\n".join(["may not be applied:", *checked.problems]))
    if checked.cases is not None and not checked.has_passed and (path / "tests").is_dir():
        failed = [f"{one.file}:{one.line}: {one.name}" for one in checked.cases.results if not one.has_passed]
        raise Misconfigured(str(path / "tests"), "\n".join(["does not pass:", *failed, *checked.gaps]))
    return checked.folder


def _judge_of(path: Path, on_distrust: Callable[[Distrusted], None]) -> Callable[[Distrusted], None]:
    """The reaction to a file of this folder that others could have written.

    For the rules that came with the program nothing is reported if the same others could have written the
    program itself: they can change its behaviour without the rules.
    """

    def tell(found: Distrusted) -> None:
        on_distrust(found.with_hint(_OTHER_FOLDER))

    def pass_over(_found: Distrusted) -> None:
        """Ignore it: the same users can change the program."""

    if path in {PACKAGED_POLICIES, CHECKOUT_POLICIES}:
        try:
            verify_trusted(_PROGRAM)
        except (Distrusted, OSError):
            return pass_over
    return tell


async def plan_folder(
    folder: PolicyFolder, facts: Listing, now: float, compared: ComparedRules | None = None
) -> DocumentPlan:
    """What applying the folder would change now.

    `compared`: how its rules differ from the set that was in force, where that was worked out before. Raises
    `Conflict` where another one is in force now.
    """
    current, policy = await _current(facts), folder.policy_set
    if compared is None:
        rules = _rule_changes(current.policy, policy)
    elif compared.old == (None if current.policy is None else current.policy.digest):
        rules = compared.changes
    else:
        raise Conflict("other rules came into force meanwhile; send it again")
    return plan_changes(
        folder.documents, current, now=now, policy=policy, rules=rules, issuers=folder.issuers
    )


async def find_rule_changes(policy_set: PolicySet, facts: Listing) -> RuleSetChanges | None:
    """How a set that may be put in force differs from the one that is; None where it is the same."""
    return _rule_changes(await find_policy_set(facts), policy_set)


def _rule_changes(old: PolicySet | None, new: PolicySet) -> RuleSetChanges | None:
    return None if old is not None and old.digest == new.digest else compare_sets(old, new)


async def apply_folder(
    changes: Changes, folder: PolicyFolder, now: float, *, confirmed: DocumentPlan | None = None
) -> DocumentPlan:
    """Plan within the transaction and apply: the facts cannot change between the two.

    With `confirmed`, a plan of the same folder and `now`: raises `Conflict` when the plan has changed since,
    because the operator did not confirm the new one.
    """
    plan = await plan_folder(folder, changes, now)
    if confirmed is not None and plan != confirmed:
        raise Conflict(
            "the facts changed since the plan was shown, and what would be applied now is something else; "
            "nothing was applied. Run `cachegate policy apply` again"
        )
    await apply_plan(changes, plan)
    return plan


def recorded_plan(folder: PolicyFolder, plan: DocumentPlan) -> tuple[str, ...]:
    """The audit record's description of a plan, bounded whatever the folder holds.

    The rules and the whole plan by digest; how the rule set differs, with the first of each kind; and the
    first lines of the rest.
    """
    lines = list(plan.lines)
    digest = sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    rest = [line for change in plan.changes if change.fact is not folder.policy_set for line in change.lines]
    said = [f"digest {folder.policy_set.digest}", f"plan of {len(lines)} lines, sha256 {digest}"]
    said += recorded_rules(plan.rules)
    return (*said, *(line[:MAX_RECORDED_CHARACTERS] for line in rest[:MAX_RECORDED_LINES]))


def recorded_rules(rules: RuleSetChanges | None) -> tuple[str, ...]:
    """The audit record's description of a rule set's changes: how many, and the first of each kind."""
    if rules is None:
        return ()
    shown = rules.cut(MAX_RECORDED_RULES).lines
    left = len(rules.lines) - len(shown)
    more = [f"{left} more rules"] if left else []
    return (f"rules: {rules.summary}", *(line[:MAX_RECORDED_CHARACTERS] for line in shown), *more)


def rules_document(rules: RuleSetChanges) -> dict[str, Any]:
    """How two rule sets differ, for scripts."""
    return {
        "new": [_place(rule) for rule in rules.new],
        "gone": [_place(rule) for rule in rules.gone],
        "changed": [{**_place(pair.now), "was": _place(pair.was)} for pair in rules.changed],
        "schema_changed": rules.is_schema_changed,
        "compared": rules.is_known,
    }


def _place(rule: RulePlace) -> dict[str, Any]:
    return {"id": rule.rule_id, "effect": rule.effect, "file": rule.file, "line": rule.line}


class PolicyFileView(msgspec.Struct, frozen=True, kw_only=True):
    """A file of rules."""

    file: str
    text: str


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in force, and the source of their record."""

    digest: str
    schema: str
    policies: list[PolicyFileView]
    source: str
    generation: int


async def find_policy(session: OperatorSession) -> PolicyView:
    """The rules in force. Raises `Conflict` where there are none."""
    found = await session.listing.find_policy()
    if found is None:
        raise Conflict("no rules are in force: `cachegate policy apply` puts them there")
    return PolicyView(
        digest=found.digest,
        schema=found.schema,
        policies=[PolicyFileView(file=file, text=text) for file, text in found.policies],
        source=found.source,
        generation=found.generation,
    )


async def find_policy_set(facts: Listing) -> PolicySet | None:
    """The rules in force; None when their record does not parse: applying a folder repairs it."""
    try:
        return await facts.find_policy()
    except Conflict:
        return None


async def _current(facts: Listing) -> CurrentFacts:
    tenants = await facts.list_tenants()
    with_keys = [tenant.tenant_id for tenant in tenants if await facts.has_keys(tenant.tenant_id)]
    return CurrentFacts(
        tenants=tuple(tenants),
        rules=tuple(await facts.list_rules()),
        aliases=tuple(await facts.list_aliases()),
        grants=tuple(await facts.list_all_grants()),
        policy=await find_policy_set(facts),
        tenants_with_keys=frozenset(with_keys),
        issuers=tuple(await facts.list_issuers()),
    )
