"""Run the test cases of a policy set: requests with expected answers, written as TOML.

A case file describes a few tenants and models in the vocabulary of tenant documents, and asks questions
about them. The cases run through the same Rulebook that serves requests. A rule is covered by a passing case
whose answer would be different without that one rule: allow instead of deny, deny instead of allow, or a
denial with another reason. A rule without such a case is reported, because it is untested whether it does
what its @id says. Where two rules permit the same, each needs a case in which it alone does.

A forbid that guards against rules that others may add later has nothing to forbid among the folder's own.
Its case names such a rule as `added_permits`: Cedar text that is added to the folder's for this case alone.

A case of a token (`[[tokens]]`) names the claims of a token of an outside issuer, and the tenant, rule and
scopes that they should mean, or why it should be refused.

Not here: who owns what in the running system. A case knows only its own file.
"""

from __future__ import annotations

import tomllib
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict, replace

from gateway.decision import cedar, source
from gateway.decision.left_out import rules_relied_on
from gateway.decision.policyset import MAX_FILE_BYTES, digest_of
from gateway.decision.world import CaseQuestion, CaseWorld, WorldTenant
from gateway.model.access import parse_allowable
from gateway.model.errors import BadNameError, Misconfigured, Reason
from gateway.model.issuers import find_rule
from gateway.model.names import parse_tenant_id
from gateway.model.tenant_tables import GRANT_KEYS, MODELS_KEYS, grant_tables, read_grant, read_models
from gateway.model.toml_tables import DocumentProblems, TomlTables
from gateway.model.trusted_files import read_trusted, refuse
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from gateway.decision.cedar import Rule
    from gateway.decision.rulebook import Answers, Rulebook
    from gateway.model.facts import Grant, PolicySet
    from gateway.model.issuers import Issuer, MappingRule
    from gateway.model.names import TenantId
    from gateway.model.trusted_files import Distrusted
    from gateway.model.verdicts import Verdict


MAX_NAMED = 3  # other rules that a message names: enough to see which overlap a new case must avoid


class Case(CaseQuestion, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question with its expected answer. `policies` and `grant` are compared where they are given."""

    name: str
    expect: str
    added_permits: str = ""
    reason: str | None = None
    policies: tuple[str, ...] | None = None
    grant: str | None = None

    def __post_init__(self) -> None:
        """Refuse an expectation that no decision can meet: such a case could never pass."""
        if self.expect not in {"allow", "deny"}:
            raise ValueError(f'expect is {self.expect!r}; expected "allow" or "deny"')
        if (self.expect == "deny") != (self.reason is not None):
            raise ValueError("a denial is expected with its reason, an allow without")
        if self.reason is not None and self.reason not in set(Reason):
            raise ValueError(f"{self.reason!r} is not a reason")
        _check_added_permits(self.added_permits)


class TokenCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The claims of a token of an outside issuer, by the name of its document, and what they should mean.

    Claims alone: what a folder decides about a token is its mapping. A signed sample would need a private key
    beside the policy, would end after minutes, and would test the issuer's key.
    """

    name: str
    issuer: str
    claims: dict[str, Any]
    tenant: str | None = None
    rule: str | None = None
    scopes: tuple[str, ...] | None = None
    refused: str | None = None

    def __post_init__(self) -> None:
        """Refuse an expectation that no mapping can meet."""
        if (self.tenant is None) == (self.refused is None):
            raise ValueError("a token is expected to be of a tenant, or refused with a reason: one of both")
        reasons = (Reason.UNMAPPED_TOKEN.value, Reason.AMBIGUOUS_TOKEN.value)
        if self.refused is not None and self.refused not in reasons:
            raise ValueError(f"refused is {self.refused!r}; expected {' or '.join(map(repr, reasons))}")
        if self.refused is not None and (self.rule is not None or self.scopes is not None):
            raise ValueError("a refused token has neither a rule nor scopes")


class CaseFile(CaseWorld, frozen=True, kw_only=True):
    """A set of tenants (a world), the cases about it, and cases of tokens."""

    cases: tuple[Case, ...]
    tokens: tuple[TokenCase, ...] = ()


class _Cases(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a file holds beside its tenants."""

    cases: tuple[Case, ...] = ()
    tokens: tuple[TokenCase, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a file without any: it would pass."""
        if not (self.cases or self.tokens):
            raise ValueError("no [[cases]] and no [[tokens]]; expected some")


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a case. `found` differs from `expected` where it failed."""

    file: str
    line: int
    name: str
    has_passed: bool
    expected: str
    found: str
    policies: tuple[str, ...]


class UncoveredRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that no passing case relies on.

    `decides`: passing cases name the rule, but have the same answer without it. `beside`: the other rules
    that decide those cases.
    """

    policy: str
    effect: str
    file: str
    line: int
    decides: bool
    beside: tuple[str, ...]

    def __str__(self) -> str:
        """The location, what is missing, and what to do."""
        if not self.decides:
            why = "no case that passes is decided by it"
        elif self.beside:
            why = f"its cases have the same answer without it, by {', '.join(self.beside)}"
        elif self.effect == cedar.FORBID:
            why = "its cases have the same answer without it, because nothing permits what it forbids"
        else:
            why = "its cases have the same answer without it"
        expected = "a case in tests/ that has another answer without it"
        return f'{self.file}:{self.line}: the rule "{self.policy}" is not covered: {why}; expected {expected}'


class CaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all cases, and the rules that no passing case relies on."""

    results: tuple[CaseResult, ...]
    uncovered: tuple[UncoveredRule, ...]

    @property
    def has_passed(self) -> bool:
        """Whether every case passed and every rule is covered. A run without cases does not pass."""
        return bool(self.results) and not self.uncovered and all(each.has_passed for each in self.results)


def load_cases(
    folder: Path, *, on_distrust: Callable[[Distrusted], None] = refuse
) -> tuple[tuple[str, str, CaseFile], ...]:
    """The case files of a folder, sorted: name, text, content. Raises `Misconfigured` for a bad one.

    `on_distrust` is called for a file that other users could have written.
    """
    return tuple(_load(path, on_distrust) for path in sorted(folder.glob("*.toml")))


def run_cases(
    files: Iterable[tuple[str, str, CaseFile]],
    policy_set: PolicySet,
    rulebook: Rulebook,
    issuers: Sequence[Issuer] = (),
) -> CaseReport:
    """Decide every case of every file under this set, and find the rules that none of them relies on.

    The cases of tokens go by the mapping of these issuers.
    """
    results: list[CaseResult] = []
    covered: set[Rule] = set()
    beside: dict[str, dict[str, None]] = {}
    for file, text, content in files:
        results += _token_results(file, text, content, issuers)
        for number, case in enumerate(content.cases):
            with_added = _with_added_permits(policy_set, file, case.added_permits)
            access, facts = content.put(case, with_added)
            weighed = rulebook.weigh(access, facts)
            verdict = rulebook.decide(access, facts) if weighed is None else weighed.verdict
            result = _result(file, _line_of_case(text, number), case, verdict)
            if weighed is not None and not result.has_passed:
                result = replace(result, found=" ".join((result.found, *_failures(weighed.answers))))
            results.append(result)
            if weighed is None or not result.has_passed:
                continue
            covered |= rules_relied_on(weighed, rulebook)
            for policy in verdict.policies:
                others = (other for other in verdict.policies if other != policy)
                beside.setdefault(policy, {}).update(dict.fromkeys(islice(others, MAX_NAMED)))
    rules = rulebook.rules(policy_set)
    uncovered = [rule for rule in rules if rule not in covered]
    return CaseReport(results=tuple(results), uncovered=tuple(_uncovered(policy_set, uncovered, beside)))


def _token_results(
    file: str, text: str, content: CaseFile, issuers: Sequence[Issuer]
) -> Iterator[CaseResult]:
    """Map the claims of each token by the rules of its issuer, as a worker does after it verified a token."""
    for number, case in enumerate(content.tokens):
        issuer = next((one for one in issuers if one.name == case.issuer), None)
        rule: MappingRule | None = None
        if issuer is None:
            found = f"there is no issuers/{case.issuer}.toml"
        else:
            rule, reason = find_rule(issuer, case.claims)
            found = f"refused {reason}" if rule is None else _token_answer(case, rule)
        expected = f"refused {case.refused}" if case.refused else _token_answer(case)
        yield CaseResult(
            file=file,
            line=_line_of_case(text, number, "[[tokens]]"),
            name=case.name,
            has_passed=found == expected,
            expected=expected,
            found=found,
            policies=(),
        )


def _token_answer(case: TokenCase, found: MappingRule | None = None) -> str:
    """What the token means: as expected or, with a rule, as found. Compared is what the case names."""
    tenant = case.tenant if found is None else found.tenant
    rule = case.rule if found is None else found.name
    scopes = case.scopes if found is None else found.scopes
    parts = [f"tenant {tenant}"]
    parts += [] if case.rule is None else [f"by {rule}"]
    parts += [] if case.scopes is None else [f"with {' '.join(sorted(scopes or ()))}"]
    return " ".join(parts)


def _failures(answers: Answers) -> Iterator[str]:
    """Which rules failed on a case, and why: its answer is then a denial that no rule intended."""
    errors = {rule: error for row in answers for answer in row for rule, error in answer.errors}
    for rule, error in errors.items():
        yield f'(the rule "{rule.name}" of {rule.file} failed: {error})'


def _uncovered(
    policy_set: PolicySet, rules: list[Rule], beside: dict[str, dict[str, None]]
) -> Iterator[UncoveredRule]:
    """The location of each of these rules, and the other rules that decide its cases."""
    files = {rule.file for rule in rules}
    written = {file: source.rule_texts(text) for file, text in policy_set.policies if file in files}
    for rule in rules:
        yield UncoveredRule(
            policy=rule.name,
            effect=rule.effect,
            file=rule.file,
            line=written[rule.file][rule.number].line,
            decides=rule.name in beside,
            beside=tuple(beside.get(rule.name, ()))[:MAX_NAMED],
        )


def _with_added_permits(policy_set: PolicySet, file: str, added: str) -> PolicySet:
    """The set with the permits of a case added, as one more file."""
    if not added:
        return policy_set
    policies = (*policy_set.policies, (f"tests/{file}", added))
    return replace(policy_set, policies=policies, digest=digest_of(policy_set.schema, policies))


def _check_added_permits(added: str) -> None:
    """Accept permits only: an added forbid could hide what a permit of the folder opens."""
    try:
        rules = cedar.parse_rules("added_permits", added) if added else ()
    except cedar.CedarError as error:
        raise ValueError(f"added_permits is not Cedar: {error}") from error
    if any(rule.effect != cedar.PERMIT or rule.is_template for rule in rules):
        raise ValueError("added_permits holds something else than permits")


def _load(path: Path, on_distrust: Callable[[Distrusted], None]) -> tuple[str, str, CaseFile]:
    try:
        text = read_trusted(path, max_bytes=MAX_FILE_BYTES, on_distrust=on_distrust).decode("utf-8")
        content = _case_file(TomlTables(path, text, tomllib.loads(text)))
        for number, case in enumerate(content.cases):
            content.put(case)
            if case.at is None and content.has_times:
                why = "says no time, and a grant or publication of the file begins or ends; expected `at`"
                raise Misconfigured(f"{path}:{_line_of_case(text, number)}", f"{case.name!r} {why}")
            if case.at is not None and case.at.tzinfo is None:
                why = "has a time without its zone; expected one such as 2030-01-31T12:00:00Z"
                raise Misconfigured(f"{path}:{_line_of_case(text, number)}", f"{case.name!r} {why}")
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(str(path), "is not UTF-8; expected UTF-8 text") from error
    except RecursionError as error:
        raise Misconfigured(str(path), "nests too deep to be read") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, BadNameError) as error:
        raise Misconfigured(str(path), str(error)) from error
    except ValueError as error:  # raised by Python, not by TOML, for a number of thousands of digits
        raise Misconfigured(str(path), "holds a number that is too long to be read") from error
    return path.name, text, content


def _case_file(tables: TomlTables) -> CaseFile:
    """A file's tenants, in the words of tenant documents, and its cases."""
    written = tables.table(tables.content, "", "tenants")
    tenants = dict(
        tenant for name in written for tenant in _tenant(tables, name, tables.table(written, "tenants", name))
    )
    if tables.problems:
        raise DocumentProblems(tables.problems)
    beside = {key: value for key, value in tables.content.items() if key != "tenants"}
    written_cases = msgspec.convert(beside, _Cases)
    return CaseFile(tenants=tenants, cases=written_cases.cases, tokens=written_cases.tokens)


def _tenant(
    tables: TomlTables, name: str, table: Mapping[str, Any]
) -> Iterator[tuple[TenantId, WorldTenant]]:
    """A tenant by its id; nothing, with a problem recorded, for a bad one."""
    at = f"tenants.{name}"
    tables.refuse_unknown(table, at, (*MODELS_KEYS, "grants", "allows"))
    said = read_models(tables, table, at)
    grants = [
        _grant(tables, grant, f"{at}.grants", nth)
        for nth, grant in enumerate(grant_tables(tables, table, at))
    ]
    allows = tables.names(table, at, "allows", parse_allowable)
    for tenant_id in tables.name(name, parse_tenant_id, "tenants", name).values():
        yield tenant_id, WorldTenant(grants=tuple(grants), allows=allows, **asdict(said))


def _grant(tables: TomlTables, table: Mapping[str, Any], at: str, nth: int) -> Grant:
    """A grant, with the id by which a case can expect it."""
    tables.refuse_unknown(table, at, ("id", *GRANT_KEYS), nth)
    if "id" not in table:
        tables.complain(
            'no id; expected one by which a case can name the grant, such as id = "lent"', at, nth=nth
        )
    return replace(read_grant(tables, table, at, nth), grant_id=tables.text(table, at, "id", ""))


def _result(file: str, line: int, case: Case, verdict: Verdict) -> CaseResult:
    is_allowed = isinstance(verdict, Allowed)
    found = _answer(
        "allow" if is_allowed else "deny",
        None if isinstance(verdict, Allowed) else verdict.reason,
        None if case.policies is None else verdict.policies,
        verdict.grant if isinstance(verdict, Allowed) and case.grant is not None else None,
    )
    expected = _answer(case.expect, case.reason, case.policies, case.grant)
    return CaseResult(
        file=file,
        line=line,
        name=case.name,
        has_passed=found == expected,
        expected=expected,
        found=found,
        policies=verdict.policies,
    )


def _answer(verdict: str, reason: str | None, policies: Sequence[str] | None, grant: str | None) -> str:
    """An answer as one line that can be compared."""
    parts = [verdict, reason or ""]
    parts += [] if policies is None else [f"by {', '.join(sorted(policies)) or 'no policy'}"]
    parts += [] if grant is None else [f"through {grant}"]
    return " ".join(filter(None, parts))


def _line_of_case(text: str, number: int, header: str = "[[cases]]") -> int:
    """The line on which a case starts; 1 for files that write their cases in another TOML form."""
    starts = [line for line, content in enumerate(text.splitlines(), 1) if content.strip() == header]
    return starts[number] if number < len(starts) else 1
