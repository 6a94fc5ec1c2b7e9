"""Reads tenant documents: TOML files that define who owns which models and who has which grants.

One file describes one tenant and is named after it; `policies/tenants/example.toml` shows the format. A
document is accepted as a whole or not at all: unknown keys, bad names and contradictions are problems with
file and line. All problems of a folder are reported at once.

Non-goals: comparing documents with the facts in force (`plan.py`), and keys, which no file may hold.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from msgspec.structs import asdict, replace

from gateway.directory.documents.tables import DocumentTables
from gateway.model.access import parse_allowable
from gateway.model.errors import Misconfigured
from gateway.model.facts import FOLDER_SOURCE, MAX_DEGRADED_SECONDS, Grant
from gateway.model.image_hosts import MAX_IMAGE_HOSTS, parse_image_host
from gateway.model.names import parse_tenant_id
from gateway.model.standing import TenantModels
from gateway.model.tenant_tables import GRANT_KEYS, MODELS_KEYS, grant_tables, read_grant, read_models
from gateway.model.toml_tables import DocumentProblems
from gateway.model.trusted_files import refuse, verify_trusted_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.model.names import ModelId, Pattern, TenantId
    from gateway.model.trusted_files import Distrusted

GRANT_ID_DIGITS = 12  # 48 bits: ids need to differ only among the thousands of grants of one tenant
_TENANT_KEYS = ("id", "name", "suspended", "degraded_seconds", "image_hosts", "allows")
_PATTERN_KEYS = ("own", "public", "private", "published")


class TenantDocument(TenantModels, frozen=True, kw_only=True):
    """The content of one file about one tenant. `where` is the file, for conflicts found later."""

    where: str
    tenant_id: TenantId
    name: str
    is_suspended: bool
    degraded_seconds: float = 0.0
    image_hosts: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()

    @property
    def source(self) -> str:
        """The source of facts from this document."""
        return f"{FOLDER_SOURCE}{self.tenant_id}"


def load_tenant_documents(
    folder: Path, *, on_distrust: Callable[[Distrusted], None] = refuse
) -> tuple[TenantDocument, ...]:
    """Return every document of a folder, by tenant id. Raises `DocumentProblems` if any has a problem.

    A missing folder is a problem too: treated as an empty one, a mistyped path would remove every fact that
    documents ever defined. `on_distrust` is called for files that other users could have written.
    """
    verify_trusted_folder(folder, expected="one that holds tenant documents", on_distrust=on_distrust)
    problems: list[Misconfigured] = []
    read: list[tuple[TenantDocument, DocumentTables]] = []
    for path in sorted(folder.glob("*.toml")):
        if path.name.startswith("."):
            continue
        tables = DocumentTables(path, on_distrust=on_distrust)
        document = _document(path, tables) if tables.content else None
        problems += tables.problems
        if document is not None:
            read.append((document, tables))
    problems += [*_pattern_contradictions(read), *_alias_contradictions(read)]
    if problems:
        raise DocumentProblems(problems)
    return tuple(document for document, _ in read)


def _document(path: Path, tables: DocumentTables) -> TenantDocument | None:
    """Parse one document; None, with a problem recorded, if its tenant is unknown."""
    content = tables.content
    tables.refuse_unknown(content, "", ("tenant", "models", "grants"))
    tenant, models = tables.table(content, "", "tenant"), tables.table(content, "", "models")
    tables.refuse_unknown(tenant, "tenant", _TENANT_KEYS)
    tables.refuse_unknown(models, "models", MODELS_KEYS)
    said = read_models(tables, models, "models")
    written_id = tables.text(tenant, "tenant", "id", "")
    grants = _grants(tables, f"{FOLDER_SOURCE}{written_id}")
    name = tables.text(tenant, "tenant", "name", written_id)
    is_suspended = tables.flag(tenant, "tenant", "suspended")
    degraded_seconds = tables.seconds(tenant, "tenant", "degraded_seconds", MAX_DEGRADED_SECONDS)
    image_hosts = tables.names(tenant, "tenant", "image_hosts", parse_image_host)
    if len(image_hosts) > MAX_IMAGE_HOSTS:
        tables.complain(
            f"{len(image_hosts)} hosts in image_hosts; expected at most {MAX_IMAGE_HOSTS}",
            "tenant",
            "image_hosts",
        )
    allows = tables.names(tenant, "tenant", "allows", parse_allowable)
    if not isinstance(content.get("tenant", {}), dict) or not isinstance(tenant.get("id", ""), str):
        return None  # its problem is already recorded
    if (tenant_id := tables.name(written_id, parse_tenant_id, "tenant", "id").get(written_id)) is None:
        return None
    if tenant_id != path.stem:
        why = f"id is {tenant_id!r} in a file named {path.name!r}; expected both alike"
        tables.complain(why, "tenant", "id")
    return TenantDocument(
        where=tables.where("tenant"),
        tenant_id=tenant_id,
        name=name,
        is_suspended=is_suspended,
        degraded_seconds=degraded_seconds,
        image_hosts=image_hosts,
        allows=tuple(sorted(allows)),
        grants=grants,
        **asdict(said),
    )


def _grants(tables: DocumentTables, source: str) -> tuple[Grant, ...]:
    """Parse the grants, each once."""
    grants: dict[str, Grant] = {}
    for nth, table in enumerate(grant_tables(tables, tables.content, "")):
        tables.refuse_unknown(table, "grants", GRANT_KEYS, nth)
        grant = replace(read_grant(tables, table, "grants", nth), source=source)
        grant = replace(grant, grant_id=_grant_id(grant))
        if grant.grant_id in grants and not tables.problems:
            tables.complain("the same grant again; expected it once", "grants", nth=nth)
        grants[grant.grant_id] = grant
    return tuple(grants.values())


def _grant_id(grant: Grant) -> str:
    """An id that is derived from the content, so that reading a document again changes nothing."""
    content: list[object] = [
        sorted(names) for names in (grant.actions, grant.models, grant.groups, grant.packages)
    ]
    if grant.has_times:  # ids of grants without times are those of releases that knew no others
        content.append([grant.not_before, grant.expires_at])
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return f"doc_{digest[:GRANT_ID_DIGITS]}"


def _pattern_contradictions(read: list[tuple[TenantDocument, DocumentTables]]) -> Iterator[Misconfigured]:
    """Yield a problem for each pattern in two documents, which would overwrite each other's rule."""
    first: dict[Pattern, TenantDocument] = {}
    for document, tables in read:
        for pattern, key in document.said_of_patterns:
            other = first.setdefault(pattern, document)
            if other is not document:
                table, name = ("models.groups", key) if key not in _PATTERN_KEYS else ("models", key)
                found = "has another owner" if pattern in {*other.own} & {*document.own} else "is spoken of"
                why = f"{pattern!r} {found} in {other.where}; expected one document per pattern"
                yield Misconfigured(tables.where(table, name, pattern), why)


def _alias_contradictions(read: list[tuple[TenantDocument, DocumentTables]]) -> Iterator[Misconfigured]:
    """Yield a problem for each alias in two documents, and for each alias of an alias."""
    owners: dict[ModelId, TenantDocument] = {}
    for document, _ in read:
        for alias in document.aliases:
            owners.setdefault(alias, document)
    for document, tables in read:
        for alias, canonical in document.aliases.items():
            where = tables.where("models.aliases", alias)
            if owners[alias] is not document:
                why = f"alias {alias!r} stands in {owners[alias].where} too; expected it once"
                yield Misconfigured(where, why)
            if canonical in owners:
                why = f"{alias!r} stands for {canonical!r}, an alias itself; expected the model id"
                yield Misconfigured(where, why)
