"""nginx as a reference: it serves a folder as fast as it can (see rivals.py), or passes requests on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from equipment import find_servers
from rivals import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 10.0

_CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    sendfile_max_chunk 512k;
    tcp_nopush off;
    tcp_nodelay on;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""
_FOLDER = "server {{ listen 127.0.0.1:{port}; root {root}; }}"
_PROXY = """\
upstream theirs {{ server {address}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 32m;
        location / {{
            proxy_pass http://theirs;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""


@contextmanager
def nginx_serving(root: Path) -> Iterator[str]:
    """Serve `root`; gives the address."""
    port = free_port()
    with _running(_FOLDER.format(port=port, root=root), port) as url:
        yield url


@contextmanager
def nginx_passing(address: str) -> Iterator[str]:
    """Pass requests to the server at `host:port`, on connections that are kept; gives nginx's own address."""
    port = free_port()
    with _running(_PROXY.format(port=port, address=address), port) as url:
        yield url


@contextmanager
def _running(server: str, port: int) -> Iterator[str]:
    program, _, environment = find_servers()
    folder = Path(tempfile.mkdtemp(prefix="cg-nginx-"))
    user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not read what is ours
    (folder / "nginx.conf").write_text(
        _CONFIGURATION.format(folder=folder, user=user, server=server), encoding="utf-8"
    )
    process = subprocess.Popen(
        [program, "-p", folder, "-c", folder / "nginx.conf"],
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    try:
        _await(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")
