"""Guarded loading with the real engine: what engine users could do without it, and cannot with it.

Each test has a process of the operator's with the engine and the guard in it. The provider here would allow
everything, so every refusal is the guard's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from catalogue import ALIAS, ALIASES, CARS, FIRST_OF_MANY, GLOBEX_CARS, MANY, PARENT, SECOND_OF_MANY, VANS
from tenant import ENVIRONMENT, LOAD_SECONDS, PYTHON, Outcome

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent


class Guarded:
    """One process, and whose keys there are."""

    def __init__(self, process: subprocess.Popen[str], installation: Any) -> None:
        self.process = process
        self.installation = installation

    def load(self, model: str, api_key: str | None = None, **more: Any) -> Outcome:
        return self.ask(do="load", model=model, api_key=api_key, **more)

    def by_hand(self, model: str, api_key: str | None = None) -> Outcome:
        return self.ask(do="arguments", model=model, api_key=api_key)

    def ask(self, **order: Any) -> Outcome:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Outcome:
        assert self.process.stdout is not None
        watchdog = threading.Timer(
            LOAD_SECONDS, self.process.kill
        )  # of one answer, not of all tests' together
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, "the process ended"
        answer = json.loads(line)
        known = {name: answer[name] for name in Outcome.__dataclass_fields__ if name in answer}
        return Outcome(**known | {"network": tuple(answer["network"])})

    def key(self, tenant: str) -> tuple[str, str]:
        made = self.installation.json("keys", "create", "--tenant", tenant)
        return made["token"], made["key_id"]


@pytest.fixture(scope="module")
def session(new_installation):
    """An installation with two tenants, each with what is called after it."""
    installation = new_installation("in-process")
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "alias", ALIAS, ALIASES[ALIAS])
    return installation


@pytest.fixture(scope="module")
def our_packages():
    """What Cachegate stands on, for a Python that can load it: the compiled parts fit one version only."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert (ENVIRONMENT / "lib" / version).is_dir(), f".venv-engine is not of {version}: make it anew"
    return sysconfig.get_paths()["purelib"]


@pytest.fixture(scope="module")
def guarding(engine, session, our_packages, _provider, tmp_path_factory):
    """Start a guarded process whose caches are `home`: `with guarding(home, **variables) as guarded`."""

    @contextmanager
    def run(home: Path, *, folder: Path | None = None, **variables: str):
        place = tmp_path_factory.mktemp("operator")
        environment = {
            "PATH": os.defpath,
            "HOME": str(place),
            "OMP_NUM_THREADS": "1",
            "INFERENCE_HOME": str(home),
            "ROBOFLOW_API_HOST": _provider.api_url,
            "CACHEGATE_STATE": str(session.state),
            "CACHEGATE_CACHE_ROOT": str(home),
            "CACHEGATE_NODE": "operator",
            **variables,
        }
        with (place / "log").open("w") as log:
            process = subprocess.Popen(
                [PYTHON, HERE / "guarded_process.py", our_packages],
                env=environment,
                cwd=folder or place,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            yield Guarded(process, session)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(30)
            process.stdout.close()

    return run


@pytest.fixture(scope="module")
def guarded(guarding, tmp_path_factory):
    """A guarded process with caches of its own; most tests share it, each with keys of its own."""
    with guarding(tmp_path_factory.mktemp("caches")) as guarded:
        started = guarded.answer()
        assert started.ok, started.trace
        yield guarded


@pytest.fixture
def acme(guarded, provider):
    token, _ = guarded.key("acme")
    provider.grant(token, "*")
    return token


@pytest.fixture
def globex(guarded, provider):
    token, _ = guarded.key("globex")
    provider.grant(token, "*")
    return token


def test_the_owner_loads_and_the_predictions_are_the_same(guarded, acme, filled):
    assert guarded.load(CARS, acme).loaded().prediction == filled.prediction(CARS)
    assert guarded.load(PARENT, acme).loaded().prediction == filled.prediction(PARENT)
    assert guarded.load(ALIAS, acme).loaded().prediction == filled.prediction(CARS)
    assert guarded.by_hand(CARS, acme).loaded().prediction == filled.prediction(CARS)


def test_somebody_elses_model_is_not_there_for_a_tenant_and_nobody_is_asked(guarded, acme, globex, provider):
    guarded.load(CARS, acme).loaded()
    for model in (CARS, PARENT, ALIAS, "acme/nothing/1"):
        outcome = guarded.load(model, globex)
        assert (outcome.exception, outcome.network) == ("ModelNotFoundError", ())
    assert not [one for one in provider.seen("api") if one.headers.get("authorization") == f"Bearer {globex}"]


@pytest.mark.parametrize("key", [None, "", "local", "cg_live_nonsense"])
def test_nobody_is_unauthorised_on_a_warm_cache_and_no_provider_is_asked(guarded, acme, key):
    guarded.load(CARS, acme).loaded()
    outcome = guarded.load(CARS, key)
    assert (outcome.exception, outcome.network) == ("UnauthorizedModelAccessError", ())


def test_a_revoked_key_is_refused_on_a_warm_cache_with_the_model_in_memory(guarded, provider):
    token, key_id = guarded.key("acme")
    provider.grant(token, "*")
    first, second = guarded.load(CARS, token).loaded(), guarded.load(CARS, token).loaded()
    assert first.path == second.path  # the very same instance, kept
    guarded.installation.run("keys", "revoke", key_id)
    assert guarded.load(CARS, token).exception == "UnauthorizedModelAccessError"


def test_an_alias_of_the_provider_leads_to_nobody_elses_model(guarded, globex, provider, monkeypatch):
    monkeypatch.setattr(provider, "aliases", {"globex/sneaky/1": VANS})
    outcome = guarded.load("globex/sneaky/1", globex)
    assert outcome.exception == "ModelNotFoundError"
    assert [one.model_id for one in provider.seen("api")] == ["globex/sneaky/1"]
    assert provider.seen("storage") == []


def test_of_a_narrowed_grant_the_granted_package_loads(guarded, globex, filled):
    guarded.installation.run(
        *("grants", "add", "--tenant", "globex", "--models", MANY),
        *("--packages", SECOND_OF_MANY, "--actions", "read", "infer"),
    )
    try:
        assert guarded.load(MANY, globex).loaded().prediction == filled.prediction(MANY, SECOND_OF_MANY)
        refused = guarded.load(MANY, globex, options={"model_package_id": FIRST_OF_MANY})
        assert not refused.ok
    finally:
        guarded.installation.run("grants", "remove", "--tenant", "globex", "--models", MANY)


def test_a_folder_named_like_a_model_and_a_path_are_read_by_nobody(
    guarding, provider, home, filled, tmp_path
):
    place = tmp_path / "shadow"
    package = next((filled.root / "models-cache").glob("v2-acme-cars-1-*/pkg*"))
    shutil.copytree(package, place / CARS, symlinks=True)
    with guarding(home, folder=place) as guarded:
        assert guarded.answer().ok
        token, _ = guarded.key("acme")
        provider.grant(token, "*")
        for name in (CARS, str(package), f"./{CARS}", str(package / "weights.onnx")):
            outcome = guarded.load(name, token)
            assert (outcome.exception, outcome.network) == ("ModelNotFoundError", ())


def test_offline_mode_no_longer_opens_everything_to_everybody(guarding, filled, tmp_path):
    home = tmp_path / "offline"
    shutil.copytree(filled.root, home, symlinks=True)
    with guarding(home, OFFLINE_MODE="true") as guarded:
        assert guarded.answer().ok
        (acme, _), (globex, _) = guarded.key("acme"), guarded.key("globex")
        for model in (CARS, ALIAS, PARENT):
            assert guarded.load(model, globex).exception == "ModelNotFoundError"
            assert guarded.load(model, None).exception == "UnauthorizedModelAccessError"
        for model in (CARS, ALIAS):
            assert guarded.load(model, acme).loaded().prediction == filled.prediction(CARS)
        guarded.load(GLOBEX_CARS, globex).loaded()


def test_a_process_with_the_operators_own_key_in_its_environment_does_not_start(guarding, home):
    with guarding(home, ROBOFLOW_API_KEY="the-operators-own") as guarded:
        outcome = guarded.answer()
    assert (outcome.ok, outcome.exception) == (False, "Misconfigured")
    assert "the-operators-own" not in outcome.message


def test_every_load_is_on_record(guarded, acme, globex):
    guarded.load(CARS, acme)
    guarded.load(CARS, globex)
    records = [one for one in guarded.installation.records() if one["node"] == "operator"]
    decided = [one for one in records if (one.get("resource") or {}).get("model") == CARS]
    assert {"in-process/load", "in-process/package", "in-process/loaded", "in-process/confirm"} <= {
        one["request"]["route"] for one in decided
    }
    assert all(one["tenant"] == "acme" for one in decided if one["decision"] == "allow")
    assert {one["reason"] for one in decided if one["tenant"] == "globex"} == {"not-permitted"}
    assert acme not in json.dumps(records)
