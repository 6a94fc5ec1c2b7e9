"""`cachegate cache attest`: an operator states that a model has files with these digests.

With `shared_links = "attested"`, a link to a blob that other owners link as well counts only where the
provider's metadata of that model named the digest, or an operator did, with this command. Without digests, it
covers all that the model's manifests list now, so check them first: anyone who can write to the volume can
list what is not theirs. Leaving a digest out later does not withdraw it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.assembly.components import build_catalogue
from gateway.cli.barrier_view import NoWait
from gateway.cli.perform import in_session, report
from gateway.directory.edits.provenance import attest as attest_digests
from gateway.model.errors import Conflict
from gateway.model.names import parse_md5, parse_model_id
from gateway.model.records import SOURCE_CLI
from gateway.terminal.console import AsJson

if TYPE_CHECKING:
    from gateway.directory.edits.effect import Effect
    from gateway.model.names import Md5, ModelId
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done

MAX_NAMED = 100  # digests that the audit record names, beside their number


def attest(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's own id, no alias.")],
    digests: Annotated[
        list[str] | None, typer.Option(help="MD5 digests; all that its manifests list now, if none is named.")
    ] = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Let a model's links to shared blobs count, where `shared_links` requires an attestation."""
    model_id = parse_model_id(model)
    named = frozenset(map(parse_md5, digests or ()))

    async def work(session: OperatorSession) -> Done[Effect]:
        attested = named or await _listed(session, model_id)
        subject = (model_id, f"{len(attested)} digests", *sorted(attested)[:MAX_NAMED])
        operation = partial(attest_digests, model=model_id, digests=attested, source=SOURCE_CLI)
        return await session.perform("cache.attest", operation, subject=subject, wait=not no_wait)

    report(in_session(work), as_json=as_json, details={"model": model_id})


async def _listed(session: OperatorSession, model: ModelId) -> frozenset[Md5]:
    """The digests of the model's servable links, as they are on disk now."""
    catalogue = build_catalogue(session.settings, session.clock, is_command=True)
    listings = [await catalogue.listing(model, package) for package in await catalogue.packages(model)]
    found = frozenset(
        file.md5
        for listing in listings
        if listing is not None
        for file in listing.files
        if file.md5 is not None
    )
    if not found:
        raise Conflict(
            f"the cache has no package of {model} that links a blob; name digests, or load it first"
        )
    return found
