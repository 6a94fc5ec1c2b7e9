"""Adapter to the Cedar engine: parse and validate policy sets, and decide batches of requests.

The only importer of cedarpy. Cedar's answers are taken literally and fail closed (I1): Cedar skips a policy
that errors, so a `forbid` that errors would open what it is meant to close. An answer with any error is
therefore marked as failed, and so is every answer of a batch whose entities do not fit the schema.

Not here: which entities exist (`entities.py`) and what an answer means (`rulebook.py`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import cedarpy
import msgspec

from gateway.decision import source
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ids from a request may occur later in the message, so only its fixed beginning is matched.
_FAILED_POLICY = re.compile(r"error while evaluating policy `(policy[0-9]+)`")
_OF_A_POLICY = re.compile(r"for policy `policy[0-9]+`, ")  # the beginning of the validator's messages


PERMIT, FORBID = "permit", "forbid"


class CedarError(Exception):
    """A text that Cedar refuses. It does not leave this package; the message is Cedar's own."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One policy of a set: its file, its number in that file, and its annotations."""

    file: str
    number: int  # from 0, within its file
    policy_id: str | None  # the @id annotation
    effect: str  # permit, forbid
    via: str | None = None  # the @via annotation: the kind of right that an allow is recorded under
    notes: tuple[str, ...] = ()  # all other annotations, as `name: value`, for people
    is_template: bool = False

    @property
    def name(self) -> str:
        """The name in audit records: its @id, or file and number when it has none."""
        return self.policy_id or f"{self.file}#{self.number}"


class CedarAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Cedar's answer to one request. `rules` are the determining ones, or those that failed.

    `errors` says why each rule failed. It may quote text from the request: for operators only.
    """

    is_allowed: bool
    has_failed: bool
    rules: tuple[Rule, ...] = ()
    errors: tuple[tuple[Rule, str], ...] = ()


FAILED = CedarAnswer(is_allowed=False, has_failed=True)


class PreparedSet(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed policy set: parsing takes milliseconds, so it is done once and not per request."""

    policies: cedarpy.PolicySet
    schema: cedarpy.Schema
    rules: Mapping[str, Rule]  # by Cedar's positional id: `policy0`, `policy1`, ...

    def __repr__(self) -> str:
        return shown(self, hidden=("rules",))


def parse_rules(file: str, text: str) -> tuple[Rule, ...]:
    """The policies of one file, in order. Raises `CedarError` when the text is not Cedar."""
    _refuse_excess(text)
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise CedarError(str(error)) from error
    except RecursionError as error:  # a chain of some hundred links, below `MAX_STATEMENT_TOKENS`
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

    Each file is first parsed by itself, so that no policy can begin in one file and end in the next.
    Templates are refused: a template has no effect until it is linked, and nothing here links one, so a
    `forbid` written as a template would be silently absent.
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
    """The permits of a prepared set, to find out what the answer would be if nothing forbade it.

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
    """Decide every request over the same entities, which Cedar checks against the schema."""
    try:
        results = cedarpy.is_authorized_batch(list(requests), prepared.policies, entities, prepared.schema)
    except ValueError:
        return [FAILED] * len(requests)
    return [_answer(prepared, result) for result in results]


def find_schema_error(schema: str) -> str | None:
    """Cedar's error message about a schema's text; None when the schema parses."""
    try:
        _refuse_excess(schema)
        cedarpy.Schema.from_str(schema)
    except (CedarError, ValueError) as error:
        return str(error)
    return None


def find_policy_error(text: str) -> str | None:
    """Cedar's error message about the syntax of a policy text; None when it parses."""
    try:
        _refuse_excess(text)
        cedarpy.PolicySet.from_str(text)
    except (CedarError, ValueError) as error:
        return str(error)
    return None


def find_entity_error(schema: str, entities: str) -> str | None:
    """Cedar's message why these entities do not fit the schema; None when they do."""
    try:
        cedarpy.Entities.from_json_str(entities, schema)
    except ValueError as error:
        return str(error)
    return None


def type_errors(text: str, schema: str) -> list[tuple[int, str]]:
    """The errors of strict validation of one file: (policy number, Cedar's message without the number)."""
    result = cedarpy.validate_policies(text, schema)
    return [
        (_position(found.policy_id), _OF_A_POLICY.sub("", found.error, count=1)) for found in result.errors
    ]


def _refuse_excess(text: str) -> None:
    excess = source.find_excess(text)
    if excess is not None:
        raise CedarError(excess)


def _answer(prepared: PreparedSet, result: cedarpy.AuthzResult) -> CedarAnswer:
    """Convert one result. `NoDecision` comes with errors, and would be no allow without them either."""
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
    """The rules with these ids, in the order of the set, so that records are reproducible."""
    known = [position for position in set(positions) if position in prepared.rules]
    return tuple(prepared.rules[position] for position in sorted(known, key=_position))


def _position(policy_id: str) -> int:
    """The number of a policy, from the id that Cedar gave it; 0 where Cedar names none."""
    digits = policy_id.removeprefix("policy")
    return int(digits) if digits.isdigit() else 0
