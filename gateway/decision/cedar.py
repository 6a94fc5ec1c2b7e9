"""The Cedar engine: texts in, a prepared set out, and plain answers to batches of requests.

The one importer of cedarpy. What Cedar says is taken literally and fails closed (I1): Cedar skips a
policy that errors, so a broken `forbid` would open what it closes; an answer with any error is
therefore marked as failed, and so is every answer of a batch whose entities do not fit the schema.

Not here: what the entities are (`entities.py`) and what an answer means (`rulebook.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cedarpy

from gateway.decision import source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ids from a request may stand further right in the message, so only its fixed beginning is read.
_FAILED_POLICY = re.compile(r"error while evaluating policy `(policy[0-9]+)`")
_OF_A_POLICY = re.compile(r"for policy `policy[0-9]+`, ")  # how the validator's complaints begin


PERMIT, FORBID = "permit", "forbid"


class CedarError(Exception):
    """A text that Cedar does not take. Stays within the room; the message is Cedar's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy of a set: where it stands and what it calls itself."""

    file: str
    number: int  # from 0, within its file
    policy_id: str | None  # the @id annotation
    effect: str  # permit, forbid
    via: str | None = None  # the @via annotation: what an allow is put down to
    notes: tuple[str, ...] = ()  # all other annotations, as `name: value`: words for people
    is_template: bool = False

    @property
    def name(self) -> str:
        """What audit records call it: its @id, or its place in its file when it has none."""
        return self.policy_id or f"{self.file}#{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CedarAnswer:
    """Cedar's answer to one request. `rules` are the determining ones, or those that failed.

    `errors` says why each of the latter failed. It may quote what a request brought: for operators.
    """

    is_allowed: bool
    has_failed: bool
    rules: tuple[Rule, ...] = ()
    errors: tuple[tuple[Rule, str], ...] = ()


FAILED = CedarAnswer(is_allowed=False, has_failed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSet:
    """A policy set, parsed: what takes milliseconds once and not once per request."""

    policies: cedarpy.PolicySet
    schema: cedarpy.Schema
    rules: Mapping[str, Rule] = field(repr=False)  # by Cedar's positional id, `policy0` and on


def parse_rules(file: str, text: str) -> tuple[Rule, ...]:
    """The policies of one file, in order. Raises `CedarError` when the text is not Cedar."""
    _refuse_excess(text)
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise CedarError(str(error)) from error
    except RecursionError as error:  # a chain of some hundred links, short of the bound on tokens
        raise CedarError("a chain of conditions too long to be read; write a set instead") from error
    found = sorted(
        [(_position(key), False, body) for key, body in document["staticPolicies"].items()]
        + [(_position(key), True, body) for key, body in document["templates"].items()],
        key=lambda entry: entry[0],
    )
    return tuple(
        Rule(
            file=file,
            number=number,
            policy_id=body.get("annotations", {}).get("id") or None,
            effect=body["effect"],
            via=body.get("annotations", {}).get("via") or None,
            notes=tuple(
                f"{name}: {value}" if value else name
                for name, value in sorted(body.get("annotations", {}).items())
                if name not in {"id", "via"}
            ),
            is_template=is_template,
        )
        for number, is_template, body in found
    )


def prepare(schema: str, policies: Sequence[tuple[str, str]]) -> PreparedSet:
    """Parse a set. Raises `CedarError` when any part of it does not parse, and for templates.

    Each file is parsed by itself first, so that no file can end in the middle of a policy and have
    the next one finish it. A template stands for nothing here until it is linked, and nothing links
    one: a `forbid` written as a template would be silently absent.
    """
    rules = [rule for file, text in policies for rule in parse_rules(file, text)]
    if any(rule.is_template for rule in rules):
        raise CedarError("templates (?principal, ?resource) are not used here")
    _refuse_excess(schema)
    joined = "\n".join(text for _, text in policies)
    try:
        prepared = PreparedSet(
            policies=cedarpy.PolicySet.from_str(joined),
            schema=cedarpy.Schema.from_str(schema),
            rules={f"policy{number}": rule for number, rule in enumerate(rules)},
        )
    except ValueError as error:
        raise CedarError(str(error)) from error
    if len(prepared.policies) != len(rules):
        raise CedarError("the set has another number of policies than its files together")
    return prepared


def permits_alone(prepared: PreparedSet, policies: Sequence[tuple[str, str]]) -> PreparedSet:
    """The permits of a prepared set, for what the answer would be if nothing forbade it.

    `policies` are the texts that the set was prepared from. Never used to serve a request.
    """
    written = [rule for _, text in policies for rule in source.rule_texts(text)]
    kept = [
        (rule, one.text)
        for rule, one in zip(prepared.rules.values(), written, strict=True)
        if rule.effect == PERMIT
    ]
    return PreparedSet(
        policies=cedarpy.PolicySet.from_str("\n".join(text for _, text in kept)),
        schema=prepared.schema,
        rules={f"policy{number}": rule for number, (rule, _) in enumerate(kept)},
    )


def ask(prepared: PreparedSet, requests: Sequence[dict[str, Any]], entities: str) -> list[CedarAnswer]:
    """Decide every request over the same entities, which are checked against the schema on the way."""
    try:
        results = cedarpy.is_authorized_batch(list(requests), prepared.policies, entities, prepared.schema)
    except ValueError:
        return [FAILED] * len(requests)
    return [_answer(prepared, result) for result in results]


def find_schema_error(schema: str) -> str | None:
    """What is wrong with a schema's text, in Cedar's words; None when nothing is."""
    try:
        _refuse_excess(schema)
        cedarpy.Schema.from_str(schema)
    except (CedarError, ValueError) as error:
        return str(error)
    return None


def find_policy_error(text: str) -> str | None:
    """What is wrong with the syntax of a policy text, in Cedar's words; None when nothing is."""
    try:
        _refuse_excess(text)
        cedarpy.PolicySet.from_str(text)
    except (CedarError, ValueError) as error:
        return str(error)
    return None


def find_entity_error(schema: str, entities: str) -> str | None:
    """Why these entities do not fit the schema, in Cedar's words; None when they do."""
    try:
        cedarpy.Entities.from_json_str(entities, schema)
    except ValueError as error:
        return str(error)
    return None


def type_errors(text: str, schema: str) -> list[tuple[int, str]]:
    """What strict validation of one file finds: (number of the policy, Cedar's words without the number)."""
    result = cedarpy.validate_policies(text, schema)
    return [
        (_position(found.policy_id), _OF_A_POLICY.sub("", found.error, count=1)) for found in result.errors
    ]


def _refuse_excess(text: str) -> None:
    excess = source.find_excess(text)
    if excess is not None:
        raise CedarError(excess)


def _answer(prepared: PreparedSet, result: cedarpy.AuthzResult) -> CedarAnswer:
    """Take one result over; `NoDecision` has errors, and would not be an allow without them either."""
    diagnostics = result.diagnostics
    if diagnostics.errors or result.decision is cedarpy.Decision.NoDecision:
        failed = {found[1]: text for text in diagnostics.errors if (found := _FAILED_POLICY.match(text))}
        errors = [
            (prepared.rules[position], text.partition(": ")[2])
            for position, text in failed.items()
            if position in prepared.rules
        ]
        return CedarAnswer(
            is_allowed=False, has_failed=True, rules=_rules(prepared, list(failed)), errors=tuple(errors)
        )
    return CedarAnswer(
        is_allowed=result.decision is cedarpy.Decision.Allow,
        has_failed=False,
        rules=_rules(prepared, diagnostics.reasons),
    )


def _rules(prepared: PreparedSet, positions: Sequence[str]) -> tuple[Rule, ...]:
    """The rules at these positions, in the order of the set, so that a record reads the same each time."""
    known = [position for position in set(positions) if position in prepared.rules]
    return tuple(prepared.rules[position] for position in sorted(known, key=_position))


def _position(policy_id: str) -> int:
    """Where a policy stands, from the id that Cedar gave it; 0 where Cedar names none."""
    digits = policy_id.removeprefix("policy")
    return int(digits) if digits.isdigit() else 0
