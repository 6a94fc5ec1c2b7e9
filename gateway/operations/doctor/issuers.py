"""Doctor, the outside issuers: whether each answers, with keys of algorithms that its document accepts.

Each is asked once, now, as a worker would ask it. What came is compared with the document and not stored.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.adapters.key_set_client import KeySetClient
from gateway.identity.json_web_tokens import parse_key_set
from gateway.model.errors import BadNameError, Unavailable
from gateway.model.issuers import KEY_SET_SECONDS
from gateway.operations.doctor.findings import fail, ok, warning

if TYPE_CHECKING:
    from gateway.adapters.clock import SystemClock
    from gateway.configuration.settings import Settings
    from gateway.directory.reading.listing import Listing
    from gateway.model.issuers import Issuer
    from gateway.operations.doctor.findings import Finding

NAME = "issuers"
MANY = 0.9  # of the bindings that an issuer may have: time to forget some, or to permit more


async def check_issuers(settings: Settings, listing: Listing, clock: SystemClock) -> Finding:
    """All issuers in one finding: the worst state, and a sentence for each."""
    issuers = await listing.list_issuers()
    if not issuers:
        return ok(NAME, "none: no token of an outside issuer is accepted")
    client = KeySetClient(private_issuers=settings.private_issuers)
    try:
        found = await asyncio.gather(*(_check(issuer, client, listing, clock) for issuer in issuers))
    finally:
        await client.close()
    said = "; ".join(one.found for one in found)
    advice = "; ".join(dict.fromkeys(one.advice for one in found if one.advice))
    for make in (fail, warning):
        if any(one.health is make("", "", "").health for one in found):
            return make(NAME, said, advice)
    return ok(NAME, said)


async def _check(issuer: Issuer, client: KeySetClient, listing: Listing, clock: SystemClock) -> Finding:
    try:
        keys = parse_key_set(await client.fetch(issuer.key_set_url))
    except (Unavailable, BadNameError) as error:
        why = error.why if isinstance(error, Unavailable) else str(error)
        return await _unreachable(issuer, why, listing, clock)
    algorithms = sorted({key.algorithm for key in keys.values()})
    of_use = set(algorithms) & set(issuer.algorithms)
    said = f"{issuer.name} answers with {len(keys)} keys of {', '.join(algorithms) or 'no algorithm of ours'}"
    if not of_use:
        accepted = f"its document accepts {', '.join(issuer.algorithms)}"
        return fail(NAME, f"{said}, and {accepted}", "correct `jwks` or `algorithms` in its document")
    count = await listing.count_bindings(issuer.url)
    said = f"{said}; {count} of {issuer.max_bindings} bindings"
    if count >= issuer.max_bindings * MANY:
        advice = (
            "forget bindings that are no longer used (`cachegate bindings forget`), or raise max_bindings"
        )
        return warning(NAME, said, advice)
    return ok(NAME, said)


async def _unreachable(issuer: Issuer, why: str, listing: Listing, clock: SystemClock) -> Finding:
    """With keys that still count its tokens are accepted, for a while."""
    known = await listing.find_key_set(issuer.url)
    said = f"{issuer.name}: {why}"
    advice = "see that this machine reaches the issuer, or correct its document"
    left = 0.0 if known is None else known.fetched_at + KEY_SET_SECONDS - clock.now()
    if left <= 0:
        return fail(NAME, f"{said}; no keys of it count, so its tokens are undecided", advice)
    return warning(NAME, f"{said}; the last keys count for {left / 3600:.1f} hours more", advice)
