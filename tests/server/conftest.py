"""The real inference server behind the gateway, the real SDK in front of it, a weights provider behind both.

    SDK or a plain client ── Gateway (cachegate serve) ── Server (recorder, inference) ── Provider

All live as long as the session; a test has keys of its own, and reads what the server noted since it began.
The server's models are tenants_models.py's. Core models are published but for `grounding_dino/*` and `sam/*`.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # the modules beside us
sys.path.append(str(Path(__file__).parents[1] / "engine"))  # models and provider are the engine's

from gateways import SERVICE_KEY, Front, Upstream, serve
from provider import Provider
from sdk import Sdk
from tenants_models import ALIASES, tenants_models
from upstream import PYTHON, Server

HERE = Path(__file__).parent
ALL_ROUTES = {"CORE_MODEL_OWLV2_ENABLED": "True", "SAM3_3D_OBJECTS_ENABLED": "True"}
"""The flags of those that tenants may use and that a server has only with them."""

FEWER_ROUTES = dict.fromkeys(
    (
        *("CORE_MODEL_CLIP_ENABLED", "CORE_MODEL_PE_ENABLED", "CORE_MODEL_GROUNDINGDINO_ENABLED"),
        *("CORE_MODEL_YOLO_WORLD_ENABLED", "CORE_MODEL_DOCTR_ENABLED", "CORE_MODEL_EASYOCR_ENABLED"),
        *("CORE_MODEL_SAM_ENABLED", "CORE_MODEL_SAM2_ENABLED", "CORE_MODEL_SAM3_ENABLED"),
        *("CORE_MODEL_TROCR_ENABLED", "CORE_MODEL_PPOCR_ENABLED", "LMM_ENABLED", "MOONDREAM2_ENABLED"),
        *("DEPTH_ESTIMATION_ENABLED", "ACTION_RECOGNITION_ENABLED", "GET_MODEL_REGISTRY_ENABLED"),
    ),
    "False",
)
BUILD_SECONDS = 240.0


@pytest.fixture(scope="session")
def _upstream(tmp_path_factory):
    """Server and models are got ready at once: each takes long."""
    if not (PYTHON.exists() and PYTHON.parents[1].joinpath("ready").exists()):
        pytest.fail("no .venv-server here: `make test-server` makes it")
    folder = tmp_path_factory.mktemp("models")
    tenants, core = folder / "tenants", folder / "core"
    with Provider(tenants_models(tenants, core), dict(ALIASES)).running() as provider:
        server = Server(provider.api_url, **ALL_ROUTES)
        try:
            with ThreadPoolExecutor(2) as pool:
                scripts = HERE.parent / "engine" / "models.py", HERE / "core_models.py"
                list(pool.map(_build, scripts, (tenants, core)))
            server.await_ready()
            yield Upstream(server, provider)
        finally:
            server.stop()


def _build(script: Path, folder: Path) -> None:
    done = subprocess.run(
        [PYTHON, script, folder],
        check=False,
        timeout=BUILD_SECONDS,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder.parent), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def _second(_upstream):
    """A second server, without the routes that can be switched off."""
    second = Server(_upstream.provider.api_url, **FEWER_ROUTES)
    try:
        second.await_ready()
        yield second
    finally:
        second.stop()


@pytest.fixture
def second(_second, upstream):
    """The second server, whose notes begin now."""
    _second.notes.mark()
    return _second


@pytest.fixture(scope="session")
def server(_upstream):
    return _upstream.server


@pytest.fixture
def upstream(_upstream):
    """The server, whose notes begin now; nobody but the operator has a right at the provider."""
    provider = _upstream.provider
    provider.reset()
    provider.grant(SERVICE_KEY, "*")
    _upstream.server.notes.mark()
    return _upstream


@pytest.fixture(scope="session")
def sdk():
    running = Sdk()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def _fronts(_upstream, new_installation):
    """Gateways by their settings, each started when it is first asked for."""
    running: dict[Any, Front] = {}

    def find(**settings: str) -> Front:
        wanted = tuple(sorted(settings.items()))
        if wanted not in running:
            running[wanted] = serve(new_installation, _upstream, settings)
        return running[wanted]

    yield find
    for front in running.values():
        front.gateway.stop()
        assert "Traceback" not in front.gateway.log(), front.gateway.log()
        front.installation.verify_audit()


@pytest.fixture
def front(_fronts, upstream):
    """The gateway that most tests are about: its facts and keys are ours."""
    return _fronts()


@pytest.fixture
def front_with(_fronts, upstream):
    """A gateway with other settings: `front_with(INFERENCE_KEY="")`."""
    return _fronts


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items):
    """What ends a server comes after everything that asks it."""
    items.sort(key=lambda item: "second_server_dies" in item.name)
