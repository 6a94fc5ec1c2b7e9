"""Without a provider, or while none answers, the engine loads from its own records in the cache."""

from __future__ import annotations

import pytest
from catalogue import (
    ABSENT,
    ALIAS,
    BOXES,
    CARS,
    FIRST_OF_MANY,
    FRESH,
    GLOBEX_CARS,
    LARGE,
    MANY,
    PARENT,
    SECOND_OF_MANY,
)
from tenant import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]


@pytest.fixture
def alone(guard):
    """A gateway that has only the cache."""
    return guard(has_upstream=False)


def test_a_cold_load_predicts_as_with_the_provider(alone, provider, join, filled, way):
    acme = alone.tenant("acme")
    client = join(alone, way, "acme")
    for model in (PARENT, CARS, BOXES, ALIAS, LARGE):
        assert client.load(model, acme.key).loaded().prediction == filled.prediction(model), model
    for package in (FIRST_OF_MANY, SECOND_OF_MANY):
        outcome = client.load(MANY, acme.key, model_package_id=package).loaded()
        assert outcome.prediction == filled.prediction(MANY, package)
    assert provider.seen() == []


def test_what_is_absent_and_what_is_not_ones_own_are_one_answer(alone, join, way):
    acme = alone.tenant("acme")
    client = join(alone, way, "acme")
    for model in (ABSENT, FRESH, GLOBEX_CARS):
        assert client.load(model, acme.key).exception == "ModelNotFoundError", model


def test_a_stranger_is_told_so(alone, join, way):
    client = join(alone, way, "acme")
    assert client.load(CARS, "nobody-gave-me-out").exception == "UnauthorizedModelAccessError"
    assert client.load(CARS).exception == "UnauthorizedModelAccessError"


def test_a_second_load_resolves_to_the_same_package(alone, join, filled, way):
    """A field that changes from one answer to the next would make the engine refuse the package for good."""
    acme = alone.tenant("acme")
    client = join(alone, way, "acme")
    client.load(CARS, acme.key).loaded()
    assert client.load(CARS, acme.key).loaded().prediction == filled.prediction(CARS)


def test_a_home_filled_with_the_provider_goes_on_without_it(guard, alone, join, filled, way):
    """What is rebuilt from disk agrees with what the provider said, in every field that the engine keeps."""
    guarded = guard()
    acme = guarded.tenant("acme")
    join(guarded, way, "acme").load(CARS, acme.key).loaded()
    later = alone.tenant("acme")
    assert join(alone, way, "acme").load(CARS, later.key).loaded().prediction == filled.prediction(CARS)


def test_while_the_provider_does_not_answer_the_gateway_is_undecided(guarded, provider, join, unseen, way):
    """`closed` is what a tenant is unless an operator says otherwise."""
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    with provider.gone():
        assert client.load(unseen, acme.key).exception == "RetryError"
