"""A small weights provider over a real socket, and an installation in front of it.

It answers what a test tells it to, byte for byte, and keeps every request. One server is both the API and
the storage. A file's URL carries a signature that is not verified; it is there to be searched for where it
must not be. Standard library only.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, urlsplit

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits.keys import create_key
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId

WEIGHTS, STAT = "/models/v1/external/weights", "/models/v1/external/stat"
SECRET = "b3f1c2d4e5a697887766554433221100"  # the provider's signature in every URL of its own
PUBLIC_URL = "https://models.example/gw"


def digest_of(content):
    return md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    path: str
    pairs: list
    headers: dict


@dataclass
class Behaviour:
    """A fault that the storage simulates."""

    status: int | None = None
    headers: dict = field(default_factory=dict)
    has_ranges: bool = True
    refuses_head: bool = False
    shifts_ranges: bool = False
    breaks_off_after: int | None = None
    pause_seconds: float = 0.0  # after each piece


class WeightsProvider:
    """The server; `answers` maps (path, model id, start mark) to a status and a body."""

    def __init__(self):
        self.answers = {}
        self.files = {}
        self.storage = Behaviour()
        self.is_silent = False
        self.delay_seconds = 0.0
        self.seen = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def asked(self, path=None):
        return [one for one in self.seen if path in (None, one.path)]

    def fetched(self):
        return [one for one in self.seen if one.path.startswith("/files/")]

    def file_url(self, model, package, handle, bucket="files"):
        return f"{self.url}/{bucket}/{quote(f'{model}/{package}/{handle}')}?X-Goog-Signature={SECRET}"

    def metadata(self, model, packages, **more):
        """The metadata of a model, as it is on the wire: `packages` maps ids to contents by handle."""
        described = []
        for package, contents in packages.items():
            files = []
            for handle, content in contents.items():
                self.files[f"/files/{quote(f'{model}/{package}/{handle}')}"] = content
                entry = {"fileHandle": handle, "downloadUrl": self.file_url(model, package, handle)}
                if not handle.endswith(".txt"):  # those have no digest
                    entry["md5Hash"] = digest_of(content)
                files.append(entry)
            described.append(
                {
                    "type": "external-model-package-v1",
                    "packageId": package,
                    "packageManifest": {
                        "type": "onnx-model-package-v1",
                        "backendType": "onnx",
                        "quantization": "fp32",
                        "opset": 17,
                        "dynamicBatchSize": True,
                    },
                    "trustedSource": True,
                    "unknownField": {"to": "us"},
                    "packageFiles": files,
                }
            )
        return {
            "modelMetadata": {
                "type": "external-model-metadata-v1",
                "modelId": model,
                "modelArchitecture": "resnet",
                "taskType": "classification",
                "modelPackages": described,
                **more,
            }
        }

    def offer(self, model, packages, *, asked_as=None, start=None, **more):
        """Add this model from now on."""
        answer = self.metadata(model, packages, **more)
        self.answers[WEIGHTS, asked_as or model, start] = 200, json.dumps(answer).encode()
        head = {name: value for name, value in answer["modelMetadata"].items() if name != "modelPackages"}
        self.answers[STAT, asked_as or model, None] = 200, json.dumps({"modelMetadata": head}).encode()
        return answer


def _handler_of(provider):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Requests are kept, not printed."""

        def do_GET(self):
            self._serve()

        def do_HEAD(self):
            self._serve()

        def _serve(self):
            url = urlsplit(self.path)
            pairs = parse_qsl(url.query, keep_blank_values=True)
            headers = {name.lower(): value for name, value in self.headers.items()}
            provider.seen.append(Seen(self.command, url.path, pairs, headers))
            if provider.is_silent:
                self.close_connection = True
                return
            with suppress(ConnectionError):
                if url.path in (WEIGHTS, STAT):
                    time.sleep(provider.delay_seconds)
                    query = dict(pairs)
                    wanted = (url.path, query.get("modelId"), query.get("startAfter"))
                    self._answer(*provider.answers.get(wanted, (404, b'{"error":"no such model"}')))
                else:
                    self._file(provider.files.get(url.path), provider.storage)

        def _answer(self, status, body, **more):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _file(self, content, behaviour):
            if behaviour.refuses_head and self.command == "HEAD":
                self._answer(403, b"")
                return
            if behaviour.status is not None:
                self._answer(behaviour.status, b"it wants it so", **behaviour.headers)
                return
            if content is None:
                self._answer(404, b"")
                return
            status, more, size = 200, {"Accept-Ranges": "bytes"} if behaviour.has_ranges else {}, len(content)
            wanted = self.headers.get("Range") if behaviour.has_ranges else None
            if wanted is not None:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                begin = int(first or size - int(last))
                end = min(int(last or size - 1), size - 1) if first else size - 1
                if behaviour.shifts_ranges:
                    begin, end = begin - 1, end - 1
                if begin >= size:
                    self._answer(416, b"", **{"Content-Range": f"bytes */{size}"})
                    return
                content, status = content[begin : end + 1], 206
                more["Content-Range"] = f"bytes {begin}-{end}/{size}"
            self.send_response(status)
            headers = {"Content-Length": str(len(content)), "Set-Cookie": "a=b", "X-Inner": SECRET, **more}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self._pieces(content, behaviour)

        def _pieces(self, content, behaviour):
            for start in range(0, len(content), 1 << 16):
                if behaviour.breaks_off_after is not None and start >= behaviour.breaks_off_after:
                    self.close_connection = True
                    return
                self.wfile.write(content[start : start + (1 << 16)])
                self.wfile.flush()
                time.sleep(behaviour.pause_seconds)

    return Handler


class Site:
    """An installation with two tenants, in front of the provider; or without one."""

    def __init__(self, installation, provider):
        self.installation, self.provider = installation, provider
        self.gateway = None

    @property
    def wire(self):
        return self.gateway.wire

    def key(self, tenant, *, lives_seconds=None):
        """A new key of a tenant: what is remembered of other tests' keys is not of this one."""

        async def make(session):
            now = session.clock.now()
            order = KeyOrder(
                now=now,
                kind=KeyKind.TENANT,
                tenant=TenantId(tenant),
                expires_at=None if lives_seconds is None else now + lives_seconds,
            )
            new = issue_key(order, environment="test", peppers=session.peppers)
            await session.perform(
                "keys.create", lambda changes: create_key(changes, key=new.key, digest=new.digest)
            )
            return {"token": new.token, "key_id": new.key.key_id}

        return self.installation.in_session(make)

    def fill(self, model, packages):
        unhashed = frozenset(
            handle for files in packages.values() for handle in files if handle.endswith(".txt")
        )
        write_sample_cache(
            self.installation.cache_root,
            [SampleModel(model_id=model, packages=packages, unhashed=unhashed)],
        )

    def ask(self, model, token, path=WEIGHTS, more="", **rest):
        return self.wire.get(f"{path}?modelId={quote(model, safe='')}{more}", token, **rest)

    def ask_wrapped(self, url, token=None, **rest):
        return self.wire.get(f"/proxy?url={quote(url, safe='')}", token, **rest)

    def follow(self, url, method="GET", headers=()):
        """Fetch a URL of ours, as a client behind the proxy in front does."""
        assert url.startswith(PUBLIC_URL + "/"), url
        return self.wire.request(method, url.removeprefix(PUBLIC_URL), headers=headers)

    def record(self, answer):
        [record] = [one for one in self.installation.records() if one.get("id") == answer.record_id]
        return record

    def outcome(self, answer):
        return self.installation.outcome_of(answer.record_id)


@contextmanager
def site_of(new_installation, name, *, has_upstream=True, **settings):
    """A served installation; `settings` are those of the environment without their prefix."""
    with WeightsProvider().running() as provider:
        # On a busy machine a worker may hear from Redis too late for the lease of a second.
        environment = {"LEASE_MILLISECONDS": "5000", "AUDIT_REFUSALS_PER_SECOND": "10000"}
        environment |= {"PUBLIC_URL": PUBLIC_URL, **settings}
        if has_upstream:
            environment |= {"UPSTREAM": provider.url, "PRIVATE_UPSTREAMS": "on"}
        installation = new_installation(
            name, **{f"CACHEGATE_{key}": value for key, value in environment.items()}
        )
        for tenant in ("acme", "globex"):
            installation.run("tenants", "create", tenant)
            installation.run("models", "own", tenant, f"{tenant}/*")
        site = Site(installation, provider)
        site.gateway = installation.serve(workers=1)
        try:
            yield site
        finally:
            site.gateway.stop()
        assert "Traceback" not in site.gateway.log(), site.gateway.log()
        assert SECRET not in site.gateway.log()
        assert SECRET not in json.dumps(installation.records())


def urls_of(answer):
    """The links of an answer by package and handle."""
    return {
        (package["packageId"], file["fileHandle"]): file["downloadUrl"]
        for package in answer.json()["modelMetadata"]["modelPackages"]
        for file in package["packageFiles"]
    }
