"""A weights provider that implements the real protocol over sockets: an API and a storage.

Two servers, as in production: the API, which knows keys and models, and a storage, which knows no keys and
serves every caller with a signed URL. Every request is kept for assertions. A test grants and revokes, and
can make either server answer with a given status, slowly, in pages, with redirects or without ranges.

    provider = Provider(models=[...], aliases={"a-cars": "acme/cars/1"})
    provider.grant("a-platform-key", "acme/*")
    with provider.running(): ...

It checks what the real one checks and nothing else. Standard library only.
"""

from __future__ import annotations

import hmac
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from hashlib import file_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEIGHTS, STAT = "/models/v1/external/weights", "/models/v1/external/stat"
_SIGNED_WITH = b"a key of the storage"
_PIECE = 1 << 20
_SAVED = re.compile(r"/([^/]+)/workflows/([^/]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@cache
def _md5_of(path: Path) -> str:
    with path.open("rb") as content:
        return file_digest(content, "md5").hexdigest()


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a package. `md5` names other content than that of `path` only if a test says so."""

    handle: str
    path: Path | None
    is_hashed: bool = True
    named_md5: str | None = None

    @property
    def md5(self) -> str | None:
        if self.named_md5 is not None or not self.is_hashed or self.path is None:
            return self.named_md5
        return _md5_of(self.path)


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package: its manifest says which backend it is for."""

    package_id: str
    files: tuple[File, ...]
    manifest: dict[str, Any]
    is_trusted: bool = True


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model; `dependencies` maps a name to the id of a model."""

    model_id: str
    packages: tuple[Package, ...]
    architecture: str = "resnet"
    task: str = "classification"
    dependencies: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as it came in, and what it was answered."""

    server: str
    method: str
    path: str
    pairs: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    status: int

    @property
    def model_id(self) -> str | None:
        return dict(self.pairs).get("modelId")


@dataclass
class Behaviour:
    """What a server does instead of its duty, or in its own manner."""

    status: int | None = None
    delay_seconds: float = 0.0
    has_ranges: bool = True
    redirects_to: str | None = None  # this address, or "" for another path of the storage itself


class Provider:
    """Both servers and what they know."""

    def __init__(self, models: list[Model], aliases: dict[str, str]) -> None:
        self.models = {model.model_id: model for model in models}
        self.aliases = aliases
        self.faults: list[BaseException] = []
        self._lock = threading.Lock()
        self.reset()
        self._serials = count(1)
        self._servers = {kind: _Server(self, kind) for kind in ("api", "storage")}

    def reset(self) -> None:
        """As it was at first: nobody has a right, and nothing was seen."""
        self.api, self.storage = Behaviour(), Behaviour()
        self.page_size: int | None = None
        self.bucket = "weights"  # the first part of every storage path
        self.link_seconds = 900
        self.files_at: str | None = None  # another server that has the files; ours if None
        self._rights: dict[str, list[str]] = {}
        self._saved: dict[tuple[str, str, str | None], dict[str, Any]] = {}
        self._seen: list[Seen] = []

    @property
    def api_url(self) -> str:
        return self._servers["api"].url

    @property
    def storage_url(self) -> str:
        return self._servers["storage"].url

    @contextmanager
    def running(self) -> Iterator[Provider]:
        threads = [threading.Thread(target=server.serve_forever) for server in self._servers.values()]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server in self._servers.values():
                server.shutdown()
                server.server_close()
            for thread in threads:
                thread.join()
        assert not self.faults, self.faults

    # Rights, and how it behaves

    def grant(self, key: str, *patterns: str) -> None:
        self._rights[key] = [*self._rights.get(key, ()), *patterns]

    def revoke(self, key: str) -> None:
        del self._rights[key]

    def status_for(self, key: str | None, model_id: str) -> int:
        """What the real one would answer, before anybody forces anything."""
        if key not in self._rights:
            return 401
        if model_id not in self.models:
            return 404
        return 200 if any(fnmatchcase(model_id, pattern) for pattern in self._rights[key]) else 403

    def save(self, workspace: str, workflow_id: str, specification: Any, version: str | None = None) -> None:
        """Save a workflow, as the platform's editor does."""
        config = json.dumps({"specification": specification, "preset": {}})
        self._saved[workspace, workflow_id, version] = {"id": f"id-of-{workflow_id}", "config": config}

    def saved(
        self, key: str | None, workspace: str, workflow_id: str, version: str | None
    ) -> tuple[int, dict[str, Any]]:
        """The answer about a saved workflow: it is for the keys of its workspace."""
        if key not in self._rights:
            return 401, {"error": "no"}
        if not any(fnmatchcase(f"{workspace}/workflows", pattern) for pattern in self._rights[key]):
            return 403, {"error": "no"}
        found = self._saved.get((workspace, workflow_id, version))
        return (404, {"error": "no"}) if found is None else (200, {"workflow": found, "status": "ok"})

    @contextmanager
    def behaving(self, server: str, **changes: Any) -> Iterator[None]:
        """Within it, `api` or `storage` does this."""
        before = getattr(self, server)
        setattr(self, server, Behaviour(**{**vars(before), **changes}))
        try:
            yield
        finally:
            setattr(self, server, before)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Within it, both servers close every connection without an answer."""
        with self.behaving("api", status=0), self.behaving("storage", status=0):
            yield

    # What it saw

    def seen(self, server: str | None = None, method: str | None = None) -> list[Seen]:
        with self._lock:
            return [
                one for one in self._seen if server in (None, one.server) and method in (None, one.method)
            ]

    def forget(self) -> None:
        with self._lock:
            self._seen.clear()

    def note(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    # Answers

    def metadata(self, model_id: str, after: str | None) -> dict[str, Any]:
        """One page of what a caller with the right gets to know."""
        model = self.models[model_id]
        first = int(after or 0)
        last = len(model.packages) if self.page_size is None else first + self.page_size
        answer = self.summary(model_id) | {
            "type": "external-model-metadata-v1",
            "modelPackages": [self._package(model, package) for package in model.packages[first:last]],
        }
        if model.dependencies:
            answer["modelDependencies"] = [
                {"type": "model-dependency-v1", "name": name, "modelId": of, "modelPackageId": None}
                for name, of in model.dependencies.items()
            ]
        if last < len(model.packages):
            answer["nextPage"] = str(last)
        return answer

    def summary(self, model_id: str) -> dict[str, Any]:
        model = self.models[model_id]
        return {
            "modelId": model_id,
            "modelArchitecture": model.architecture,
            "modelVariant": None,
            "taskType": model.task,
            "modelLatencyMs": 12.5,
        }

    def _package(self, model: Model, package: Package) -> dict[str, Any]:
        return {
            "type": "external-model-package-v1",
            "packageId": package.package_id,
            "packageManifest": package.manifest,
            "trustedSource": package.is_trusted,
            "packageFiles": [
                {"fileHandle": file.handle, "downloadUrl": self._link(model, package, file)}
                | ({"md5Hash": file.md5} if file.md5 else {})
                for file in package.files
            ],
        }

    def _link(self, model: Model, package: Package, file: File) -> str:
        path = f"/{self.bucket}/{quote(f'{model.model_id}/{package.package_id}/{file.handle}')}"
        return (self.files_at or self.storage_url) + self._signed(path)

    def _signed(self, path: str) -> str:
        terms = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            # Another in every answer, so that no two signed URLs of a file are the same.
            "X-Goog-Credential": f"signer-{next(self._serials)}/20260101/auto/storage/goog4_request",
            "X-Goog-Date": datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%SZ"),
            "X-Goog-Expires": str(self.link_seconds),
            "X-Goog-SignedHeaders": "host",
        }
        return f"{path}?{urlencode(terms | {'X-Goog-Signature': _signature(path, terms)})}"

    def find_file(self, raw_path: str, query: dict[str, str]) -> Path | None:
        """The file of a signed URL that is in order."""
        terms = {name: value for name, value in query.items() if name != "X-Goog-Signature"}
        given = query.get("X-Goog-Signature", "")
        if not hmac.compare_digest(given, _signature(raw_path, terms)):
            return None
        issued = datetime.strptime(terms["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(tz=UTC) > issued + timedelta(seconds=int(terms["X-Goog-Expires"])):
            return None
        path = unquote(raw_path).removeprefix("/moved")
        for model in self.models.values():
            for package in model.packages:
                for file in package.files:
                    if path.endswith(f"/{model.model_id}/{package.package_id}/{file.handle}"):
                        return file.path
        return None


def _signature(path: str, terms: dict[str, str]) -> str:
    text = f"{path.removeprefix('/moved')}?{urlencode(sorted(terms.items()))}"
    return hmac.new(_SIGNED_WITH, text.encode(), "sha256").hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, provider: Provider, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), {"api": _Api, "storage": _Storage}[kind])
        self.provider, self.kind = provider, kind
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys  # noqa: PLC0415 -- only here

        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):  # clients may leave
            self.provider.faults.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Requests are kept, not printed."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        self.provider = self.server.provider
        self.url = urlsplit(self.path)
        self.pairs = tuple(parse_qsl(self.url.query, keep_blank_values=True))
        self.query = dict(self.pairs)
        behaviour: Behaviour = getattr(self.provider, self.server.kind)
        time.sleep(behaviour.delay_seconds)
        if behaviour.status == 0:
            self._note(0)
            self.close_connection = True
        elif behaviour.status is not None:
            self._json(behaviour.status, {"error": "the test wants it so"})
        else:
            self.serve(behaviour)

    def serve(self, behaviour: Behaviour) -> None:
        raise NotImplementedError

    def _json(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self._begin(status, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self._note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _note(self, status: int) -> None:
        self.provider.note(
            Seen(
                server=self.server.kind,
                method=self.command,
                path=self.url.path,
                pairs=self.pairs,
                headers={name.lower(): value for name, value in self.headers.items()},
                status=status,
            )
        )


class _Api(_Handler):
    def serve(self, behaviour: Behaviour) -> None:
        if saved := _SAVED.fullmatch(self.url.path):
            version = self.query.get("workflow_version")
            self._json(*self.provider.saved(self.query.get("api_key"), saved[1], saved[2], version))
            return
        if self.url.path not in (WEIGHTS, STAT):
            self._json(404, {"error": "no such endpoint"})
            return
        requested = self.query.get("modelId", "")
        model_id = self.provider.aliases.get(requested, requested)
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        status = self.provider.status_for(key if scheme == "Bearer" else None, model_id)
        if status != 200:
            self._json(status, {"error": "no"})
        elif self.url.path == STAT:
            self._json(200, {"modelMetadata": self.provider.summary(model_id)})
        else:
            after = self.query.get("startAfter")
            self._json(200, {"modelMetadata": self.provider.metadata(model_id, after)})


class _Storage(_Handler):
    def serve(self, behaviour: Behaviour) -> None:
        path = self.provider.find_file(self.url.path, self.query)
        if path is None:
            self._json(403, {"error": "signature"})
        elif behaviour.redirects_to is not None and not self.url.path.startswith("/moved"):
            location = f"{behaviour.redirects_to}/moved{self.path}"
            self._begin(302, {"Location": location, "Content-Length": "0"})
        else:
            self._file(path, behaviour)

    def _file(self, path: Path, behaviour: Behaviour) -> None:
        size = path.stat().st_size
        wanted = _RANGE.fullmatch(self.headers.get("Range", "")) if behaviour.has_ranges else None
        first, last = 0, size - 1
        headers = {"Accept-Ranges": "bytes"} if behaviour.has_ranges else {}
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        headers["Content-Length"] = str(last - first + 1)
        self._begin(206 if wanted else 200, headers)
        if self.command == "HEAD":
            return
        with path.open("rb") as content:
            content.seek(first)
            left = last - first + 1
            while left:
                piece = content.read(min(_PIECE, left))
                self.wfile.write(piece)
                left -= len(piece)
