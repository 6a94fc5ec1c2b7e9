"""A key that is revoked in the middle of a load: what was not yet sent is not sent (I6)."""

from __future__ import annotations

import threading

import pytest
from catalogue import CARS, GLOBEX_CARS, LARGE
from tenant import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]

FAILED = "ModelPackageAlternativesExhaustedError"
MEBIBYTE = 1 << 20


def test_between_metadata_and_download_it_ends_the_load(guarded, provider, join, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    one_at_a_time, revoked = threading.Lock(), []

    def revoke(request):
        with one_at_a_time:  # downloads run side by side; none of them overtakes the revocation
            if request.is_download and not revoked:
                guarded.revoke(acme)
                revoked.append(acme)

    with guarded.window.before(revoke):
        outcome = client.load(CARS, acme.key)
    assert revoked
    assert outcome.exception == FAILED
    assert client.blobs() == set()


def test_during_a_ranged_download_it_cuts_the_transfers(guarded, provider, join, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    outcomes = []
    with guarded.window.holding(after_bytes=MEBIBYTE):
        load = threading.Thread(target=lambda: outcomes.append(client.load(LARGE, acme.key)))
        load.start()
        assert guarded.window.caught.wait(30)
        guarded.revoke(acme)
        guarded.window.release()
        load.join()
    assert outcomes[0].exception == FAILED
    weights = next(file for file in provider.models[LARGE].packages[0].files if "onnx" in file.handle)
    assert weights.md5 not in client.blobs()


def test_between_two_loads_it_refuses_the_second(guarded, join, filled, way):
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(CARS, acme.key).loaded()
    guarded.revoke(acme)
    assert client.load(CARS, acme.key).exception == "UnauthorizedModelAccessError"


def test_it_does_not_touch_another_tenant_on_the_same_blob(guarded, join, filled, way):
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    join(guarded, way, "acme").load(CARS, acme.key).loaded()
    guarded.revoke(acme)
    outcome = join(guarded, way, "globex").load(GLOBEX_CARS, globex.key).loaded()
    assert outcome.prediction == filled.prediction(GLOBEX_CARS)


def test_it_does_not_touch_another_key_of_the_tenant(guarded, join, filled, way):
    first, second = guarded.tenant("acme"), guarded.tenant("acme")
    guarded.revoke(first)
    outcome = join(guarded, way, "acme").load(CARS, second.key).loaded()
    assert outcome.prediction == filled.prediction(CARS)
