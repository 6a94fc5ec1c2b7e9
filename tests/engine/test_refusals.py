"""Every refusal arrives as the exception that the engine has for it, in both ways of access."""

from __future__ import annotations

import pytest
from catalogue import ABSENT, ALIAS, CARS, FRESH
from tenant import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]


def test_who_is_nobody_is_unauthorized(guarded, join, way):
    client = join(guarded, way, "acme")
    for key in ("nobody-gave-me-out", "short", "", None):
        assert client.load(CARS, key).exception == "UnauthorizedModelAccessError", key


def test_a_revoked_key_is_unauthorized(guarded, join, way):
    acme = guarded.tenant("acme")
    guarded.revoke(acme)
    assert join(guarded, way, "acme").load(CARS, acme.key).exception == "UnauthorizedModelAccessError"


def test_another_tenants_model_is_not_found_like_one_that_is_not_there(guarded, join, way):
    """I3: the provider tells 403 from 404, and we do not. Nor does what one tenant got help the other."""
    globex = guarded.tenant("globex")
    client = join(guarded, way, "globex")
    for model in (CARS, ALIAS, FRESH, ABSENT):
        assert client.load(model, globex.key).exception == "ModelNotFoundError", model
    acme = guarded.tenant("acme")
    assert client.load(CARS, acme.key).ok


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        (402, "PaymentRequiredModelAccessError"),
        (403, "ModelNotFoundError"),
        (404, "ModelNotFoundError"),
        (423, "UsagePausedModelAccessError"),
        (429, "RetryError"),
        (500, "RetryError"),
        (503, "RetryError"),
        (0, "RetryError"),
    ],
)
def test_what_the_provider_says_arrives_as_the_exception_for_it(
    guarded, provider, join, unseen, way, status, exception
):
    """What is about the account stays that; what it hides or cannot say becomes our 404 and 503."""
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme", API_CALLS_MAX_TRIES="1")
    with provider.behaving("api", status=status):
        assert client.load(unseen, acme.key).exception == exception


def test_undecided_is_asked_again(guarded, provider, join, unseen, way):
    """I7: what was not known a moment ago is not remembered as refused."""
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme", API_CALLS_MAX_TRIES="1")
    with provider.behaving("api", status=503):
        assert client.load(unseen, acme.key).exception == "RetryError"
    assert client.load(unseen, acme.key).ok


def test_a_refusal_names_no_key_and_no_signature(guarded, join, way):
    globex = guarded.tenant("globex")
    outcome = join(guarded, way, "globex").load(CARS, globex.key)
    assert not outcome.ok
    assert globex.key not in outcome.message
    assert "sig=" not in outcome.message
