"""What is possible on an unguarded cache: one home, as on a machine with several tenants.

Each test passes because the engine allows it; test_closed_gaps.py tests the same with the guarded engine.
What the engine itself refuses is here too: it shows how far its own check reaches.
"""

from __future__ import annotations

from collections import Counter

import pytest
from catalogue import ALIAS, CARS, GLOBEX_CARS, PARENT, THIEF

pytestmark = pytest.mark.engine

ACME, ACME_TOO, GLOBEX = "acme-platform-key-1", "acme-platform-key-2", "globex-platform-key"
ASKED_ONCE = ["/models/v1/external/weights"]


@pytest.fixture
def machine(provider, start, home):
    """Start a process on the machine that all tenants share."""
    provider.grant(ACME, "acme/*")
    provider.grant(ACME_TOO, "acme/*")
    provider.grant(GLOBEX, "globex/*")
    return lambda **more: start(home, **{"ROBOFLOW_API_HOST": provider.api_url, **more})


@pytest.fixture
def loaded_by_acme(machine, provider):
    """What acme's load of its model came to; the model is on the machine's disk from then on."""
    outcome = machine().load(CARS, ACME).loaded()
    provider.forget()
    return outcome


def paths_asked(provider, server="api"):
    return [seen.path for seen in provider.seen(server)]


def test_a_cold_load_asks_for_metadata_once_with_the_key_and_for_every_file_without_it(machine, provider):
    machine().load(CARS, ACME).loaded()
    asked = provider.seen("api")
    assert [(one.method, one.path, one.model_id) for one in asked] == [("GET", *ASKED_ONCE, CARS)]
    assert asked[0].headers["authorization"] == f"Bearer {ACME}"
    fetched = provider.seen("storage")
    assert Counter(one.method for one in fetched) == {"HEAD": 3, "GET": 3}
    assert not [one for one in fetched if "authorization" in one.headers]


def test_another_key_of_the_tenant_loads_without_a_download(machine, provider, loaded_by_acme):
    """E5: the metadata is asked for, the files are there."""
    outcome = machine().load(CARS, ACME_TOO).loaded()
    assert outcome.prediction == loaded_by_acme.prediction
    assert (paths_asked(provider), paths_asked(provider, "storage")) == (ASKED_ONCE, [])


def test_another_tenant_is_refused_as_long_as_the_provider_is_asked(machine, provider, loaded_by_acme):
    client = machine()
    assert client.load(CARS, GLOBEX).exception == "ForbiddenModelAccessError"
    assert client.load(CARS).exception == "UnauthorizedModelAccessError"
    assert paths_asked(provider) == ASKED_ONCE * 2


def test_a_revoked_key_still_loads_and_nobody_is_asked(machine, provider, loaded_by_acme):
    """E6: for a day. The engine's cache of resolutions stands in for the right."""
    provider.revoke(ACME)
    outcome = machine().load(CARS, ACME).loaded()
    assert outcome.prediction == loaded_by_acme.prediction
    assert (outcome.network, provider.seen()) == ((), [])


def test_a_revoked_key_is_refused_when_the_resolutions_expire_at_once(machine, provider, loaded_by_acme):
    """E30: the one setting of a client that closes E6; every load asks."""
    provider.revoke(ACME)
    outcome = machine(AUTO_LOADER_CACHE_EXPIRATION_MINUTES="0").load(CARS, ACME)
    assert outcome.exception == "UnauthorizedModelAccessError"
    assert paths_asked(provider) == ASKED_ONCE


def test_a_provider_that_is_down_stops_only_keys_that_never_loaded(machine, provider, loaded_by_acme):
    with provider.behaving("api", status=503):
        assert machine().load(CARS, ACME).ok
        assert machine().load(GLOBEX_CARS, GLOBEX).exception == "RetryError"


def test_a_blob_of_another_tenant_is_used_when_the_digests_agree(machine, provider, loaded_by_acme):
    """E9: by design, and harmless as long as the provider vouches for the digest."""
    outcome = machine().load(GLOBEX_CARS, GLOBEX).loaded()
    assert outcome.prediction == loaded_by_acme.prediction
    fetched = {seen.path.rpartition("/")[2] for seen in provider.seen("storage")}
    assert fetched == {"class_names.txt"}


def test_naming_the_digests_of_another_tenant_is_enough_to_get_its_bytes(machine, provider, loaded_by_acme):
    """E10: the model that names them has no file of its own."""
    outcome = machine().load(THIEF, GLOBEX).loaded()
    assert outcome.class_names == loaded_by_acme.class_names
    assert outcome.prediction == loaded_by_acme.prediction
    assert provider.seen("storage") == []


def test_an_alias_loads_the_canonical_model_for_its_tenant_alone(machine, provider, loaded_by_acme):
    """E11."""
    client = machine()
    assert client.load(ALIAS, ACME).loaded().prediction == loaded_by_acme.prediction
    assert provider.seen("storage") == []
    assert client.load(ALIAS, GLOBEX).exception == "ForbiddenModelAccessError"


@pytest.mark.parametrize("key", [GLOBEX, None])
def test_the_engine_tells_anybody_where_a_model_lies_and_loads_from_there(machine, key, loaded_by_acme):
    """E12: no key, no provider."""
    client = machine()
    found = client.find(CARS, key)
    assert found.path is not None
    outcome = client.load(found.path).loaded()
    assert outcome.prediction == loaded_by_acme.prediction
    assert outcome.network == ()


def test_without_a_key_even_the_alias_of_another_tenant_is_found(machine):
    """E12."""
    client = machine()
    client.load(ALIAS, ACME).loaded()
    assert client.find(ALIAS, GLOBEX).path is None
    assert client.find(ALIAS).path == client.find(CARS).path


@pytest.mark.parametrize("key", [GLOBEX, None])
@pytest.mark.parametrize("model", [CARS, ALIAS, PARENT])
def test_an_offline_machine_loads_everything_for_anybody(machine, provider, model, key):
    """E13."""
    warm = machine(OFFLINE_MODE_WARM_UP="true")
    for one in (ALIAS, PARENT):
        warm.load(one, ACME).loaded()
    provider.forget()
    outcome = machine(OFFLINE_MODE="true").load(model, key).loaded()
    assert (outcome.network, provider.seen()) == ((), [])


def test_a_folder_of_the_models_name_is_loaded_without_asking_anybody(
    machine, provider, loaded_by_acme, tmp_path
):
    """E32: where the process happens to stand decides."""
    folder = tmp_path / "somewhere"
    (folder / CARS).parent.mkdir(parents=True)
    client = machine(folder=folder)
    (folder / CARS).symlink_to(client.find(CARS).path)
    outcome = client.load(CARS, "a-key-that-nobody-gave-out").loaded()
    assert outcome.prediction == loaded_by_acme.prediction
    assert provider.seen() == []


def test_a_blob_that_was_overwritten_is_served_to_the_next_load(machine, home, loaded_by_acme):
    """Whoever can write to the machine's cache owns every tenant's models: nothing is hashed again."""
    client = machine()
    names = next(path for path in home.glob("models-cache/*/*/class_names.txt"))
    names.resolve().write_text("evil\neviler\nevilest")
    assert client.load(CARS, ACME).loaded().class_names == ["evil", "eviler", "evilest"]
