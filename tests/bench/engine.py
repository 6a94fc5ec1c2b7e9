"""What the gateway costs the engine: `.venv/bin/python tests/bench/engine.py [--quick] [--json FILE]`.

Two things are measured. The unmodified engine loads a 140 MiB model into an empty home, alternately straight
from nginx, with metadata of the provider, and through the gateway in front of the same files: `load_vs_nginx`
is the gateway's median over nginx's. And one client requests metadata that the gateway has cached, over one
connection. It needs `.venv-engine` (`make test-engine`), installs nginx for itself, and leaves nothing
behind.
"""

from __future__ import annotations

import http.client
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

from installation import Installation
from nginx import nginx_serving
from program import amount_of, arguments_of, run
from report import Report, console, quantile
from rivals import free_port

sys.path.append(str(Path(__file__).parent.parent / "engine"))  # the same engine and provider as in its tests

from catalogue import ALIASES, CARS, LARGE, catalogue
from provider import WEIGHTS, Provider
from tenant import ASK_EVERY_TIME, PYTHON, Engine

TENANT, WORKERS = "acme", 2


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    loads: int  # each way
    answers: int


FULL, QUICK = Size(loads=25, answers=5_000), Size(loads=5, answers=1_000)
SMOKE = Size(loads=1, answers=20)


@dataclass(frozen=True)
class Scene:
    """Everything that takes part."""

    engine: Engine
    provider: Provider
    folder: Path
    key: str

    def seconds_to_load(self, api_url: str) -> float:
        """One load in a process and a home of its own; the process has imported the engine before."""
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as home,
            self.engine.client(Path(home), ROBOFLOW_API_HOST=api_url, **ASK_EVERY_TIME) as client,
        ):
            return client.load(LARGE, self.key).loaded().seconds


def measure_loads(report: Report, size: Size, scene: Scene, gateway_url: str) -> None:
    """In turns, so that what else the machine does falls on both."""
    ours, theirs = [], []
    for url in (scene.provider.api_url, gateway_url):
        scene.seconds_to_load(url)  # pins, page cache, facts: what only a first load pays
    for _ in range(size.loads):
        theirs.append(scene.seconds_to_load(scene.provider.api_url))
        ours.append(scene.seconds_to_load(gateway_url))
    report.figure(
        "load_vs_nginx",
        quantile(ours, 0.5) / quantile(theirs, 0.5),
        target=1.05,
        meaning=f"a 140 MiB model, median of {size.loads} cold loads, over straight from nginx",
    )
    report.row("load_seconds_gateway", quantile(ours, 0.5), "median through the gateway")
    report.row("load_seconds_nginx", quantile(theirs, 0.5), "median straight from nginx")


def measure_metadata(report: Report, size: Size, scene: Scene, port: int) -> None:
    """One connection that is kept, one request after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    target, headers = f"{WEIGHTS}?{urlencode({'modelId': CARS})}", {"Authorization": f"Bearer {scene.key}"}
    taken = []
    for _ in range(size.answers):
        started = time.perf_counter()
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        answer.read()
        taken.append((time.perf_counter() - started) * 1000)
        if answer.status != http.client.OK:
            raise RuntimeError(f"the gateway answered {answer.status}")
    connection.close()
    report.figure(
        "metadata_p50_ms",
        quantile(taken, 0.5),
        target=2.0,
        meaning="metadata that the gateway has, one kept connection",
    )
    report.spread("metadata_ms", taken, "the same")


def run_command(installation: Installation, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=installation.environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def fill(scene: Scene, root: Path) -> None:
    """What the operator's own engine does: load once, straight from the provider."""
    variables = {"ROBOFLOW_API_HOST": scene.provider.api_url, "OFFLINE_MODE_WARM_UP": "true"}
    with scene.engine.client(root, **variables) as operator:
        for model in (CARS, LARGE):
            operator.load(model, scene.key).loaded()


def static_files(provider: Provider, root: Path) -> Path:
    """The storage as a folder: every file at its path."""
    for model in provider.models.values():
        for package in model.packages:
            for file in package.files:
                if file.path is not None:
                    place = root / provider.bucket / model.model_id / package.package_id / file.handle
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(file.path)
    return root


def measure(report: Report, size: Size) -> None:
    """Set everything up, measure, take it down."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cg-bench-")))
        engine = Engine()
        stack.callback(engine.stop)
        engine.build_models(folder / "models")
        provider = stack.enter_context(Provider(catalogue(folder / "models"), ALIASES).running())
        scene = Scene(engine, provider, folder, secrets.token_hex(10))
        provider.grant(scene.key, f"{TENANT}/*")
        provider.files_at = stack.enter_context(nginx_serving(static_files(provider, folder / "static")))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        settings = {
            "CACHEGATE_PUBLIC_URL": url,
            "CACHEGATE_UPSTREAM": provider.api_url,
            "CACHEGATE_PRIVATE_UPSTREAMS": "on",
        }
        installation = stack.enter_context(Installation.made(**settings))
        fill(scene, installation.folder / "cache")
        run_command(installation, "tenants", "create", TENANT)
        run_command(installation, "models", "own", TENANT, f"{TENANT}/*")
        digest = sha256(scene.key.encode()).hexdigest()
        run_command(installation, "keys", "import", "--tenant", TENANT, "--sha256", digest)
        stack.enter_context(installation.serving(WORKERS, port))
        measure_metadata(report, size, scene, port)
        measure_loads(report, size, scene, url)


def main() -> int:
    """Measure, print, write."""
    chosen = arguments_of(str(__doc__), "fewer of everything").parse_args()
    if not PYTHON.exists():
        console.print("no .venv-engine here. Run: make test-engine")
        return 3
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    return run("The engine through the gateway", lambda report: measure(report, size), chosen)


if __name__ == "__main__":
    sys.exit(main())
