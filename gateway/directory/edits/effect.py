"""What an operation did, and who may undo what the policy folder wrote."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.errors import Conflict

SOURCE_FOLDER_PREFIX = "policies:"
"""Folder facts carry this and the stem of the document that says them: `policies:acme`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What became of an operation. `sentences` say it to the operator, one line a thing.

    `missing` names what was to be taken away and was not there: the rest was taken, and a command
    says no in the end, since a mistyped name must not read as a right that is gone. `known` are then
    the names that could have been meant.
    """

    is_changed: bool
    sentences: tuple[str, ...]
    missing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


def verify_not_from_folder(what: str, source: str, *, force: bool) -> None:
    """Refuse to change by command what a policy document says, unless it is forced."""
    if force or not source.startswith(SOURCE_FOLDER_PREFIX):
        return
    document = source.removeprefix(SOURCE_FOLDER_PREFIX)
    raise Conflict(
        f"{what} comes from the policy folder: edit tenants/{document}.toml there and run "
        "`cachegate policy apply` (or use --force, and expect the next apply to object)"
    )
