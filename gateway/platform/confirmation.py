"""Ask the platform before a decision about one of its keys counts.

While there is no answer of the platform in force (`is_confirmed` is False), the decision is a denial whatever
the rules say: a key that the platform has ended must not keep even the rights that every tenant has. A caller
with a signed link has no key to ask with, and is decided on what was noted when the link was made.

This module connects decisions and the authority, which do not import each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.decisions import Judgement
from gateway.model.access import Credential
from gateway.model.errors import UNPERMITTED, Reason, Refusal, Unavailable
from gateway.model.verdicts import Denied

if TYPE_CHECKING:
    from gateway.decisions import Decisions
    from gateway.model.access import Access, SignedLink
    from gateway.model.ports import PlatformAuthority

ATTEMPTS = 2  # an answer may be ended at once, by a webhook; then it is asked for once more


async def reach_confirmed(
    decisions: Decisions,
    authority: PlatformAuthority | None,
    access: Access,
    credential: Credential | SignedLink,
) -> Judgement:
    """The decision, after the platform was asked if necessary.

    Raises `Refusal` for a key that the platform does not know, `Unavailable` when the platform does not
    decide.
    """
    judgement = decisions.recall(access) or await decisions.reach(access)
    for _ in range(ATTEMPTS):
        if judgement.facts.is_confirmed or access.principal.is_link:
            return with_platform_reason(judgement)
        if authority is None or not isinstance(credential, Credential):
            raise Refusal(
                Reason.UNKNOWN_KEY, key_id=access.principal.key_id
            )  # a platform's key, and the platform is not asked
        await authority.determine(credential, access.principal, judgement.facts.model)
        judgement = await decisions.reach(access)
    if not judgement.facts.is_confirmed:
        raise Unavailable("upstream", "what it said did not last", Reason.UPSTREAM_UNDECIDED)
    return with_platform_reason(judgement)


def with_platform_reason(judgement: Judgement) -> Judgement:
    """Give a denial for a missing right the platform's reason, where the platform gave one.

    `Decisions` makes sure that nothing overrides the platform's denial.
    """
    verdict, ruling = judgement.verdict, judgement.facts.ruling
    if not isinstance(verdict, Denied) or ruling is None or ruling.is_allow:
        return judgement
    if verdict.reason not in UNPERMITTED:
        return judgement
    return Judgement(replace(verdict, reason=ruling.reason), judgement.facts)
