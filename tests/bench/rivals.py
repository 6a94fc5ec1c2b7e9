"""The rivals: what people put in front of files today, each set up as its own makers would.

nginx has `sendfile` in chunks of 512 KiB and `tcp_nopush off`: on the loopback that is its fastest by far,
and what we compare with. Where a guard is asked, it is a second nginx on a unix socket, which looks key and
path, or a link's path and signature, up in a `map` of all that are allowed: no guard that does anything could
answer sooner. The guards in Python give our own answers from memory (`rival_apps.py`).
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contender import Contender
from processes import running

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from client_requests import Request, RequestSet
    from contender import Answer
    from equipment import Equipment
    from workload import Item, Workload

START_SECONDS = 30.0
APPS = Path(__file__).with_name("rival_apps.py")
OWNER = "bench"  # the tenant of the large files
REFUSALS = ("hidden", "unknown_key", "no_key", "no_route")  # sets whose requests all have one answer
OF_NO_REQUEST = (*REFUSALS, "absent", "scan")  # the last two are not found, as what is hidden
_OF_THE_SERVER = {"date", "connection", "keep-alive", "server"}

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
    map_hash_bucket_size 1024;
    map_hash_max_size 65536;
    map "$http_authorization $http_x_original_uri" $is_allowed {{
        default 0;
        include {allowed};
    }}
    server {{
        listen unix:{socket};
        keepalive_timeout 1h;
        location / {{
            if ($is_allowed) {{ return 204; }}
            return 401;
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
            proxy_set_header X-Original-URI $request_uri;
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
        header_up X-Original-URI {{http.request.orig_uri}}
    }}
    root * {tree}
    file_server
}}
"""


class Rivals:
    """Starts them, each in a folder of its own; all end with the stack."""

    def __init__(
        self,
        equipment: Equipment,
        folder: Path,
        workload: Workload,
        stack: ExitStack,
        answered: Mapping[str, Sequence[tuple[Request, Answer]]],
    ) -> None:
        self._answered = answered
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
        """Caddy, which asks an nginx. Its files are links in a tree: it looks rewrites up one by one."""
        name, port = "caddy_forward_auth", free_port()
        guard, place = self._guard(name)
        tree = self._folder_of(name) / "tree"
        for path, item in self._served().items():
            link = tree / path.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(item.blob)
        config = self._folder_of(name) / "Caddyfile"
        config.write_text(_CADDY.format(port=port, socket=place, tree=tree))
        arguments = (self._equipment.caddy, "run", "--adapter", "caddyfile", "--config", config)
        pid = self._run(name, arguments, port)
        return Contender(name, "Caddy forward_auth", port, (pid, guard))

    def python(self, name: str, title: str, shape: str) -> Contender:
        """One of `rival_apps.py`."""
        port, config = free_port(), self._folder_of(name) / "config.json"
        config.write_text(json.dumps(self._told()))
        arguments = (self._equipment.python, APPS, shape, str(port), config)
        return Contender(name, title, port, (self._run(name, arguments, port),))

    def _told(self) -> dict[str, Any]:
        """What a guard in Python has in memory: keys, the paths of large files, and our answers."""
        workload, bodies = self._workload, _Bodies()
        keys = {token: tenant.name for tenant in workload.tenants for token in tenant.tokens}
        signers = {item.path: tenant.name for tenant in workload.tenants for item in tenant.files}
        signers |= {item.path: OWNER for item in workload.parts}
        links = {**workload.links, **workload.part_links}
        keys |= {link.rpartition("sig=")[2]: signers[path] for path, link in links.items()}
        large = [workload.large, *workload.parts]
        paths = {path: str(one.blob) for one in large for path in (one.path, one.link_path)}
        answers: dict[tuple[str, ...], Any] = {}
        by_request = [
            one for name, pairs in self._answered.items() if name not in OF_NO_REQUEST for one in pairs
        ]
        for request, answer in by_request:
            conditions = (request.header(name) or "" for name in ("range", "if-none-match"))
            answers[request.tenant, request.method, request.target, *conditions] = bodies.kept(answer)
        return {
            "keys": {**keys, workload.token: OWNER},
            "large": paths,
            "answers": list(answers.items()),
            "refusals": {name: bodies.kept(self._answered[name][0][1]) for name in REFUSALS},
            "bodies": list(bodies),
        }

    def _guard(self, name: str) -> tuple[int, Path]:
        place, allowed = self._folder / f"{name}.sock", self._folder_of(name) / "allowed"
        workload = self._workload
        readers = [
            *workload.readers(),
            *((None, workload.token, one) for one in (workload.large, *workload.parts)),
        ]
        known = [f"Bearer {token} {item.path}" for _, token, item in readers]
        known += [f" {link}" for link in (*workload.links.values(), *workload.part_links.values())]
        allowed.write_text("".join(f'"{one}" 1;\n' for one in known))
        body = _GUARD.format(socket=place, allowed=allowed)
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
        await_listening(name, where, log)
        return pid

    def _served(self) -> dict[str, Item]:
        """Every file by each path at which it is served: its own, and that of its link."""
        small = [item for tenant in self._workload.tenants for item in tenant.files]
        every = [*small, self._workload.large, *self._workload.parts]
        return {path: item for item in every for path in (item.path, item.link_path)}

    def _locations(self) -> str:
        served = self._served().items()
        return "\n".join(f"location = {path} {{ alias {item.blob}; }}" for path, item in served)

    def _folder_of(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder


class _Bodies(list[str]):
    """The bodies of answers, each once: many answers have the same."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[bytes, int] = {}

    def kept(self, answer: Answer) -> Any:
        """The answer as `rival_apps.py` reads it. Its server makes the date, and the connection's headers."""
        if answer.body not in self._places:
            self._places[answer.body] = len(self)
            self.append(answer.body.decode("latin-1"))
        headers = {name: value for name, value in answer.headers if name.lower() not in _OF_THE_SERVER}
        return answer.status, headers, self._places[answer.body]


@contextmanager
def serving_rivals(
    equipment: Equipment,
    folder: Path,
    workload: Workload,
    names: Collection[str],
    answered: Mapping[str, Sequence[tuple[Request, Answer]]],
) -> Iterator[list[Contender]]:
    """Those with these names, on the servers' core. `answered` is what the Python ones answer, by set."""
    folder.mkdir()
    with ExitStack() as stack:
        rivals = Rivals(equipment, folder, workload, stack, answered)
        cached = "open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;"
        starts: dict[str, Callable[[], Contender]] = {
            "nginx_auth_request": rivals.nginx_auth_request,
            "nginx_static": lambda: rivals.nginx_static("nginx_static", "nginx static, no guard"),
            "hosted_shape": lambda: rivals.python(
                "hosted_shape", "FastAPI middleware with a cache", "middleware"
            ),
            "fastapi_dependency": lambda: rivals.python(
                "fastapi_dependency", "FastAPI dependency", "dependency"
            ),
            "nginx_open_file_cache": lambda: rivals.nginx_static(
                "nginx_open_file_cache", "nginx static, open_file_cache, no guard", cached
            ),
            "caddy_forward_auth": rivals.caddy,
        }
        yield [start() for name, start in starts.items() if name in names]


def verify_same_headers(ours: Contender, theirs: Contender, sets: Iterable[RequestSet]) -> None:
    """Raises when an answer of theirs has other headers than ours: fewer would be an advantage."""
    for one in sets:
        request = one.requests[0].refreshed()
        [mine], [other] = ours.answers([request]), theirs.answers([request])
        differing = _names(mine) ^ _names(other)
        if differing:
            raise RuntimeError(
                f"{theirs.title} differs in the headers {', '.join(sorted(differing))} of an answer to "
                f"{request.method} {request.target} of the set {one.name!r}"
            )


def _names(answer: Answer) -> set[str]:
    return {name.lower() for name, _ in answer.headers} - _OF_THE_SERVER


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_listening(name: str, where: int | Path, log: Path) -> None:
    """Until somebody listens on this port or path."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        family = socket.AF_INET if isinstance(where, int) else socket.AF_UNIX
        with socket.socket(family) as probe:
            if probe.connect_ex(("127.0.0.1", where) if isinstance(where, int) else str(where)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')}")
