"""Load and validate a policy folder: `schema.cedarschema` and `*.cedar` files become a PolicySet.

`load_policy_folder` reads the files and computes the digest; `validate` lists everything that is wrong with
a set, each problem with file, line and column. A set with a problem is not put in force; the one in force
stays.

Not here: applying a set (`directory/`) and tenant documents (`directory/documents/parse.py`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from gateway.decision import cedar, source
from gateway.decision.entities import sample_entities
from gateway.model.access import ADMINISTRATIVE
from gateway.model.errors import Misconfigured
from gateway.model.facts import PolicySet
from gateway.model.trusted_files import read_trusted, refusal_of, refuse, verify_trusted_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted

SCHEMA_FILE = "schema.cedarschema"
SOURCE = "policies"  # the source that the facts of a folder name
_CONTENT = [(action, kind) for action in ("discover", "read", "infer") for kind in ("Model", "Package")]
_ADMINISTRATION = [
    (action, kind) for action in sorted(ADMINISTRATIVE) for kind in ("Administration", "Tenant")
]
_ASKED = (
    *_CONTENT,
    ("list", "Catalogue"),
    *(("identify", "ApiKey"), ("identify", "Admin")),
    *_ADMINISTRATION,
)
"""The actions and resources that the gateway asks about; a schema without one would always deny it."""

_PROBES = {
    (principal, action, resource): (
        f'permit(principal is {principal}, action == Action::"{action}", resource is {resource});'
    )
    for action, resource in _ASKED
    for principal in ("ApiKey", "Admin")
}
"""A policy for each of them, which the validator refuses where the schema has no such action."""

MAX_FILE_BYTES = (
    1024 * 1024
)  # a rule set is a few screens; a megabyte is a mistake, and would slow every start


MAX_ID_CHARACTERS = 128  # every audit record of a decision names the rules that made it


class PolicyProblem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One problem of a policy folder: its location, what was found, what is expected."""

    file: str
    line: int
    column: int
    found: str
    expected: str

    def __str__(self) -> str:
        """In the form from which editors and terminals make a link."""
        return f"{self.file}:{self.line}:{self.column}: {self.found}; expected {self.expected}"


def load_policy_folder(folder: Path, *, on_distrust: Callable[[Distrusted], None] = refuse) -> PolicySet:
    """Read a folder's schema and policies, sorted by name. Raises `Misconfigured` for unreadable files.

    `on_distrust` is called for files that other users could have written. `validate` checks the texts.
    """
    verify_trusted_folder(folder, expected=f"one that holds {SCHEMA_FILE}", on_distrust=on_distrust)
    schema = _read(folder / SCHEMA_FILE, on_distrust)
    files = sorted(path for path in folder.glob("*.cedar") if not path.name.startswith("."))
    policies = tuple((path.name, _read(path, on_distrust)) for path in files)
    return PolicySet(schema=schema, policies=policies, digest=digest_of(schema, policies), source=SOURCE)


def digest_of(schema: str, policies: tuple[tuple[str, str], ...]) -> str:
    """The SHA-256 of a set. Encoded as JSON first, so that text moved between files changes the digest."""
    return hashlib.sha256(msgspec.json.encode(["cachegate-policy-1", schema, policies])).hexdigest()


def validate(policy_set: PolicySet) -> list[PolicyProblem]:
    """Everything that is wrong with a set; empty when it may be put in force.

    Types are checked only once all texts parse and the schema fits the gateway's queries: otherwise errors
    that merely follow from another one would hide it.
    """
    problems = [*schema_problems(policy_set.schema)]
    rules: list[tuple[source.SourcePosition, cedar.Rule]] = []
    for file, text in policy_set.policies:
        try:
            parsed = cedar.parse_rules(file, text)
        except cedar.CedarError as error:
            place = source.place_of_policy_error(text, cedar.find_policy_error)
            named = _named(source.find_id_at(text, place))
            problems.append(_problem(file, place, f"{named}{error}", "Cedar policies"))
        else:
            places = source.places_of_statements(text)
            rules += [(places[rule.number], rule) for rule in parsed]
    problems += _naming_problems(rules)
    if not rules and not problems:
        nothing = source.SourcePosition(1, 1)
        problems.append(
            _problem(
                SCHEMA_FILE, nothing, "the folder holds no policy", "at least one, or everything is denied"
            )
        )
    if not problems:
        names = {(rule.file, rule.number): rule.policy_id for _, rule in rules}
        for file, text in policy_set.policies:
            complaints = cedar.type_errors(text, policy_set.schema)
            places = source.places_of_complaints(text, complaints) if complaints else []
            for (number, complaint), place in zip(complaints, places, strict=True):
                found = f"{_named(names.get((file, number)))}{complaint}"
                problems.append(_problem(file, place, found, "what the schema declares"))
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))


def schema_problems(schema: str) -> Iterator[PolicyProblem]:
    """Check that the schema parses and describes what the gateway passes with every query."""
    error = cedar.find_schema_error(schema)
    if error is not None:
        place = source.place_of_syntax_error(schema, cedar.find_schema_error)
        yield _problem(SCHEMA_FILE, place, error, "a Cedar schema")
        return
    start = source.SourcePosition(1, 1)
    entities = msgspec.json.encode(sample_entities()).decode()
    error = cedar.find_entity_error(schema, entities)
    if error is not None:
        yield _problem(SCHEMA_FILE, start, error, "the entities that the shipped schema declares")
        return
    # One text for all: each call of the validator reads the schema anew, which takes milliseconds.
    wrong = {number for number, _ in cedar.type_errors("\n".join(_PROBES.values()), schema)}
    for number, (principal, action, resource) in enumerate(_PROBES):
        if number in wrong:
            found = f'no action "{action}" of {principal} on {resource}'
            yield _problem(SCHEMA_FILE, start, found, "the actions that the shipped schema declares")


def _naming_problems(rules: list[tuple[source.SourcePosition, cedar.Rule]]) -> Iterator[PolicyProblem]:
    """Audit records name policies by @id: check that each has one, and that all differ."""
    first: dict[str, str] = {}
    for place, rule in rules:
        if rule.is_template:
            yield _problem(rule.file, place, "a template, which nothing links", "a policy without ?slots")
        if rule.policy_id is None:
            yield _problem(rule.file, place, "a policy without an @id", '@id("what-it-does") before it')
        elif len(rule.policy_id) > MAX_ID_CHARACTERS or not rule.policy_id.isprintable():
            found = f"an @id of {len(rule.policy_id)} characters that starts with {rule.policy_id[:20]!a}"
            yield _problem(
                rule.file, place, found, f"at most {MAX_ID_CHARACTERS} characters, all of them printable"
            )
        elif rule.policy_id in first:
            found = f'@id("{rule.policy_id}") again, after {first[rule.policy_id]}'
            yield _problem(rule.file, place, found, "an @id of its own")
        else:
            first[rule.policy_id] = f"{rule.file}:{place.line}"


def _named(rule_id: str | None) -> str:
    """The prefix of a message that names the rule it is about."""
    return "" if rule_id is None else f'rule "{rule_id}": '


def _problem(file: str, place: source.SourcePosition, found: str, expected: str) -> PolicyProblem:
    return PolicyProblem(
        file=file, line=place.line, column=place.column, found=" ".join(found.split()), expected=expected
    )


def _read(path: Path, on_distrust: Callable[[Distrusted], None]) -> str:
    """Read one text. Its rules will be in force: any doubt about the file itself refuses it."""
    try:
        raw_text = read_trusted(path, max_bytes=MAX_FILE_BYTES, on_distrust=on_distrust)
    except FileNotFoundError as error:
        raise Misconfigured(str(path), "is missing; expected a Cedar text") from error
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({refusal_of(path, error)})") from error
    try:
        return raw_text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw_text.count(b"\n", 0, error.start) + 1
        raise Misconfigured(f"{path}:{line}", "is not UTF-8; expected UTF-8 text") from error
