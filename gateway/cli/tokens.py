"""`cachegate tokens`: the keys that sign access tokens. Tokens themselves are made by `POST /v1/token`."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict

from gateway.cli.perform import barrier_document, barrier_notes, in_session, is_sure
from gateway.operations.token_keys import list_keys, rotate
from gateway.terminal.console import AsJson, Line, Note, Table, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.operations.token_keys import Rotation

commands = typer.Typer(help="Keys that sign access tokens: rotate, list.", no_args_is_help=True)


@commands.command("rotate")
def rotate_(
    patience: Annotated[
        int, typer.Option("--patience", min=0, max=3600, help="Seconds to wait for all workers to have it.")
    ] = 15,
    as_json: AsJson = False,
) -> None:
    """Have a new key sign, once every worker has it. The former verifies until its tokens have ended."""
    done = in_session(partial(rotate, patience_seconds=patience))
    document = {"kid": done.kid, "file": done.file, "signs": done.signs, "lacking": done.lacking}
    is_yes = done.signs and is_sure(done.barrier)
    show({**document, **barrier_document(done.barrier)}, _shown(done), as_json=as_json, is_yes=is_yes)


def _shown(done: Rotation) -> Iterator[Note | Line]:
    yield Line(f"{done.kid}  {done.file}")
    if done.signs:
        yield Note("It signs now. The former key verifies until its last token has ended.")
        yield from barrier_notes(done.barrier)
        return
    yield Note(
        f"It waits: {len(done.lacking)} of {done.workers} workers lack it ({', '.join(done.lacking)}). "
        "Copy the file to their nodes, then repeat the command."
    )


@commands.command("keys")
def keys(as_json: AsJson = False) -> None:
    """List the keys, and what each is used for."""
    found = in_session(list_keys)
    rows = [
        (
            one.kid,
            one.role.value,
            "" if one.since is None else datetime.fromtimestamp(one.since, UTC).isoformat(timespec="seconds"),
            f"{one.held_by} of {one.workers}",
            one.file or "not on this node",
        )
        for one in found
    ]
    show(
        [asdict(one) for one in found],
        [Table("Signing keys", ("key", "used for", "signs since", "workers", "file"), rows)],
        as_json=as_json,
    )
