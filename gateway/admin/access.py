"""Operations that answer who may do what: explain one access, and who can read a model or a blob."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.admin.call import Reply, impossible
from gateway.admin.documents import Explained, Question, ReaderOf, Readers, ReadersQuery
from gateway.admin.operation import Operation
from gateway.model.access import Action
from gateway.model.errors import BadNameError, Reason, Refusal, UnknownName
from gateway.model.facts import Visibility
from gateway.model.names import ancestors, parse_md5, parse_model_id
from gateway.model.periods import PeriodState
from gateway.model.standing import standing_of
from gateway.operations.explain.answer import parse_question, work_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.call import Call
    from gateway.model.facts import Standing
    from gateway.model.names import Md5, ModelId

MAX_MODELS = 100  # that link one blob
MAX_READERS = 10_000


async def explain(call: Call) -> Reply:
    """May this key do this, and why: on the facts and the disk of this moment."""
    asked = call.body
    try:
        question = parse_question(
            key_id=asked.key_id,
            model=asked.model,
            package=asked.package,
            file=asked.file,
            action=asked.action,
            address=asked.address,
        )
    except BadNameError as error:
        raise impossible("", error) from error
    try:
        answer = await work_out(call.session, question, call.catalogue)
    except UnknownName as error:
        raise impossible("/key_id", error) from error
    document = Explained(
        served=answer.is_yes,
        explanation=msgspec.to_builtins(answer.as_json()),
        rows=[[*row] for row in answer.as_rows()],
    )
    return Reply(document=document)


async def readers(call: Call) -> Reply:
    """Who can read it now: its owner, everybody, or whom a grant names. Rules of your own are not asked."""
    query = call.query
    if (query.model is None) == (query.blob is None):
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail="Name a model or a blob, and not both.")
    is_complete = True
    try:
        models = [await _canonical(call, parse_model_id(query.model))] if query.model is not None else []
        if query.blob is not None:
            models = await _linking(call, parse_md5(query.blob))
            is_complete = len(models) <= MAX_MODELS
            models = models[:MAX_MODELS]
    except BadNameError as error:
        raise Refusal(Reason.IMPOSSIBLE_VALUE, client_detail=str(error)) from error
    standings = {model: await _standing(call, model) for model in models}
    found = [one for model in models for one in await _by_standing(call, model, standings[model])]
    by_name = _named_by(standings)
    records = {one.tenant_id: one.record_id for one in await call.listing.list_tenants()}
    async for each in call.listing.each_grants():
        if each.tenant_id not in records or records[each.tenant_id] != each.tenant_record:
            continue  # of a tenant that is no more, whoever has its name now
        for grant in each.grants:
            if "read" in grant.actions and grant.state_at(call.now) is PeriodState.IN_FORCE:
                names = (*grant.models, *(f"group {one}" for one in grant.groups))
                given = dict.fromkeys(model for name in names for model in by_name.get(name, ()))
                right = f"grant {each.tenant_id}:{grant.grant_id}"
                found += [ReaderOf(model=model, tenant=each.tenant_id, right=right) for model in given]
        if len(found) > MAX_READERS:
            is_complete = False
            break
    return Reply(document=Readers(readers=found[:MAX_READERS], complete=is_complete))


def _named_by(standings: Mapping[ModelId, Standing]) -> dict[str, list[ModelId]]:
    """The models, by each pattern and group that a grant may name them by."""
    found: dict[str, list[ModelId]] = {}
    for model, standing in standings.items():
        for name in (*ancestors(model), *(f"group {one}" for one in standing.groups)):
            found.setdefault(name, []).append(model)
    return found


async def _by_standing(call: Call, model: ModelId, standing: Standing) -> list[ReaderOf]:
    owner = None if standing.owner is None else await call.listing.find_tenant(standing.owner)
    found = []
    if owner is not None and owner.record_id == standing.owner_record:
        found.append(ReaderOf(model=model, tenant=owner.tenant_id, right="owner"))
    if standing.visibility is Visibility.PUBLIC:
        found.append(ReaderOf(model=model, tenant=None, right="public"))
    return found


async def _canonical(call: Call, asked: ModelId) -> ModelId:
    alias = await call.listing.find_alias(asked)
    return asked if alias is None else alias.canonical


async def _standing(call: Call, model: ModelId) -> Standing:
    return standing_of(await call.listing.find_rules(ancestors(model)), call.now)


async def _linking(call: Call, md5: Md5) -> list[ModelId]:
    """The models whose packages link a blob now, as far as the last scan knows of them."""
    found: dict[ModelId, None] = {}
    for package in call.catalogue.listed():
        if package.may_list(md5) and package.model not in found:
            handle = await call.catalogue.find_blob(package.model, package.package, md5)
            if handle is not None:
                found[package.model] = None
        if len(found) > MAX_MODELS:
            break
    return list(found)


OPERATIONS = (
    Operation(
        action=Action.ACCESS_EXPLAIN,
        method="POST",
        path="/explain",
        summary="May this key do this, and why?",
        handle=explain,
        body=Question,
        reply=Explained,
    ),
    Operation(
        action=Action.ACCESS_READERS,
        method="GET",
        path="/readers",
        summary="Who can read a model, or a blob, along which right?",
        handle=readers,
        query=ReadersQuery,
        reply=Readers,
        more_refusals=(Reason.IMPOSSIBLE_VALUE,),
    ),
)
