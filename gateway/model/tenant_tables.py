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
from gateway.model.standing import TenantModels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model.names import GroupName, ModelId, Pattern
    from gateway.model.toml_tables import TomlTables

MODELS_KEYS = ("own", "public", "private", "aliases", "groups")
GRANT_KEYS = ("models", "groups", "packages", "actions")


def read_models(tables: TomlTables, table: Mapping[str, Any], at: str) -> TenantModels:
    """What the table named `at` says of a tenant's models."""
    own, public, private = (
        tables.names(table, at, key, parse_pattern) for key in ("own", "public", "private")
    )
    are_public = set(public)
    for pattern in private:
        if pattern in are_public:
            tables.complain(f"{pattern!r} is public too; expected one of both", at, "private", pattern)
    return TenantModels(
        own=own,
        public=public,
        private=private,
        aliases=_aliases(tables, table, at),
        groups=_groups(tables, table, at),
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
    return Grant(grant_id="", actions=frozenset(actions), models=models, groups=groups, packages=packages)


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
