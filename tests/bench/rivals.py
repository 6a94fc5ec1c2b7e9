"""The rivals: what people put in front of files today, each set up as its own makers would.

nginx has `sendfile` in chunks of 512 KiB and `tcp_nopush off`: on the loopback that is its fastest by far,
and what we compare with. Where a guard is asked, it is a second nginx on a unix socket with one comparison in
it: no guard that does anything could answer sooner.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contender import Contender, Workload
from processes import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from equipment import Equipment

START_SECONDS = 30.0
APPS = Path(__file__).with_name("rival_apps.py")

_NGINX = """
{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    sendfile_max_chunk 512k;
    tcp_nopush off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {body}
}}
"""
_GUARD = """
    server {{
        listen unix:{socket};
        location / {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            return 204;
        }}
    }}
"""
_ASKING = """
    upstream guard {{ server unix:{socket}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        auth_request /_guard;
        location = /_guard {{
            internal;
            proxy_pass http://guard;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
        }}
        {locations}
    }}
"""
_STATIC = "server {{ {options} listen 127.0.0.1:{port} backlog=2048; {locations} }}"
_CADDY = """
{{
    admin off
    auto_https off
    persist_config off
}}
http://:{port} {{
    bind 127.0.0.1
    forward_auth unix/{socket} {{
        uri /
    }}
    {rewrites}
    root * {blobs}
    file_server
}}
"""


class Rivals:
    """Starts them, each in a folder of its own; all end with the stack."""

    def __init__(self, equipment: Equipment, folder: Path, workload: Workload, stack: ExitStack) -> None:
        self._equipment = equipment
        self._folder = folder
        self._workload = workload
        self._stack = stack

    def nginx_static(self, name: str, title: str, options: str = "") -> Contender:
        """Files without a guard."""
        port = free_port()
        body = _STATIC.format(port=port, locations=self._locations(), options=options)
        return Contender(name, title, port, (self._nginx(name, body, port),), is_guarded=False)

    def nginx_auth_request(self) -> Contender:
        """nginx, which asks a second one."""
        name, port = "nginx_auth_request", free_port()
        guard, place = self._guard(name)
        pid = self._nginx(name, _ASKING.format(port=port, socket=place, locations=self._locations()), port)
        return Contender(name, "nginx auth_request", port, (pid, guard))

    def caddy(self) -> Contender:
        """Caddy, which asks an nginx."""
        name, port = "caddy_forward_auth", free_port()
        guard, place = self._guard(name)
        items = (self._workload.small, self._workload.large)
        rewrites = "\n    ".join(f"rewrite {item.path} /{item.blob.name}" for item in items)
        config = self._folder_of(name) / "Caddyfile"
        blobs = self._workload.small.blob.parent
        config.write_text(_CADDY.format(port=port, socket=place, rewrites=rewrites, blobs=blobs))
        arguments = (self._equipment.caddy, "run", "--adapter", "caddyfile", "--config", config)
        pid = self._run(name, arguments, port)
        return Contender(name, "Caddy forward_auth", port, (pid, guard))

    def python(self, name: str, title: str, shape: str) -> Contender:
        """One of `rival_apps.py`."""
        port, config = free_port(), self._folder_of(name) / "config.json"
        items = (self._workload.small, self._workload.large)
        told = {
            "keys": {self._workload.token: "bench"},
            "files": {item.path: str(item.blob) for item in items},
        }
        config.write_text(json.dumps(told))
        return Contender(
            name,
            title,
            port,
            (self._run(name, (self._equipment.python, APPS, shape, str(port), config), port),),
        )

    def _guard(self, name: str) -> tuple[int, Path]:
        place = self._folder / f"{name}.sock"
        body = _GUARD.format(socket=place, token=self._workload.token)
        return self._nginx(f"{name}_guard", body, place), place

    def _nginx(self, name: str, body: str, where: int | Path) -> int:
        folder = self._folder_of(name)
        user = "user root root;\n" if folder.owner() == "root" else ""  # its own user may not read our folder
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, body=body, user=user))
        return self._run(name, (self._equipment.nginx, "-p", folder, "-c", config, "-e", "stderr"), where)

    def _run(self, name: str, arguments: tuple[str | Path, ...], where: int | Path) -> int:
        log = self._folder_of(name) / "log"
        pid = self._stack.enter_context(running(arguments, log, self._equipment.environment))
        _await_listening(name, where, log)
        return pid

    def _locations(self) -> str:
        items = (self._workload.small, self._workload.large)
        return " ".join(f"location = {item.path} {{ alias {item.blob}; }}" for item in items)

    def _folder_of(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder


@contextmanager
def serving_rivals(
    equipment: Equipment, folder: Path, workload: Workload, *, with_all: bool
) -> Iterator[list[Contender]]:
    """Those that a figure compares with, or all, on the servers' core."""
    folder.mkdir()
    with ExitStack() as stack:
        rivals = Rivals(equipment, folder, workload, stack)
        started = [
            rivals.nginx_auth_request(),
            rivals.nginx_static("nginx_static", "nginx static, no guard"),
            rivals.python("hosted_shape", "FastAPI middleware with a cache", "middleware"),
        ]
        if with_all:
            cached = "open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;"
            started += [
                rivals.nginx_static(
                    "nginx_open_file_cache", "nginx static, open_file_cache, no guard", cached
                ),
                rivals.caddy(),
                rivals.python("fastapi_dependency", "FastAPI dependency, FileResponse", "dependency"),
            ]
        yield started


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_listening(name: str, where: int | Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        family = socket.AF_INET if isinstance(where, int) else socket.AF_UNIX
        with socket.socket(family) as probe:
            if probe.connect_ex(("127.0.0.1", where) if isinstance(where, int) else str(where)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')}")
