from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.adapters.clock import SystemClock
from gateway.model.facts import Scope
from gateway.model.issuers import KEY_SET_SECONDS, ClaimMatch, Issuer, IssuerKeySet, MappingRule
from gateway.model.names import TenantId
from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.issuers import check_issuers
from tests import outside_issuer


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    issuer = outside_issuer.Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.stop()


class Facts:
    """What a listing says of issuers."""

    def __init__(self, *issuers, bindings=0, fetched_at=None):
        self.issuers, self.bindings, self.fetched_at = issuers, bindings, fetched_at

    async def list_issuers(self):
        return list(self.issuers)

    async def count_bindings(self, _url):
        return self.bindings

    async def find_key_set(self, url):
        if self.fetched_at is None:
            return None
        return IssuerKeySet(url=url, key_set_url=url, document=b"", fetched_at=self.fetched_at)


def document(outside, name="ci", **changes):
    fields = {
        "source": f"policies:issuers/{name}",
        "url": outside.url,
        "audience": "us",
        "key_set_url": outside.key_set_url,
        "algorithms": ("RS256",),
        "types": ("jwt",),
        "leeway_seconds": 0,
        "max_lifetime_seconds": 600,
        "max_bindings": 10,
        "rules": (
            MappingRule(
                name="main",
                tenant=TenantId("acme"),
                claims=(ClaimMatch(claim="ref", values=("main",)),),
                scopes=frozenset({Scope.READ}),
            ),
        ),
    }
    return Issuer(**{**fields, **changes})


@pytest.fixture
def check(outside, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", outside.authority)
    outside.behave("well")

    def check(facts, *, private_issuers=True):
        settings = SimpleNamespace(private_issuers=private_issuers)
        return asyncio.run(check_issuers(settings, facts, SystemClock()))

    return check


def test_without_issuers_nobody_is_asked(check):
    assert check(Facts()).health is Level.OK


def test_an_issuer_that_answers_with_keys_of_use_is_well(check, outside):
    found = check(Facts(document(outside), bindings=3))
    assert found.health is Level.OK
    assert "ci answers with 3 keys of ES256, EdDSA, RS256; 3 of 10 bindings" in found.found


def test_keys_of_no_algorithm_that_the_document_accepts_are_a_failure(check, outside):
    outside.behave("for-encryption")
    assert check(Facts(document(outside))).health is Level.FAIL


@pytest.mark.parametrize(
    ("age", "health"), [(None, Level.FAIL), (3600, Level.WARNING), (KEY_SET_SECONDS + 1, Level.FAIL)]
)
def test_an_issuer_that_does_not_answer_is_as_bad_as_its_keys_are_old(check, outside, age, health):
    outside.behave("failing")
    fetched_at = None if age is None else SystemClock().now() - age
    found = check(Facts(document(outside), fetched_at=fetched_at))
    assert found.health is health
    assert "503" in found.found


def test_an_issuer_at_a_private_address_needs_the_setting(check, outside):
    assert check(Facts(document(outside)), private_issuers=False).health is Level.FAIL


def test_bindings_that_are_nearly_as_many_as_there_may_be_are_a_warning(check, outside):
    found = check(Facts(document(outside), bindings=9))
    assert found.health is Level.WARNING
    assert "bindings forget" in found.advice


def test_the_worst_of_several_issuers_is_the_finding(check, outside):
    wrong = document(outside, "wrong", key_set_url=f"{outside.url.replace('localhost', '127.0.0.9')}/keys")
    found = check(Facts(document(outside), wrong))
    assert found.health is Level.FAIL
    assert "ci answers" in found.found
    assert "wrong: " in found.found
