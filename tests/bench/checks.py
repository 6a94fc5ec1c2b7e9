"""What nginx serves while it asks the gateway about each request, part of `frontdoor.py`.

The same nginx three times, with the shipped `check.conf`: it sends the files by itself, and asks the gateway,
an ASGI application that does nothing on uvicorn, or a second nginx that looks key and path up in a `map`. Its
requests are the `varied` ones of `delivery.py`: twenty tenants, forty keys, two hundred files, the headers of
four clients. nginx and whoever it asks are on one core, the load on another; they take turns.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from client_requests import unguarded_requests, varied
from contender import Contender
from equipment import Equipment, find_servers
from installation import Installation
from ours import SETTINGS, Sizes, furnish, serving_ours
from processes import LOAD_CORE, on_cores, running
from rivals import await_listening, free_port
from rounds import add_figure, add_row, in_rounds
from wrk import send_requests

if TYPE_CHECKING:
    from report import Report
    from workload import Workload
    from wrk import Reads

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "deploy" / "nginx" / "check.conf"
GATEWAY, NOOP, SECOND = "check_gateway", "check_noop", "check_second_nginx"
TITLES = {
    GATEWAY: "nginx asking Cachegate",
    NOOP: "nginx asking an ASGI app that does nothing, on uvicorn",
    SECOND: "nginx asking a second nginx",
}
_MAIN = """
{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {body}
}}
"""
_SECOND = """
    access_log off;
    map_hash_bucket_size 1024;
    map_hash_max_size 65536;
    map "$http_authorization $http_x_original_uri" $is_allowed {{
        default 0;
        include {allowed};
    }}
    map $is_allowed $told {{
        1 200;
        default 401;
    }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_timeout 1h;
        add_header Cachegate-Status $told always;
        location / {{
            if ($is_allowed) {{ return 200; }}
            return 401;
        }}
    }}
"""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float  # of each turn


FULL, QUICK, SMOKE = Size(rounds=9, seconds=3), Size(rounds=2, seconds=1), Size(rounds=1, seconds=0.2)


def measure_checks(report: Report, size: Size) -> None:
    """All rounds."""
    nginx, wrk, environment = find_servers()
    missing = Path("/nonexistent")  # no other rival is started
    equipment = Equipment(nginx=nginx, wrk=wrk, python=missing, caddy=missing, environment=environment)
    with on_cores(LOAD_CORE), Installation.made(**SETTINGS) as installation, ExitStack() as stack:
        furnished = asyncio.run(furnish(installation, Sizes(large=1 << 20)))
        serving = stack.enter_context(serving_ours(installation, furnished))
        workload, ours = serving.workload, serving.contender
        sent = varied(workload)
        servers = _Servers(equipment, installation.folder, workload, stack)
        contenders = [
            servers.asking(GATEWAY, ours.port, ours.roots),
            servers.asking(NOOP, *servers.noop()),
            servers.asking(SECOND, *servers.second()),
        ]
        for one in contenders:
            one.verify(sent)
            if one.is_guarded:
                one.verify_refusals(unguarded_requests(workload))
        rounds = in_rounds(
            contenders,
            size.rounds,
            lambda one: send_requests(equipment, one, sent, size.seconds),
            lambda: None,
            is_warmed=True,
        )
    for name, title in TITLES.items():
        add_row(report, f"{name}_per_s", rounds.values(name, _per_second), f"{title}: requests a second")
        add_row(report, f"{name}_cpu_us", rounds.values(name, _cpu_us), f"{title}: CPU of a request, us")
    what = "files from nginx that asks the gateway, requests a second over the same nginx that asks"
    noop, second = (rounds.ratios(GATEWAY, other, _per_second) for other in (NOOP, SECOND))
    add_figure(report, "check_vs_nginx_noop", noop, 0.9, f"{what} an app that does nothing")
    spread = f"{min(second):.2f} to {max(second):.2f} in {len(second)} rounds"
    report.figure("check_vs_second_nginx", median(second), meaning=f"{what} a second nginx; {spread}")


class _Servers:
    """Starts them, each in a folder of its own; all end with the stack."""

    def __init__(self, equipment: Equipment, folder: Path, workload: Workload, stack: ExitStack) -> None:
        self._equipment = equipment
        self._folder = folder
        self._workload = workload
        self._stack = stack

    def asking(self, name: str, port: int, roots: tuple[int, ...]) -> Contender:
        """nginx with the shipped file, which asks whoever listens on this port."""
        folder, own = self._folder_of(name), free_port()
        text = SHIPPED.read_text(encoding="utf-8")
        for old, new in (
            ("127.0.0.1:8080", f"127.0.0.1:{port}"),
            ("listen 80;", f"listen 127.0.0.1:{own} backlog=2048;"),
            ("/var/cache/inference", str(self._folder / "cache")),
            ("/var/log/nginx", str(folder)),
            ("    # Blobs, from the cache.", f"{self._locations()}\n    # Blobs, from the cache."),
        ):
            if old not in text:
                raise RuntimeError(f"{SHIPPED.name} has no {old}")
            text = text.replace(old, new)
        pid = self._nginx(name, text, own)
        return Contender(name, TITLES[name], own, (pid, *roots), is_guarded=name != NOOP)

    def _locations(self) -> str:
        """The files at their paths, as if nginx had a copy of them."""
        files = [item for tenant in self._workload.tenants for item in tenant.files]
        return "\n".join(f"    location = {item.path} {{ alias {item.blob}; }}" for item in files)

    def noop(self) -> tuple[int, tuple[int, ...]]:
        """The application that does nothing, on uvicorn with uvloop and httptools."""
        port = free_port()
        options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
        served = ("noop_app:app", "--app-dir", str(HERE), "--host", "127.0.0.1", "--port", str(port))
        return port, (self._run("noop", (sys.executable, "-m", "uvicorn", *served, *options), port),)

    def second(self) -> tuple[int, tuple[int, ...]]:
        """A second nginx, which knows every key with every path that it may read."""
        port, allowed = free_port(), self._folder_of("second") / "allowed"
        known = [f"Bearer {token} {item.path}" for _, token, item in self._workload.readers()]
        allowed.write_text("".join(f'"{one}" 1;\n' for one in known), encoding="utf-8")
        return port, (self._nginx("second", _SECOND.format(port=port, allowed=allowed), port),)

    def _nginx(self, name: str, body: str, port: int) -> int:
        folder = self._folder_of(name)
        user = "user root root;\n" if folder.owner() == "root" else ""  # its own user may not read our folder
        config = folder / "nginx.conf"
        config.write_text(_MAIN.format(folder=folder, body=body, user=user), encoding="utf-8")
        return self._run(name, (self._equipment.nginx, "-p", folder, "-c", config, "-e", "stderr"), port)

    def _run(self, name: str, arguments: tuple[str | Path, ...], port: int) -> int:
        log = self._folder_of(name) / "log"
        pid = self._stack.enter_context(running(arguments, log, self._equipment.environment))
        await_listening(name, port, log)
        return pid

    def _folder_of(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder


def _per_second(reads: Reads) -> float:
    return reads.per_second


def _cpu_us(reads: Reads) -> float:
    return reads.cpu_us
