"""Explain access completely: what the key, the rules and the disk each say.

A request needs all three to allow it, and checks them in this order. An operator needs all three at once, so
a revoked key is still checked against the rules, as if it were not: other problems beside the revocation are
worth knowing too.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.assembly.components import build_catalogue
from gateway.decision.explain import column, explain
from gateway.decision.remedies import Help, needed_lines
from gateway.decision.rulebook import Rulebook
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.authenticate import Authenticator, principal_of
from gateway.model.access import ALLOWABLE, Access, Action, Resource, ResourceKind
from gateway.model.errors import BadNameError, Conflict, Reason, Refusal, UnknownName
from gateway.model.facts import Key
from gateway.model.issuers import key_of
from gateway.model.names import (
    BINDING_PREFIX,
    BindingId,
    KeyId,
    ancestors,
    parse_binding_id,
    parse_file_handle,
    parse_key_id,
    parse_model_id,
    parse_package_id,
)
from gateway.model.rulings import SOURCE_PLATFORM
from gateway.model_metadata.attestations import Attestations
from gateway.operations.explain.disk import DiskState, look_at_disk
from gateway.operations.explain.remedies import disk_steps, key_steps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.decision.explain import Explanation
    from gateway.decision.remedies import Step
    from gateway.model.access import Principal
    from gateway.model.facts import Facts, ModelRule, Tenant
    from gateway.model.names import FileHandle, ModelId, PackageId
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue


EXPLAINABLE = (Action.DISCOVER, Action.READ, Action.INFER, *ALLOWABLE)


class AccessQuestion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Key, resource and action."""

    key_id: KeyId
    model: ModelId | None  # None: what the key's tenant may do in workflows
    package: PackageId | None
    file: FileHandle | None
    action: Action
    address: str | None = None  # the client's, to check the key's networks with

    @property
    def resource(self) -> Resource:
        """The resource that a path would name."""
        if self.model is None:
            return Resource(kind=ResourceKind.TENANT)
        kind = ResourceKind.MODEL
        if self.package is not None:
            kind = ResourceKind.PACKAGE if self.file is None else ResourceKind.FILE
        return Resource(kind=kind, model=self.model, package=self.package, file=self.file)


class AccessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What key, rules and disk each say. `key_problem` is why the key itself is refused now, if it is.

    `steps` is everything that has to change for the resource to be served, in whichever of the three.
    """

    key_problem: Reason | None
    networks: tuple[str, ...]
    are_networks_judged: bool
    rules: Explanation
    disk: DiskState
    steps: tuple[Step, ...]

    @property
    def is_yes(self) -> bool:
        """Whether a request would get the resource."""
        return self.key_problem is None and self.rules.verdict == "allow" and self.disk.is_there

    def as_json(self) -> dict[str, Any]:
        """For scripts: `verdict` is of key and rules together, `served` needs the disk as well."""
        document = self.rules.as_json()
        if self.key_problem is not None:
            document |= {
                "verdict": "deny",
                "reason": self.key_problem.value,
                "cause": "key",
                "meaning": self.key_problem.explanation,
            }
        key = {
            "valid": self.key_problem is None,
            "problem": self.key_problem.value if self.key_problem else None,
            "networks": list(self.networks),
        }
        disk = {
            "present": self.disk.is_there,
            "reason": self.disk.reason,
            "found": self.disk.found,
            "directory": self.disk.directory,
        }
        helps = {"needed": list(needed_lines(self.steps)), "remedies": msgspec.to_builtins(self.steps)}
        return {"served": self.is_yes, **document, **helps, "key": key, "disk": disk}

    def as_rows(self) -> list[tuple[str, str]]:
        """For people: the answer first, then each of the three, then what would help."""
        rows = [("served now", "yes" if self.is_yes else "no")]
        if self.key_problem is None:
            rows.append(("key", "valid now"))
        else:
            rows.append(("key", f"refused: {self.key_problem.value}: {self.key_problem.explanation}"))
            rows.append(("", "what follows is what the rules would say if it were not"))
        if self.networks and not self.are_networks_judged:
            rows.append(("", f"from these networks only (--address judges one): {' '.join(self.networks)}"))
        rows += self.rules.as_rows()
        state = "there" if self.disk.is_there else "NOT there"
        if self.disk.directory or not self.disk.is_there:
            rows += [("on disk", f"{state}: {self.disk.found}"), ("", self.disk.directory)]
        rows += column("needed", needed_lines(self.steps))
        commands = [remedy.command for step in self.steps for remedy in step if remedy.command]
        return [*rows, *column("commands", commands)]


def parse_question(
    *,
    key_id: str,
    model: str | None,
    package: str | None,
    file: str | None,
    action: str,
    address: str | None = None,
) -> AccessQuestion:
    """The parsed question. Raises `BadNameError`."""
    if action not in EXPLAINABLE:
        raise BadNameError(f"{action!r} is not an action: expected one of {', '.join(EXPLAINABLE)}")
    if (model is None) != (action in ALLOWABLE) or (model is None and package is not None):
        raise BadNameError("what workflows do is no action on a model: name a --model, or such an --action")
    if file is not None and package is None:
        raise BadNameError("a file is a file of a package: name the --package as well")
    return AccessQuestion(
        key_id=parse_caller_id(key_id),
        model=None if model is None else parse_model_id(model),
        package=None if package is None else parse_package_id(package),
        file=None if file is None else parse_file_handle(file),
        action=Action(action),
        address=None if address is None else _parse_address(address),
    )


def parse_caller_id(text: str) -> KeyId:
    """The id of a key; or of a binding, by which the tokens of its subject call. Raises `BadNameError`."""
    return KeyId(parse_binding_id(text)) if text.startswith(BINDING_PREFIX) else parse_key_id(text)


def _parse_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise BadNameError(f"{text!r} is not an IP address") from error


async def work_out(
    session: OperatorSession, question: AccessQuestion, scanned: DiskCatalogue | None = None
) -> AccessAnswer:
    """Explain, on the facts and the disk of this moment. Raises `Conflict` for an unknown key.

    `scanned` is a catalogue that is kept up to date; without one the disk is scanned now.
    """
    answers = [
        await _work_out_for(session, question, scanned, caller)
        for caller in await _callers(session, question.key_id)
    ]
    return next((one for one in answers if one.is_yes), answers[0])


class _Caller(msgspec.Struct, frozen=True):
    """A key, or a binding with what one rule gives it; `problem`: why that gives nothing now."""

    key: Key
    problem: Reason | None = None


async def _callers(session: OperatorSession, key_id: KeyId) -> list[_Caller]:
    """Who has this id: one caller for a key, one for each rule in force by which a binding came.

    A token of a binding's subject may what the one rule gives that it matches; which that is, only the token
    tells. Where any of the rules lets it, the answer is yes.
    """
    if not key_id.startswith(BINDING_PREFIX):
        key = await session.listing.find_key(key_id)
        if key is None:
            raise UnknownName("key", key_id, "`cachegate keys list` shows them")
        return [_Caller(key)]
    binding = await session.listing.find_binding_by_id(BindingId(key_id))
    if binding is None:
        raise UnknownName("binding", key_id, "`cachegate bindings list` shows them")
    issuer = await session.listing.find_issuer(binding.url)
    in_force = () if issuer is None else issuer.rules
    rules = [one for one in in_force if one.name in binding.rules and one.tenant == binding.tenant]
    revoked = None if binding.revoked_at is None else Reason.REVOKED_BINDING
    if rules:
        return [_Caller(key_of(binding, rule), revoked) for rule in rules]
    nothing = Key(
        key_id=key_id,
        tenant=binding.tenant,
        tenant_record=binding.tenant_record,
        name="",
        scopes=frozenset(),
        networks=(),
        created_at=binding.created_at,
        pepper_id="-",
    )
    return [_Caller(nothing, revoked or Reason.UNMAPPED_TOKEN)]


async def _work_out_for(
    session: OperatorSession, question: AccessQuestion, scanned: DiskCatalogue | None, caller: _Caller
) -> AccessAnswer:
    key = caller.key
    tenant = await session.listing.find_tenant(key.tenant) if key.tenant is not None else None
    access = Access(principal=principal_of(key, tenant), action=question.action, resource=question.resource)
    [facts] = await session.directory.gather(access.principal, [question.model])
    catalogue = scanned or build_catalogue(session.settings, session.clock, is_command=True)

    async def refresh() -> None:
        if scanned is None:
            await catalogue.refresh(await session.directory.known_models())

    rules = explain(access, facts, Rulebook(), await _covering_rules(session, facts))
    if question.model is None:
        disk = DiskState(is_there=True, found="nothing of it is on disk")
    else:
        disk = await look_at_disk(catalogue, facts.model, question.package, question.file)
        disk = await _judged(session, access.principal, catalogue, disk, refresh)
    problem = caller.problem or _key_problem(session, key, tenant, question.address)
    return AccessAnswer(
        key_problem=problem,
        networks=key.networks,
        are_networks_judged=question.address is not None,
        rules=rules,
        disk=disk,
        steps=(
            *_key_steps(problem, key, tenant, question, rules),
            *rules.steps,
            *(
                ()
                if question.model is None
                else disk_steps(disk, question.model, await _names_on_disk(session, catalogue, disk, refresh))
            ),
        ),
    )


def _key_problem(
    session: OperatorSession, key: Key, tenant: Tenant | None, address: str | None
) -> Reason | None:
    """Why the key would be refused now. Without an address, networks are not checked."""
    if key.source == SOURCE_PLATFORM and session.settings.authority != "platform":
        return Reason.UNKNOWN_KEY  # a platform's key, and the platform is not asked
    judged = key if address is not None else replace(key, networks=())
    try:
        now = session.clock.now()
        Authenticator(session.directory, session.peppers).judge(judged, tenant, address or "", now)
    except Refusal as refusal:
        return refusal.reason
    return None


def _key_steps(
    problem: Reason | None, key: Key, tenant: Tenant | None, question: AccessQuestion, rules: Explanation
) -> tuple[Step, ...]:
    """What the key needs, unless the rules need another key anyway, which then is valid."""
    if problem is None:
        return ()
    needs_another = any(remedy.kind is Help.SCOPE for step in rules.steps for remedy in step)
    if needs_another and problem not in {Reason.SUSPENDED_TENANT, Reason.UNREADABLE_KEY, Reason.UNKNOWN_KEY}:
        return ()
    return key_steps(problem, key, tenant, question.address)


async def _judged(
    session: OperatorSession,
    principal: Principal,
    catalogue: DiskCatalogue,
    disk: DiskState,
    refresh: Callable[[], Awaitable[None]],
) -> DiskState:
    """The state of an existing file, after its blob's pin and attestations were checked."""
    if not disk.is_there or disk.md5 is None or disk.model is None:
        return disk
    pin = await session.listing.find_pin(disk.md5)
    if pin is not None and pin.quarantine is not None:
        return disk.refused(Reason.QUARANTINED, f"in quarantine ({pin.quarantine.cause})")
    if session.settings.shared_links != "attested":
        return disk
    await refresh()
    attestations = Attestations(
        directory=session.directory,
        source=PlainFacts(session.store),
        catalogue=catalogue,
        perform=session.record,
        clock=session.clock,
        actor=session.actor,
    )
    try:
        await attestations.verify(principal, disk.model, disk.md5)
    except Refusal as refusal:
        return disk.refused(refusal.reason, refusal.reason.explanation)
    return disk


async def _names_on_disk(
    session: OperatorSession,
    catalogue: DiskCatalogue,
    disk: DiskState,
    refresh: Callable[[], Awaitable[None]],
) -> frozenset[str]:
    """The models on disk and their aliases, to suggest one for a mistyped name."""
    if disk.reason is not Reason.ABSENT:
        return frozenset()
    await refresh()
    there = set(catalogue.models())
    aliases = {alias.alias for alias in await session.listing.list_aliases() if alias.canonical in there}
    return frozenset(there | aliases)


async def _covering_rules(session: OperatorSession, facts: Facts) -> list[ModelRule]:
    """The rules about the patterns that cover the model and the name it was asked for by."""
    names = dict.fromkeys(name for name in (facts.model, facts.requested) if name is not None)
    rules: list[ModelRule] = []
    for pattern in dict.fromkeys(pattern for name in names for pattern in ancestors(name)):
        with suppress(Conflict):  # it does not parse: the facts say so already, and that denies
            rule = await session.listing.find_rule(pattern)
            if rule is not None:
                rules.append(rule)
    return rules
