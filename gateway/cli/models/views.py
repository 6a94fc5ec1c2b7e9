"""Print models: the rules about them beside what is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gateway.assembly.components import build_catalogue
from gateway.cli.perform import in_session
from gateway.model.names import ancestors
from gateway.model.standing import standing_of
from gateway.operations.known_names import find_nearest
from gateway.resource.naming import model_directory
from gateway.terminal.console import print_json, print_table, say

if TYPE_CHECKING:
    from gateway.model.facts import Grant
    from gateway.model.names import ModelId
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue


def list_models(*, as_json: bool) -> None:
    """All rules and aliases, and all models on disk with owner and visibility."""
    document = in_session(_survey)
    if as_json:
        print_json(document)
        return
    rules = [
        (one["pattern"], one["owner"], one["visibility"], " ".join(one["groups"]), one["source"])
        for one in document["rules"]
    ]
    columns = ("pattern", "owner", "visibility", "groups", "source")
    print_table("Rules", columns, rules, "No model belongs to anybody: cachegate models own TENANT PATTERN")
    if document["aliases"]:
        aliases = [(one["alias"], one["model"], one["source"]) for one in document["aliases"]]
        print_table("Aliases", ("alias", "model", "source"), aliases, "")
    on_disk = [
        (one["model"], one["owner"], one["visibility"], " ".join(one["packages"]))
        for one in document["on_disk"]
    ]
    empty = f"No model on disk in {document['cache_root']}."
    print_table("On disk", ("model", "owner", "visibility", "packages"), on_disk, empty)
    if document["problem"]:
        say(f"{document['cache_root']}: {document['problem']}", style="red")
    for skipped in document["skipped"]:
        say(f"not served: {skipped['where']}: {skipped['why']}", style="yellow")


def show_model(model: ModelId, *, as_json: bool) -> None:
    """One model, by any of its names."""

    async def work(session: OperatorSession) -> dict[str, Any]:
        return await _one(session, model)

    document = in_session(work)
    if as_json:
        print_json(document)
    else:
        _print_one(document)
    if not document["known"]:
        say(_unknown_model(document), style="red")
        raise typer.Exit(1)


def _unknown_model(document: dict[str, Any]) -> str:
    nearest = document["nearest"]
    hint = "" if nearest is None else f"; the nearest name is {nearest}"
    return f"there is no model {document['asked']}: nothing names it, and it is not on disk{hint}"


def _print_one(document: dict[str, Any]) -> None:
    readers = [f"{one['tenant']} ({one['how']})" for one in document["readers"]]
    rows: list[tuple[str, object]] = [
        ("model", document["model"]),
        ("asked for as", document["asked"]),
        ("owner", document["owner"]),
        ("visibility", document["visibility"]),
        ("groups", " ".join(document["groups"]) or None),
        ("readers", "\n".join(readers) or "nobody"),
        ("directory", document["directory"]),
    ]
    print_table(f"Model {document['model']}", ("", ""), rows, "")
    files = [
        (package["package"], file["file"], file["size"], file["md5"])
        for package in document["packages"]
        for file in package["files"]
    ]
    print_table("Files", ("package", "file", "bytes", "md5"), files, "Nothing of it is on disk.")


async def _catalogue(session: OperatorSession) -> DiskCatalogue:
    catalogue = build_catalogue(session.settings, session.clock, is_command=True)
    await catalogue.refresh(await session.directory.known_models())
    return catalogue


async def _survey(session: OperatorSession) -> dict[str, Any]:
    catalogue = await _catalogue(session)
    rules = {rule.pattern: rule for rule in await session.listing.list_rules()}
    survey = catalogue.state().survey
    on_disk = []
    for model in survey.models:
        standing = standing_of([rules[one] for one in ancestors(model) if one in rules])
        on_disk.append(
            {
                "model": model,
                "owner": standing.owner,
                "visibility": standing.visibility.value,
                "packages": list(await catalogue.packages(model)),
            }
        )
    return {
        "rules": [
            {
                "pattern": rule.pattern,
                "owner": rule.owner,
                "visibility": rule.visibility.value if rule.visibility else None,
                "groups": list(rule.groups),
                "source": rule.source,
            }
            for rule in rules.values()
        ],
        "aliases": [
            {"alias": one.alias, "model": one.canonical, "source": one.source}
            for one in await session.listing.list_aliases()
        ],
        "cache_root": str(session.settings.cache_root),
        "on_disk": on_disk,
        "problem": survey.problem,
        "skipped": [{"where": one.where, "why": one.why} for one in survey.skipped],
    }


async def _one(session: OperatorSession, asked: ModelId) -> dict[str, Any]:
    alias = await session.listing.find_alias(asked)
    model = alias.canonical if alias else asked
    rules = {rule.pattern: rule for rule in await session.listing.list_rules()}
    standing = standing_of([rules[one] for one in ancestors(model) if one in rules])
    catalogue = await _catalogue(session)
    listings = [await catalogue.listing(model, package) for package in await catalogue.packages(model)]
    readers = [{"tenant": str(standing.owner), "how": "owner"}] if standing.owner else []
    if standing.visibility.value == "public":
        readers.append({"tenant": "every tenant", "how": "public"})
    for each in await session.listing.list_all_grants():
        readers += [
            {"tenant": each.tenant_id, "how": _how(grant)}
            for grant in each.grants
            if set(grant.models) & set(ancestors(model)) or set(grant.groups) & standing.groups
        ]
    named = await session.listing.known_models()
    is_known = alias is not None or model in named or bool(listings)
    others = named.union(catalogue.models(), (one.alias for one in await session.listing.list_aliases()))
    return {
        "asked": asked,
        "model": model,
        "known": is_known,
        "nearest": None if is_known else find_nearest(asked, others),
        "owner": standing.owner,
        "visibility": standing.visibility.value,
        "groups": sorted(standing.groups),
        "readers": readers,
        "directory": model_directory(model),
        "packages": [
            {
                "package": listing.package,
                "files": [{"file": one.handle, "size": one.size, "md5": one.md5} for one in listing.files],
            }
            for listing in listings
            if listing is not None
        ],
    }


def _how(grant: Grant) -> str:
    narrowed = f" of packages {' '.join(grant.packages)}" if grant.packages else ""
    return f"grant {grant.grant_id}: {' '.join(sorted(grant.actions))}{narrowed}"
