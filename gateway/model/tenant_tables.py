"""Reads what tenant documents and case files both say: of a tenant's models, and of what it was granted.

Both are read by these functions alone, so that a case means what the same words mean in a policy folder.
Problems are recorded with their lines in the tables that are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.model.access import GRANTABLE, Action
from gateway.model.errors import BadNameError
from gateway.model.facts import Grant
from gateway.model.names import parse_group_name, parse_model_id, parse_package_id, parse_pattern
from gateway.model.standing import Publication, TenantModels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model.names import GroupName, ModelId, Pattern
    from gateway.model.toml_tables import TomlTables

MODELS_KEYS = ("own", "public", "private", "aliases", "groups", "published")
GRANT_KEYS = ("models", "groups", "packages", "actions", "not_before", "expires")
_PUBLICATION_KEYS = ("models", "not_before", "expires")


def read_models(tables: TomlTables, table: Mapping[str, Any], at: str) -> TenantModels:
    """What the table named `at` says of a tenant's models."""
    own, public, private = (
        tables.names(table, at, key, parse_pattern) for key in ("own", "public", "private")
    )
    are_public = set(public)
    for pattern in private:
        if pattern in are_public:
            tables.complain(f"{pattern!r} is public too; expected one of both", at, "private", pattern)
    published = _publications(tables, table, at)
    said = [("public", are_public), ("private", set(private))]
    for nth, publication in enumerate(published):
        for pattern in publication.models:
            for key, patterns in said:
                if pattern in patterns:
                    why = f"{pattern!r} is {key} too; expected one of both"
                    tables.complain(why, f"{at}.published", "models", pattern, nth)
        said.append(("published above", set(publication.models)))
    return TenantModels(
        own=own,
        public=public,
        private=private,
        aliases=_aliases(tables, table, at),
        groups=_groups(tables, table, at),
        published=published,
    )


def grant_tables(tables: TomlTables, parent: Mapping[str, Any], at: str) -> list[Mapping[str, Any]]:
    """The tables of `[[grants]]` below the table named `at`; none after recording a problem."""
    written = parent.get("grants", [])
    if isinstance(written, list) and all(isinstance(table, dict) for table in written):
        return written
    header = f"{at}.grants" if at else "grants"
    tables.complain(f"grants is no list of tables; expected [[{header}]]", at, "grants")
    return []


def read_grant(tables: TomlTables, table: Mapping[str, Any], at: str, nth: int) -> Grant:
    """The nth grant of the tables named `at`. The caller gives it its id and its source."""
    models = tables.names(table, at, "models", parse_pattern, nth)
    groups = tables.names(table, at, "groups", parse_group_name, nth)
    packages = tables.names(table, at, "packages", parse_package_id, nth)
    actions = tables.names(table, at, "actions", _parse_action, nth)
    if table.get("actions", []) == []:
        tables.complain('no actions; expected some, such as actions = ["read"]', at, "actions", nth=nth)
    if table.get("models", []) == [] and table.get("groups", []) == []:
        tables.complain("a grant of nothing; expected models or groups", at, nth=nth)
    not_before, expires_at = _period(tables, table, at, nth)
    return Grant(
        grant_id="",
        actions=frozenset(actions),
        models=models,
        groups=groups,
        packages=packages,
        not_before=not_before,
        expires_at=expires_at,
    )


def _publications(tables: TomlTables, models: Mapping[str, Any], at: str) -> tuple[Publication, ...]:
    """Parse `[[models.published]]`: what is public from one time until another."""
    at = f"{at}.published"
    written = models.get("published", [])
    if not isinstance(written, list) or not all(isinstance(table, dict) for table in written):
        tables.complain(f"published is no list of tables; expected [[{at}]]", at)
        return ()
    found = []
    for nth, table in enumerate(written):
        tables.refuse_unknown(table, at, _PUBLICATION_KEYS, nth)
        patterns = tables.names(table, at, "models", parse_pattern, nth)
        if table.get("models", []) == []:
            tables.complain("no models; expected the patterns that are public then", at, "models", nth=nth)
        not_before, expires_at = _period(tables, table, at, nth)
        found.append(Publication(models=patterns, not_before=not_before, expires_at=expires_at))
    return tuple(found)


def _period(
    tables: TomlTables, table: Mapping[str, Any], at: str, nth: int
) -> tuple[float | None, float | None]:
    """Parse from when and until when. A period that is over is no problem: the document is older."""
    not_before, expires_at = (tables.moment(table, at, key, nth) for key in ("not_before", "expires"))
    if not_before is not None and expires_at is not None and expires_at <= not_before:
        why = "expires lies before not_before: it would never be in force; expected a later time"
        tables.complain(why, at, "expires", nth=nth)
    return not_before, expires_at


def _aliases(tables: TomlTables, models: Mapping[str, Any], at: str) -> dict[ModelId, ModelId]:
    """Parse the aliases and their model ids."""
    found: dict[ModelId, ModelId] = {}
    for written in tables.table(models, at, "aliases"):
        target = models["aliases"][written]
        if not isinstance(target, str):
            tables.complain(f"{target!r}; expected the model id it stands for", f"{at}.aliases", written)
            continue
        names = [
            *tables.name(written, parse_model_id, f"{at}.aliases", written).values(),
            *tables.name(target, parse_model_id, f"{at}.aliases", written).values(),
        ]
        if len(names) == 2:  # noqa: PLR2004 -- both parsed
            found[names[0]] = names[1]
    return found


def _groups(tables: TomlTables, models: Mapping[str, Any], at: str) -> dict[GroupName, tuple[Pattern, ...]]:
    """Parse the groups and their patterns."""
    table = tables.table(models, at, "groups")
    return {
        group: tables.names(table, f"{at}.groups", written, parse_pattern)
        for written in table
        for group in tables.name(written, parse_group_name, f"{at}.groups", written).values()
    }


def _parse_action(text: str) -> Action:
    """Parse an action that can be granted."""
    if text not in GRANTABLE:
        raise BadNameError(
            f"not an action; expected {', '.join(each for each in Action if each in GRANTABLE)}"
        )
    return Action(text)
