"""nginx that serves a folder as fast as it can (see rivals.py): the reference for a load."""

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
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def nginx_serving(root: Path) -> Iterator[str]:
    """Serve `root`; gives the address."""
    program, _, environment = find_servers()
    folder = Path(tempfile.mkdtemp(prefix="cg-nginx-"))
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not read what is ours
    (folder / "nginx.conf").write_text(
        _CONFIGURATION.format(folder=folder, port=port, root=root, user=user), encoding="utf-8"
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
