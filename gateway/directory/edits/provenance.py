"""Writes origins, once each, and attestations, which only grow unless an operator forgets one.

Both are read again within the transaction, so that of two workers that hand out a file's first URL at the
same time, one decides for both.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from gateway.directory.edits.effect import Effect
from gateway.directory.records import names
from gateway.directory.records.codec import decode_attestation, decode_origin
from gateway.model.errors import Conflict
from gateway.model.facts import MAX_ATTESTED, Attestation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.edits.changes import Changes
    from gateway.model.facts import Origin
    from gateway.model.names import Md5, ModelId

T = TypeVar("T")


async def determine_origins(changes: Changes, *, origins: Sequence[Origin]) -> tuple[Origin, ...]:
    """Write the origins that do not exist yet; return the ones in force for each file."""
    in_force: list[Origin] = []
    for new in origins:
        name = names.origin_fact(new.model, new.package, new.handle)
        decode = partial(decode_origin, model=new.model, package=new.package, handle=new.handle)
        known = await changes.find_fact(name, decode)
        if known is None:
            await changes.put_fact(name, new)
        in_force.append(known or new)
    return tuple(in_force)


async def attest(changes: Changes, *, model: ModelId, digests: Iterable[Md5], source: str) -> Effect:
    """Attest these digests for a model, in addition to those already attested."""
    name = names.attestation_fact(model)
    known = await changes.find_fact(name, partial(decode_attestation, model=model))
    known = known or Attestation(model=model, digests=frozenset())
    new = frozenset(digests) - known.digests
    if not new:
        return Effect(is_changed=False, sentences=(f"all of these digests were attested for {model}",))
    together = known.digests | new
    if len(together) > MAX_ATTESTED:
        raise Conflict(f"{model} would have more than {MAX_ATTESTED} attested digests; no model has")
    await changes.put_fact(name, replace(known, digests=together, source=source))
    return Effect(is_changed=True, sentences=(f"{len(new)} digests are attested for {model} now",))
