"""The examples of the documents: an app that serves files runs as the page says, and the page shows it whole.

The one that runs models is in `tests/engine/test_app.py`.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.sources import load_settings
from gateway.operations.session import fact_server
from tests.conftest import wait_until
from tests.http.app_servers import running

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PAGES = EXAMPLES.parent / "operators"
WEIGHTS = b"weights of acme\n"


def test_the_page_shows_the_examples_as_they_are_run():
    pages = [(PAGES / name).read_text() for name in ("in-your-app.md", "audit-delivery.md")]
    for example in EXAMPLES.glob("*.py"):
        assert any(f"```python\n{example.read_text()}```" in page for page in pages), example.name


@pytest.mark.slow
def test_an_app_that_is_checked_by_types_finds_ours(tmp_path):
    wrong = (EXAMPLES / "files_app.py").read_text().replace("CacheFile(decided)", "CacheFile(decided.secret)")
    (tmp_path / "wrong.py").write_text(wrong)
    checked = {}
    for app in (EXAMPLES / "files_app.py", tmp_path / "wrong.py"):
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", app]
        done = subprocess.run(command, cwd=EXAMPLES.parents[1], capture_output=True, text=True, check=False)
        checked[app.name] = done.stdout
    assert "no issues" in checked["files_app.py"]
    assert "[arg-type]" in checked["wrong.py"]


def test_the_app_serves_files_to_those_who_may_read_them(installation_here, new_wire, tmp_path):
    installation = installation_here
    models = {"acme/cars/1": WEIGHTS, "globex/cars/1": b"weights of globex\n"}
    write_sample_cache(
        installation.cache_root,
        [SampleModel(model_id=one, packages={"pkgA1": {"w.onnx": text}}) for one, text in models.items()],
    )
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    key = installation.json("keys", "create", "--tenant", "acme")
    with fact_server(load_settings(installation.variables())) as url:
        environment = installation.variables() | {"CACHEGATE_REDIS_URL": url}
        with running("uvicorn", "files_app:app", new_wire(), environment, tmp_path) as served:

            def get(model, token=key["token"]):
                return served.wire.get(f"/files/{model}/-/pkgA1/w.onnx", token)

            def serves():
                assert served.process.poll() is None, served.log()
                with suppress(OSError):
                    return get("acme/cars/1").status == 200
                return False

            wait_until(serves)
            assert get("acme/cars/1").body == WEIGHTS
            hidden, absent = get("globex/cars/1"), get("globex/none/1")
            assert (
                (hidden.status, len(hidden.body))
                == (absent.status, len(absent.body))
                == (404, len(hidden.body))
            )
            assert get("acme/cars/1", None).status == 401
            assert served.wire.get("/docs", key["token"]).status == 404
            installation.run("keys", "revoke", key["key_id"])
            assert get("acme/cars/1").status == 401
    assert "Traceback" not in served.log()
