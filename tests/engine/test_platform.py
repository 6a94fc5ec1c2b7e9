"""The platform decides: keys and rights that were not set up on our side."""

from __future__ import annotations

import pytest
from catalogue import ALIAS, CARS, GLOBEX_CARS, PARENT
from tenant import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]


@pytest.fixture
def asking(guard):
    """A gateway that asks the platform."""
    return guard(authority="platform")


def test_a_key_that_only_the_platform_knows_loads_from_our_cache(asking, provider, join, filled, way):
    acme = asking.tenant("acme")
    client = join(asking, way, "acme")
    for model in (PARENT, CARS, ALIAS):
        assert client.load(model, acme.key).loaded().prediction == filled.prediction(model), model
    assert provider.seen("storage") == []


def test_what_the_platform_refuses_is_refused(asking, join, way):
    globex = asking.tenant("globex")
    client = join(asking, way, "globex")
    assert client.load(GLOBEX_CARS, globex.key).ok
    assert client.load(CARS, globex.key).exception == "ModelNotFoundError"
    assert client.load(CARS, "nobody-gave-me-out").exception == "UnauthorizedModelAccessError"


def test_a_verdict_is_one_keys_and_no_others(asking, join, way):
    acme, stranger = asking.tenant("acme"), asking.tenant("acme", "acme/other/*")
    assert join(asking, way, "acme").load(CARS, acme.key).ok
    assert join(asking, way, "stranger").load(CARS, stranger.key).exception == "ModelNotFoundError"


def test_a_load_asks_the_platform_and_the_next_one_does_not(asking, provider, join, way):
    """What the platform said is remembered for a minute by the fleet, and the metadata by each worker."""
    acme = asking.tenant("acme")
    client = join(asking, way, "acme")
    asked = set()
    for _ in range(8):  # every worker has had its turn by then, and asked for the metadata once
        client.load(CARS, acme.key).loaded()
        asked.add(len(provider.seen("api")))
    assert max(asked) <= 1 + len(asking.gateway.worker_pids())
    assert min(asked) >= 1


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        (401, "UnauthorizedModelAccessError"),
        (402, "PaymentRequiredModelAccessError"),
        (423, "UsagePausedModelAccessError"),
        (503, "RetryError"),
    ],
)
def test_what_the_platform_says_of_the_account_arrives_typed(asking, provider, join, way, status, exception):
    acme = asking.tenant("acme")
    client = join(asking, way, "acme", API_CALLS_MAX_TRIES="1")
    with provider.behaving("api", status=status):
        assert client.load(CARS, acme.key).exception == exception
