"""A platform that knows keys and models, over a socket, and gateways that ask it.

The platform is minimal: it answers as a test tells it to about a key and a model, as the real one would by
its `stat`, and counts. Gateways are real ones with several workers; each test has keys of its own.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache

CARS, TRUCKS, OPEN = "acme/cars/1", "acme/trucks/2", "open/demo/1"
PUBLIC_URL = "https://gateway.example"
CONTENT = b"the weights of a model\n"


@dataclass
class Platform:
    """What it says, and what it was asked."""

    rights: dict[str, set[str]] = field(default_factory=dict)
    says: dict[tuple[str, str | None], int] = field(default_factory=dict)  # a key and a model, or any
    weights: dict[str, int] = field(default_factory=dict)  # what `weights` says to a key, whatever the model
    raw: dict[str, bytes] = field(default_factory=dict)  # a body to say it with
    package: str = "pkg1"
    status: int | None = None  # of everything
    delay_seconds: float = 0.0
    may_answer: threading.Event = field(default_factory=threading.Event)  # until then, nothing is answered
    weights_asked: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    url: str = ""

    def new_key(self, *models: str) -> str:
        key = secrets.token_hex(10)
        self.rights[key] = set(models)
        return key

    def answer(self, key: str, model: str) -> int:
        with self.lock:
            self.asked.append((key, model))
        self.may_answer.wait()
        time.sleep(self.delay_seconds)
        forced = self.status or self.says.get((key, model)) or self.says.get((key, None))
        if forced:
            return forced
        if key not in self.rights:
            return 401
        return 200 if model in self.rights[key] else 403

    def questions(self, key: str) -> list[str]:
        return [model for one, model in self.asked if one == key]


def metadata(model: str, package_id: str = "pkg1") -> dict[str, Any]:
    """What `weights` says of a model; for `stat`, more than is needed."""
    file = {
        "fileHandle": "weights.onnx",
        "downloadUrl": "https://storage.example/x?sig=s",
        "md5Hash": md5(CONTENT, usedforsecurity=False).hexdigest(),
    }
    package = {
        "type": "external-model-package-v1",
        "packageId": package_id,
        "packageManifest": {"type": "onnx-model-package-v1"},
        "packageFiles": [file],
    }
    return {
        "type": "external-model-metadata-v1",
        "modelId": model,
        "modelArchitecture": "resnet",
        "taskType": "classification",
        "modelPackages": [package],
    }


@pytest.fixture(scope="session")
def _platform():
    platform = Platform()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urlsplit(self.path)
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            model = parse_qs(url.query)["modelId"][0]
            package = platform.package
            if url.path == "/models/v1/external/stat":
                status = platform.answer(key, model)
            else:
                status = 200 if model in platform.rights.get(key, ()) else 403
                status = platform.weights.get(key, status)
                platform.weights_asked.append((key, model))
                platform.may_answer.wait()
            said = {"modelMetadata": metadata(model, package)} if status == 200 else {"error": "no"}
            body = platform.raw.get(key) or json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing is printed."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request, client_address):
            """Clients may leave."""

    server = Server(("127.0.0.1", 0), Handler)
    platform.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield platform
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def platform(_platform):
    """The platform as it is at first."""
    _calm(_platform)
    yield _platform
    _calm(_platform)


def _calm(platform):
    platform.status, platform.delay_seconds = None, 0.0
    platform.may_answer.set()
    platform.package = "pkg1"
    for told in (platform.says, platform.weights, platform.raw):
        told.clear()


@dataclass
class Asking:
    """A gateway that asks the platform."""

    installation: Any
    gateway: Any

    def get(self, model: str, key: str, **more: Any) -> Any:
        return self.gateway.wire.get(f"/v1/models/{model}/-/pkg1/weights.onnx", key, **more)

    def link(self, model: str, key: str) -> str:
        """The path and query of a link that is handed out for the file."""
        answer = self.gateway.wire.get(f"/models/v1/external/weights?modelId={quote(model, safe='')}", key)
        assert answer.status == 200, answer.body
        [package] = answer.json()["modelMetadata"]["modelPackages"]
        url: str = package["packageFiles"][0]["downloadUrl"]
        assert url.startswith(PUBLIC_URL)
        return url.removeprefix(PUBLIC_URL)

    def hook_headers(
        self, body: bytes, *, secret: bytes | None = None, at: float | None = None
    ) -> dict[str, str]:
        """The header that signs a webhook."""
        moment = str(int(time.time() if at is None else at))  # noqa: TID251 -- a sender has a clock
        key = bytes.fromhex((self.installation.state / "signing" / "hook.key").read_text().strip())
        mac = hmac.new(secret or key, moment.encode() + b"." + body, "sha256").hexdigest()
        return {"Cachegate-Signature": f"t={moment},v1={mac}"}

    def post_hook(
        self, body: bytes, *, secret: bytes | None = None, at: float | None = None, **more: str
    ) -> Any:
        """A webhook, in the bytes of a plain sender."""
        headers = self.hook_headers(body, secret=secret, at=at)
        headers |= {"Content-Length": str(len(body)), **more}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /hooks/v1/authority HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{lines}\r\n"
        return self.gateway.wire.send(head.encode() + body)

    def end(self, *, keys: tuple[str, ...] = (), models: tuple[str, ...] = ()) -> Any:
        hashes = [sha256(key.encode()).hexdigest() for key in keys]
        return self.post_hook(json.dumps({"keys_sha256": hashes, "models": models}).encode())


@pytest.fixture(scope="session")
def serve(new_installation, _platform):
    """Start a gateway: `serve("name", workers=1, ALLOW_SECONDS="60")`."""
    started = []

    def start(name, *, workers=1, **settings):
        environment = {
            "AUTHORITY": "platform",
            "UPSTREAM": _platform.url,
            "PRIVATE_UPSTREAMS": "on",
            "PUBLIC_URL": PUBLIC_URL,
            "UNKNOWN_KEY_QUESTIONS": "10000",  # these tests make up many keys, fast or slowly
            **settings,
        }
        installation = new_installation(
            name, **{f"CACHEGATE_{key}": value for key, value in environment.items()}
        )
        packages = {"pkg1": {"weights.onnx": CONTENT}}
        write_sample_cache(
            installation.cache_root,
            [SampleModel(model_id=model, packages=packages) for model in (CARS, TRUCKS, OPEN)],
        )
        installation.run("models", "publish", "open/*")
        gateway = installation.serve(workers=workers)
        started.append(Asking(installation, gateway))
        return started[-1]

    yield start
    for asking in started:
        asking.gateway.stop()
        assert "Traceback" not in asking.gateway.log(), asking.gateway.log()
        asking.installation.verify_audit()


@pytest.fixture(scope="session")
def asking(serve):
    """A gateway that believes the platform for as long as it may."""
    return serve("platform")


@pytest.fixture(scope="session")
def forgetful(serve):
    """One that believes it for a second."""
    return serve("forgetful", ALLOW_SECONDS="1", DENY_SECONDS="1")
