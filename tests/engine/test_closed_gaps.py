"""The gaps of test_open_gaps.py with the guard in front and a home for each tenant.

What no guard on the network can prevent is here as well, under its own heading: SECURITY.md names it.
"""

from __future__ import annotations

import pytest
from catalogue import ALIAS, CARS, FORGED, GLOBEX_CARS, PACKAGE, PARENT, THIEF
from tenant import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("way", WAYS)]


def test_another_key_of_the_tenant_is_decided_and_recorded_for_itself(guarded, join, filled, way):
    """E5."""
    first, second = guarded.tenant("acme"), guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(CARS, first.key).loaded()
    assert client.load(CARS, second.key).loaded().prediction == filled.prediction(CARS)
    records = [one for one in guarded.installation.records() if one.get("key_id") == second.key_id]
    assert {one["decision"] for one in records if one["kind"] == "decision"} == {"allow"}


def test_a_revoked_key_loads_no_more(guarded, join, way):
    """E6 and E30."""
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme")
    client.load(CARS, acme.key).loaded()
    guarded.revoke(acme)
    assert client.load(CARS, acme.key).exception == "UnauthorizedModelAccessError"


def test_equal_digests_are_served_to_each_tenant_by_its_own_right(guarded, provider, join, filled, way):
    """E9."""
    globex = guarded.tenant("globex")
    outcome = join(guarded, way, "globex").load(GLOBEX_CARS, globex.key).loaded()
    assert outcome.prediction == filled.prediction(GLOBEX_CARS)
    assert provider.seen("storage") == []


@pytest.mark.parametrize("shared_links", ["any", "attested"])
def test_naming_the_digests_of_another_tenant_gets_nothing(guard, join, way, shared_links):
    """E10: in a home of one's own, and with no package in the cache that links them."""
    guarded = guard(shared_links=shared_links)
    globex = guarded.tenant("globex")
    client = join(guarded, way, "globex")
    assert client.load(THIEF, globex.key).exception == "ModelPackageAlternativesExhaustedError"
    assert client.blobs() == set()
    if way == "host":  # else the attempts come to us, and there is nothing to be had
        assert guarded.downloads() == []


@pytest.mark.parametrize(("shared_links", "status"), [("any", 200), ("attested", 404)])
def test_a_link_that_the_provider_knows_nothing_of_is_no_way_to_a_blob(
    guard, provider, join, way, shared_links, status
):
    """E10 on the shared disk: the metadata decides what is loaded, and may decide what a link is worth."""
    guarded = guard(shared_links=shared_links)
    globex = guarded.tenant("globex")
    outcome = join(guarded, way, "globex").load(FORGED, globex.key).loaded()
    assert outcome.class_names[-1] == "vans"
    linked = f"/v1/models/{FORGED}/-/{PACKAGE}/weights.onnx"
    assert guarded.gateway.wire.get(linked, globex.key).status == status


def test_an_alias_of_another_tenant_is_not_found(guarded, join, filled, way):
    """E11."""
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    assert join(guarded, way, "acme").load(ALIAS, acme.key).loaded().prediction == filled.prediction(CARS)
    assert join(guarded, way, "globex").load(ALIAS, globex.key).exception == "ModelNotFoundError"


def test_in_a_home_of_ones_own_there_is_nothing_of_another_to_be_found(guarded, join, way):
    """E12."""
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    join(guarded, way, "acme").load(CARS, acme.key).loaded()
    client = join(guarded, way, "globex")
    client.load(GLOBEX_CARS, globex.key).loaded()
    assert client.find(CARS, globex.key).path is None
    assert client.find(CARS).path is None
    assert client.find(GLOBEX_CARS, globex.key).path is not None


@pytest.mark.parametrize("model", [CARS, ALIAS, PARENT])
def test_an_offline_tenant_loads_only_what_it_loaded_before(guarded, join, way, model):
    """E13."""
    acme, globex = guarded.tenant("acme"), guarded.tenant("globex")
    join(guarded, way, "acme", OFFLINE_MODE_WARM_UP="true").load(PARENT, acme.key).loaded()
    offline = join(guarded, way, "globex", OFFLINE_MODE="true")
    assert offline.load(model, globex.key).exception == "ModelRetrievalError"


# What lies on the tenant's own machine is the tenant's: no guard on the network reaches it.


def test_a_client_that_keeps_resolutions_goes_on_for_a_day_from_its_own_home(guarded, join, filled, way):
    """E6 stays open for whoever does not set AUTO_LOADER_CACHE_EXPIRATION_MINUTES=0."""
    acme = guarded.tenant("acme")
    client = join(guarded, way, "acme", AUTO_LOADER_CACHE_EXPIRATION_MINUTES="1440")
    client.load(CARS, acme.key).loaded()
    guarded.revoke(acme)
    outcome = client.load(CARS, acme.key).loaded()
    assert outcome.network == ()


def test_a_folder_of_the_models_name_is_refused_only_by_the_clients_own_argument(
    guarded, start, tmp_path, filled, way
):
    """E32."""
    folder = tmp_path / "somewhere"
    (folder / CARS).parent.mkdir(parents=True)
    package = next(filled.root.glob("models-cache/v2-acme-cars-1-*/pkgA1"))
    (folder / CARS).symlink_to(package)
    client = start(tmp_path / "home", folder=folder, **guarded.variables(way))
    assert client.load(CARS).ok
    refused = client.load(CARS, allow_direct_local_storage_loading=False)
    assert refused.exception == "DirectLocalStorageAccessError"
