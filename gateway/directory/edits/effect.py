"""The result of an edit, and the protection of facts that the policy folder wrote."""

from __future__ import annotations

import msgspec

from gateway.model.errors import Conflict
from gateway.model.facts import FOLDER_SOURCE

"""The source of folder facts is this prefix and the stem of their document: `policies:acme`."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an edit. `sentences` describe it to the operator, one line per thing.

    `missing` names what was to be removed and did not exist. The rest was removed, but the command still
    fails, since a mistyped name must not be taken for a removed right. `known` then lists the names that may
    have been meant.
    """

    is_changed: bool
    sentences: tuple[str, ...]
    missing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


class FolderOwned(Conflict):
    """The fact is the policy folder's, and the change was not forced."""


def verify_not_from_folder(what: str, source: str, *, force: bool) -> None:
    """Raise `FolderOwned` for a fact of the policy folder, unless forced."""
    if force or not source.startswith(FOLDER_SOURCE):
        return
    document = source.removeprefix(FOLDER_SOURCE)
    raise FolderOwned(
        f"{what} comes from the policy folder: edit tenants/{document}.toml there and run "
        "`cachegate policy apply` (or use --force, and expect the next apply to object)"
    )
