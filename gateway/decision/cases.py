"""Cases of policies as data: who asks for what, and what the answer must be.

A case file describes a small world in the vocabulary of tenant documents, and questions about it.
They run through the same Rulebook that serves requests. A policy that no passing case was decided by
is reported, because nobody knows whether it does what its @id says.

Not here: who owns what in the running system. A case knows only its own file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.decision.policyset import MAX_FILE_BYTES
from gateway.decision.world import CaseQuestion, World
from gateway.model.errors import BadNameError, Misconfigured, Reason
from gateway.model.trusted_files import read_trusted, refuse
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from gateway.decision.rulebook import Rulebook
    from gateway.model.facts import PolicySet
    from gateway.model.trusted_files import Distrusted


class Case(CaseQuestion, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question with its answer. `policies` and `grant` are compared where they are given."""

    name: str
    expect: str
    reason: str | None = None
    policies: tuple[str, ...] | None = None
    grant: str | None = None

    def __post_init__(self) -> None:
        """An answer that no decision can have would make a case that cannot pass."""
        if self.expect not in {"allow", "deny"}:
            raise ValueError(f'expect is {self.expect!r}; expected "allow" or "deny"')
        if (self.expect == "deny") != (self.reason is not None):
            raise ValueError("a denial is expected with its reason, an allow without")
        if self.reason is not None and self.reason not in set(Reason):
            raise ValueError(f"{self.reason!r} is not a reason")


class CaseFile(World, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A world and the cases in it."""

    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What a case came to. `found` differs from `expected` where it failed."""

    file: str
    line: int
    name: str
    has_passed: bool
    expected: str
    found: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All results, and the policies that no passing case was decided by."""

    results: tuple[CaseResult, ...]
    uncovered: tuple[str, ...]

    @property
    def has_passed(self) -> bool:
        """Whether every case passed and every policy is covered. No case at all is no pass."""
        return bool(self.results) and not self.uncovered and all(each.has_passed for each in self.results)


def load_cases(
    folder: Path, *, on_distrust: Callable[[Distrusted], None] = refuse
) -> tuple[tuple[str, str, CaseFile], ...]:
    """The case files of a folder, sorted: name, text, content. Raises `Misconfigured` for a bad one.

    `on_distrust` is told what others could have written.
    """
    return tuple(_load(path, on_distrust) for path in sorted(folder.glob("*.toml")))


def run_cases(
    files: Iterable[tuple[str, str, CaseFile]], policy_set: PolicySet, rulebook: Rulebook
) -> Report:
    """Decide every case of every file under this set."""
    results = tuple(
        _run(name, _line_of_case(text, number), case, content, policy_set, rulebook)
        for name, text, content in files
        for number, case in enumerate(content.cases)
    )
    covered = {policy for result in results if result.has_passed for policy in result.policies}
    names = [rule.name for rule in rulebook.rules(policy_set)]
    return Report(results=results, uncovered=tuple(name for name in names if name not in covered))


def _load(path: Path, on_distrust: Callable[[Distrusted], None]) -> tuple[str, str, CaseFile]:
    try:
        text = read_trusted(path, max_bytes=MAX_FILE_BYTES, on_distrust=on_distrust).decode("utf-8")
        content = msgspec.convert(tomllib.loads(text), CaseFile)
        for case in content.cases:
            content.put(case)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(str(path), "is not UTF-8; expected UTF-8 text") from error
    except RecursionError as error:
        raise Misconfigured(str(path), "nests too deep to be read") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, BadNameError) as error:
        raise Misconfigured(str(path), str(error)) from error
    except ValueError as error:  # not TOML's own: Python reads no number of thousands of digits
        raise Misconfigured(str(path), "holds a number that is too long to be read") from error
    return path.name, text, content


def _run(
    file: str, line: int, case: Case, world: World, policy_set: PolicySet, rulebook: Rulebook
) -> CaseResult:
    access, facts = world.put(case, policy_set)
    verdict = rulebook.decide(access, facts)
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
    """An answer as one comparable line."""
    parts = [verdict, reason or ""]
    parts += [] if policies is None else [f"by {', '.join(sorted(policies)) or 'no policy'}"]
    parts += [] if grant is None else [f"through {grant}"]
    return " ".join(filter(None, parts))


def _line_of_case(text: str, number: int) -> int:
    """The line on which a case starts; 1 for files that write their cases in another form."""
    starts = [line for line, content in enumerate(text.splitlines(), 1) if content.strip() == "[[cases]]"]
    return starts[number] if number < len(starts) else 1
