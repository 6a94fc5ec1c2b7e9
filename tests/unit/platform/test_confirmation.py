from __future__ import annotations

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from gateway.decisions import Judgement
from gateway.model.access import Access, Action, Credential, Resource, ResourceKind, SignedLink
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import DEFAULT_SCOPES
from gateway.model.names import KeyId, ModelId, TenantId
from gateway.model.rulings import Ruling
from gateway.model.verdicts import Allowed, Denied
from gateway.platform.confirmation import reach_confirmed
from tests import samples

pytestmark = pytest.mark.anyio

KEY, CARS, ALIAS = KeyId("key_000000000001"), ModelId("acme/cars/1"), ModelId("the-cars")
CREDENTIAL = Credential("a-platform-key")
LINK = SignedLink(key_id=KEY, expires_at=1, signed=b"", mac=b"")
ACCESS = Access(
    principal=samples.principal(
        key_id=KEY, tenant=TenantId("platform-1"), scopes=DEFAULT_SCOPES, is_of_platform=True
    ),
    action=Action.READ,
    resource=Resource(kind=ResourceKind.MODEL, model=ALIAS),
)


def judged(*, is_confirmed=True, reason=None, said=None):
    """A decision: allowed, or denied for a reason; and the platform's answer."""
    facts = SimpleNamespace(
        is_confirmed=is_confirmed,
        model=CARS,
        ruling=said and Ruling(key_id=KEY, model=CARS, reason=said, until=1.0, asked=1),
    )
    if reason is None:
        return Judgement(Allowed(access=ACCESS, model=CARS, policies=(), grant=None, stamp=None), facts)
    return Judgement(Denied(access=ACCESS, reason=reason, model=CARS), facts)


class Decisions:
    """Returns decisions in order; the last for ever."""

    def __init__(self, *judgements):
        self.judgements = list(judgements)

    def recall(self, _access):
        return None

    async def reach(self, _access):
        return self.judgements.pop(0) if len(self.judgements) > 1 else self.judgements[0]


class Authority:
    def __init__(self, failure=None):
        self.settled = []
        self.failure = failure

    async def determine(self, credential, principal, model):
        self.settled.append((credential, principal.key_id, model))
        if self.failure:
            raise self.failure


UNSETTLED = judged(is_confirmed=False, reason=Reason.NOT_PERMITTED)


async def test_what_is_settled_is_asked_of_nobody():
    for settled in (judged(), judged(reason=Reason.NOT_PERMITTED)):
        assert await reach_confirmed(Decisions(settled), None, ACCESS, CREDENTIAL) is settled


async def test_what_is_not_is_asked_about_by_the_models_own_name_and_decided_anew():
    authority = Authority()
    judgement = await reach_confirmed(Decisions(UNSETTLED, judged()), authority, ACCESS, CREDENTIAL)
    assert isinstance(judgement.verdict, Allowed)
    assert authority.settled == [(CREDENTIAL, KEY, CARS)]


async def test_what_anybody_may_have_is_not_served_before_the_platform_was_asked():
    public = judged(is_confirmed=False)
    authority = Authority(Refusal(Reason.UPSTREAM_UNAUTHORIZED))
    with pytest.raises(Refusal):
        await reach_confirmed(Decisions(public), authority, ACCESS, CREDENTIAL)


async def test_what_never_lasts_is_undecided():
    authority = Authority()
    with pytest.raises(Unavailable) as caught:
        await reach_confirmed(Decisions(UNSETTLED), authority, ACCESS, CREDENTIAL)
    assert caught.value.reason is Reason.UPSTREAM_UNDECIDED
    assert len(authority.settled) == 2


async def test_whoever_came_with_a_link_is_decided_on_what_is_known():
    access = replace(ACCESS, principal=replace(ACCESS.principal, is_link=True))
    judgement = await reach_confirmed(Decisions(UNSETTLED), Authority(), access, LINK)
    assert judgement is UNSETTLED


async def test_a_platforms_key_is_nobodys_where_the_platform_is_not_asked():
    for public in (UNSETTLED, judged(is_confirmed=False)):
        with pytest.raises(Refusal) as caught:
            await reach_confirmed(Decisions(public), None, ACCESS, CREDENTIAL)
        assert (caught.value.reason, caught.value.key_id) == (Reason.UNKNOWN_KEY, KEY)


@pytest.mark.parametrize("said", [Reason.UPSTREAM_REFUSED, Reason.PAYMENT_REQUIRED, Reason.USAGE_PAUSED])
async def test_a_denial_for_want_of_a_right_has_the_platforms_reason(said):
    denied = judged(reason=Reason.NOT_PERMITTED, said=said)
    judgement = await reach_confirmed(Decisions(denied), None, ACCESS, CREDENTIAL)
    assert judgement.verdict.reason is said


@pytest.mark.parametrize(
    "denied",
    [
        judged(reason=Reason.MISSING_SCOPE, said=Reason.PAYMENT_REQUIRED),
        judged(reason=Reason.POLICY_ERROR, said=Reason.UPSTREAM_REFUSED),
        judged(reason=Reason.NOT_PERMITTED, said=Reason.PERMITTED),
    ],
)
async def test_any_other_denial_keeps_its_own(denied):
    assert await reach_confirmed(Decisions(denied), None, ACCESS, CREDENTIAL) is denied
