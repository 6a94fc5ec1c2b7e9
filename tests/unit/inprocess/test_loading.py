"""Guarded loading: the arguments that close other ways to load are set, and callers cannot change them."""

from __future__ import annotations

import pytest

from gateway.inprocess.loading import OURS, SAFE_ARGUMENTS, GuardedLoading
from gateway.model.errors import Misconfigured

CARS = "acme/cars/1"


class Loader:
    """The engine's `from_pretrained`, with the arguments that matter here."""

    def __init__(self, engine):
        self.engine = engine
        self.calls = []

    def load(
        self,
        model_id,
        weights_provider="roboflow",
        api_key=None,
        *,
        allow_untrusted_packages=False,
        allow_local_code_packages=True,
        verify_hash_while_download=True,
        download_files_without_hash=False,
        use_auto_resolution_cache=True,
        auto_resolution_cache=None,
        allow_direct_local_storage_loading=True,
        model_access_manager=None,
        content_addressed_artifact_cache=None,
        preloaded_model_dependencies=None,
        allow_vllm_proxy=False,
        **kwargs,
    ):
        self.calls.append(locals())
        return self.engine.load(model_access_manager, model_id, api_key)


@pytest.fixture
def loader(engine):
    return Loader(engine)


@pytest.fixture
def guarded(process, loader, errors):
    return GuardedLoading(process, loader.load, errors=errors, max_instances=1)


def test_a_load_is_made_with_the_safe_arguments_and_the_callers_options(installed, guarded, loader):
    assert guarded.from_pretrained(CARS, api_key=installed.token("acme"), batch_size=2) == f"{CARS}/pkgA1"
    [call] = loader.calls
    assert {name: call[name] for name in SAFE_ARGUMENTS} == SAFE_ARGUMENTS
    assert call["kwargs"] == {"batch_size": 2}


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_caller_sets_them_otherwise(installed, guarded, loader, name):
    with pytest.raises(Misconfigured, match=name):
        guarded.from_pretrained(CARS, api_key=installed.token("acme"), **{name: True})
    assert loader.calls == []


def test_whoever_calls_the_engine_himself_gets_the_same_arguments(guarded):
    arguments = guarded.arguments()
    assert arguments.pop("model_access_manager") is not None
    assert arguments == SAFE_ARGUMENTS


def test_a_key_that_is_revoked_while_a_model_loads_is_said_to_be_one(installed, guarded, engine, errors):
    token, key_id = installed.new_key("acme")
    engine.during_load = lambda: installed.revoke(key_id)
    with pytest.raises(errors.unauthorized):
        guarded.from_pretrained(CARS, api_key=token)


def test_a_load_that_fails_for_other_reasons_fails_as_it_did(installed, guarded, engine, errors):
    engine.packages = ()
    with pytest.raises(errors.exhausted):
        guarded.from_pretrained(CARS, api_key=installed.token("acme"))


def test_an_engine_that_knows_an_argument_by_another_name_stops_the_start(process, errors):
    def load(model_id, **kwargs):
        return model_id, kwargs

    with pytest.raises(Misconfigured):
        GuardedLoading(process, load, errors=errors)


def test_what_is_forgotten_is_loaded_anew(installed, guarded, engine):
    for _ in range(2):
        guarded.from_pretrained(CARS, api_key=installed.token("acme"))
    assert engine.events.count("metadata") == 1
    guarded.forget()
    guarded.from_pretrained(CARS, api_key=installed.token("acme"))
    assert engine.events.count("metadata") == 2
