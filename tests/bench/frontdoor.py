"""What the front door adds to a request: `.venv/bin/python tests/bench/frontdoor.py [--quick] [--json FILE]`.

One client sends the same request, a small image to a small model that is loaded, to the real server:
directly, through nginx with `proxy_pass` and kept connections, and through the gateway, which reads the body,
decides, records and checks the answer. The three take turns request by request, in changing order, so that
what else the machine does falls on all. What is added is the difference of a round's quantiles; the figures
are the median of the rounds. `--svg FILE` draws the result.

A workflow that runs the same model takes turns in the same way, directly and through the gateway, which has
had the server describe it once: what is added to it is what a workflow costs that is known.

It also measures nginx that asks the gateway about each request (`checks.py`); with `--checks`, only that.

It needs `.venv-server` (`make test-server`), but for `--checks`. It installs nginx for itself, and leaves
nothing behind.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import checks
from installation import Installation, new_key
from nginx import nginx_passing
from plot import Bar, Panel, write_plot
from program import amount_of, arguments_of, run
from report import Report, console, quantile
from rounds import add_figure, add_row

sys.path.append(str(Path(__file__).parent.parent / "server"))  # the same server and provider as in the tests
sys.path.append(str(Path(__file__).parent.parent / "engine"))

from http_client import image
from provider import Provider
from tenants_models import ALIASES, CARS, tenants_models
from upstream import PYTHON, Server
from workflow_texts import classifying

from gateway.directory.edits import keys, models, tenants
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.operations.session import open_session

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

MODELS = Path(__file__).parent.parent / "engine" / "models.py"
TENANT, ROUTE, WORKERS = "acme", "/infer/classification", 1
WORKFLOW_ROUTE = "/workflows/run"
DIRECT, NGINX, GATEWAY = "direct", "nginx", "gateway"
TITLES = {DIRECT: "the server directly", NGINX: "nginx proxy_pass", GATEWAY: "Cachegate"}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    requests: int  # of each way in a round
    warming: int  # requests before, that load the model, open connections and fill memories


FULL, QUICK = Size(rounds=15, requests=400, warming=50), Size(rounds=3, requests=60, warming=50)
SMOKE = Size(rounds=1, requests=3, warming=3)


class Way:
    """One way to the server, on one connection."""

    def __init__(self, name: str, url: str, key: str, route: str = ROUTE) -> None:
        parts = urlsplit(url)
        self.name = name
        self._path = parts.path + route
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        document = {"model_id": CARS, "image": image()}
        if route == WORKFLOW_ROUTE:
            document = {"specification": classifying(CARS), "inputs": {"image": image()}}
        self._body = json.dumps(document | {"api_key": key}).encode()

    def milliseconds(self) -> float:
        """One request, until its whole answer is there."""
        try:
            return self._timed()
        except ConnectionError:  # the connection was idle for too long, on a busy machine
            self._connection.close()
            return self._timed()

    def _timed(self) -> float:
        began = time.perf_counter()
        self._connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != http.client.OK or b"predict" not in content:
            raise RuntimeError(f"{self.name}: {answer.status} {content[:300]!r}")
        return took


def measure(report: Report, size: Size) -> None:
    """All rounds."""
    with _ways() as (ways, workflows):
        rounds, of_workflows = (_rounds(among, size) for among in (ways, workflows))
    _tell(report, rounds)
    _tell_of_workflows(report, of_workflows)


def _rounds(ways: Sequence[Way], size: Size) -> list[dict[str, list[float]]]:
    """All rounds of these ways. Their connections are opened here: servers close idle ones."""
    for way in ways:
        for _ in range(size.warming):
            way.milliseconds()
    return [_round(ways, size.requests) for _ in range(size.rounds)]


def _round(ways: Sequence[Way], requests: int) -> dict[str, list[float]]:
    """The times of each way, which take turns."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(requests):
        start = number % len(ways)
        for way in (*ways[start:], *ways[:start]):
            times[way.name].append(way.milliseconds())
    return times


def _tell(report: Report, rounds: Sequence[dict[str, list[float]]]) -> None:
    def added(way: str, share: float) -> list[float]:
        return [quantile(one[way], share) - quantile(one[DIRECT], share) for one in rounds]

    count = f"{len(rounds[0][DIRECT]):,} requests a round"
    for suffix, share, target in (("p50", 0.5, 1.0), ("p99", 0.99, None)):
        what = f"what the gateway adds to a prediction, {suffix}, ms; {count}"
        if target is None:
            report.figure(f"proxy_added_{suffix}_ms", median(added(GATEWAY, share)), meaning=what)
        else:
            add_figure(report, f"proxy_added_{suffix}_ms", added(GATEWAY, share), target, what)
        add_row(report, f"nginx_added_{suffix}_ms", added(NGINX, share), f"what nginx adds, {suffix}, ms")
        for way, title in TITLES.items():
            values = [quantile(one[way], share) for one in rounds]
            add_row(report, f"{way}_{suffix}_ms", values, f"{title}: {suffix} of whole requests, ms")


def _tell_of_workflows(report: Report, rounds: Sequence[dict[str, list[float]]]) -> None:
    count = f"{len(rounds[0][DIRECT]):,} requests a round"
    added = [quantile(one[GATEWAY], 0.5) - quantile(one[DIRECT], 0.5) for one in rounds]
    what = f"what the gateway adds to a workflow that is known, p50, ms; {count}"
    add_figure(report, "workflow_known_added_ms", added, 2.0, what)
    for way in (DIRECT, GATEWAY):
        values = [quantile(one[way], 0.5) for one in rounds]
        add_row(report, f"workflow_{way}_p50_ms", values, f"a workflow, {TITLES[way]}: p50, ms")


@contextmanager
def _ways() -> Iterator[tuple[list[Way], list[Way]]]:
    """Everything started: the three ways, and two of them for a workflow."""
    service_key = secrets.token_hex(10)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cg-bench-")))
        files = folder / "tenants"
        listed = tenants_models(files, folder / "core")
        provider = stack.enter_context(Provider(listed, ALIASES).running())
        provider.grant(service_key, "*")
        server = Server(provider.api_url)
        stack.callback(server.stop)
        subprocess.run([PYTHON, MODELS, files], check=True, stdout=subprocess.DEVNULL)
        console.print("waiting for the inference server")
        server.await_ready()
        more = {"CACHEGATE_INFERENCE_URL": server.url, "CACHEGATE_INFERENCE_KEY": service_key}
        installation = stack.enter_context(Installation.made(**more))
        key = asyncio.run(_set_up(installation))
        port = stack.enter_context(installation.serving(WORKERS))
        passing = stack.enter_context(nginx_passing(server.url.removeprefix("http://")))
        front_door = f"http://127.0.0.1:{port}/inference"
        yield (
            [
                Way(DIRECT, server.url, service_key),
                Way(NGINX, passing, service_key),
                Way(GATEWAY, front_door, key),
            ],
            [
                Way(DIRECT, server.url, service_key, WORKFLOW_ROUTE),
                Way(GATEWAY, front_door, key, WORKFLOW_ROUTE),
            ],
        )


async def _set_up(installation: Installation) -> str:
    """A tenant that owns the model, and its key."""
    tenant = parse_tenant_id(TENANT)
    async with open_session(installation.settings) as session:
        now = session.clock.now()
        new = new_key(session.peppers, TENANT, now)

        async def fill(changes: Any) -> None:
            await tenants.create_tenant(changes, tenant_id=tenant, name=TENANT, now=now)
            await models.own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{TENANT}/*")])
            await keys.create_key(changes, key=new.key, digest=new.digest)

        await session.perform("bench.fill", fill)
    return str(new.token)


def draw(report: Report, file: Path) -> None:
    """Bars of what a request takes, each way."""
    rows = {row["name"]: row for row in report.rows}
    panels = []
    for suffix in ("p50", "p99"):
        bars = []
        for way, title in TITLES.items():
            row = rows[f"{way}_{suffix}_ms"]
            bars.append(Bar(title, row["value"], row["min"], row["max"], is_ours=way == GATEWAY))
        panels.append(Panel(f"A prediction, {suffix}, ms", bars, "{:,.2f}"))
    write_plot(file, "A request through the front door", ["One client, one connection each way."], panels)


def main() -> int:
    """Run it."""
    parser = arguments_of(__doc__ or "", "few rounds")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the result there")
    parser.add_argument("--checks", action="store_true", help="measure only what asks the check face")
    chosen: argparse.Namespace = parser.parse_args()
    asked = amount_of(chosen, full=checks.FULL, quick=checks.QUICK, smoke=checks.SMOKE)
    if chosen.checks:
        return run("Checks", lambda report: checks.measure_checks(report, asked), chosen)
    if not PYTHON.exists():
        console.print("no .venv-server here. Run: make test-server")
        return 3

    def drawn(report: Report) -> None:
        if chosen.svg is not None:
            draw(report, chosen.svg)

    def measured(report: Report) -> None:
        measure(report, amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE))
        checks.measure_checks(report, asked)

    return run("Front door", measured, chosen, draw=drawn)


if __name__ == "__main__":
    sys.exit(main())
