"""Packages with many files, and manifests made to delay others: what they cost their reader and others.

    .venv/bin/python tests/bench/manifests.py [--quick] [--json FILE]

One worker, two tenants. One requests packages of 2, 10,000 and 20,000 files and packages whose manifests are
the worst that a writer of the volume can make; the other reads a small file on one connection all the while.
The longest wait of the second is how long the event loop was held.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from hashlib import md5
from typing import TYPE_CHECKING

from installation import Installation, new_key
from program import amount_of, arguments_of, run
from report import Report, quantile

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits.keys import create_key
from gateway.directory.edits.models import own
from gateway.directory.edits.tenants import create_tenant
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.operations.session import open_session
from gateway.resource.naming import model_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = "p1"
SMALL = f"/v1/models/globex/small/1/-/{PACKAGE}/small.bin"
MANIFEST_BYTES = 4 << 20


def write_package(root: Path, model: str, handles: list[str]) -> None:
    """A package whose files all link one of a hundred blobs of its own."""
    package = root / "models-cache" / model_directory(model) / PACKAGE
    package.mkdir(parents=True)
    blobs = root / "shared-blobs"
    digests = []
    for number in range(100):
        content = b"content %d/%d" % (len(handles), number)
        digests.append(md5(content, usedforsecurity=False).hexdigest())
        (blobs / digests[-1]).write_bytes(content)
    listed = []
    for number, handle in enumerate(handles):
        place = package / handle
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(blobs / digests[number % 100])
        hashes = {"md5_hash": digests[number % 100], "sha256_hash": None, "source_hash": None}
        listed.append({"file_handle": handle, **hashes, "unhashed": False, "storage": "shared_blob"})
    head = {"offline_manifest_version": 4, "canonical_model_id": model, "model_id": model}
    (package / "model_config.json").write_text(json.dumps({**head, "package_artifacts": listed}))


def write_manifest(root: Path, model: str, raw: bytes) -> None:
    """A package that is nothing but its manifest."""
    package = root / "models-cache" / model_directory(model) / PACKAGE
    package.mkdir(parents=True)
    (package / "model_config.json").write_bytes(raw)


def filled(item: bytes, around: bytes = b'{"package_artifacts":[%b]}') -> bytes:
    """So many of these as fit; each `%d` in it is its number."""
    items, size = [], 0
    while size < MANIFEST_BYTES - len(around) - len(item) - 100:
        items.append(item.replace(b"%d", b"%07d" % len(items)))
        size += len(items[-1]) + 1
    return around % b",".join(items)


def worst_manifests() -> dict[str, bytes]:
    """Manifests of 4 MiB, each made to be slow in another way; the last two parse and are served."""
    deep = b"/".join([b"a"] * 15)
    return {
        "2000_segments": filled(b'{"file_handle":"%d/' + b"/".join([b"a"] * 1999) + b'"}'),
        "empty_files": filled(b'{"file_handle":""}'),
        "nothing_but_brackets": filled(b"[]", b'{"model_features":[%b]}'),
        "broken_at_its_end": filled(b'{"file_handle":"f%d"}') + b"}",
        "16_segments": filled(b'{"file_handle":"%d/' + deep + b'"}'),
        "as_many_as_fit": filled(
            b'{"file_handle":"d/f%d","md5_hash":"' + b"0" * 32 + b'","a":"' + b" " * 88 + b'"}'
        ),
    }


class Client:
    """One connection that stays, in plain HTTP."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self._token = token

    def ask(self, path: str, method: str = "GET") -> tuple[int, float, bytes]:
        """The status, the milliseconds that it took, and the body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        began = time.perf_counter()
        self._socket.sendall(head.encode())
        status = int(self._file.readline().split()[1])
        length = 0
        while (line := self._file.readline()) not in {b"\r\n", b""}:
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = self._file.read(length) if method == "GET" else b""
        return status, (time.perf_counter() - began) * 1000, body

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
        self._socket.close()


class Other:
    """The other tenant, who reads a small file again and again."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self.refused = 0  # a worker that is held for longer than its lease answers 503 until it has one again
        self.milliseconds: list[float] = []

    @contextmanager
    def reading(self) -> Iterator[Other]:
        """Within this, it reads."""
        self.milliseconds = []
        is_over = threading.Event()
        reader = threading.Thread(target=self._read, args=[is_over])
        reader.start()
        try:
            time.sleep(0.1)
            yield self
            time.sleep(0.05)
        finally:
            is_over.set()
            reader.join()

    def _read(self, is_over: threading.Event) -> None:
        client = Client(self._port, self._token)
        while not is_over.is_set():
            status, taken, _ = client.ask(SMALL)
            self.refused += status != http.client.OK
            self.milliseconds.append(taken)
            time.sleep(0.0005)
        client.close()


def set_up(installation: Installation, counts: list[int]) -> dict[str, str]:
    """The cache and two tenants; their tokens."""
    root = installation.folder / "cache"
    write_sample_cache(
        root, [SampleModel(model_id="globex/small/1", packages={PACKAGE: {"small.bin": b"small"}})]
    )
    for count in counts:
        write_package(root, f"acme/files/{count}", [f"folder{n % 10}/file-{n:06}.bin" for n in range(count)])
    for name, raw in worst_manifests().items():
        write_manifest(root, f"acme/worst/{name}", raw)
    return asyncio.run(_make_tenants(installation))


async def _make_tenants(installation: Installation) -> dict[str, str]:
    tokens = {}
    async with open_session(installation.settings) as session:
        now = session.clock.now()
        for tenant in ("acme", "globex"):
            new = new_key(session.peppers, tenant, now)

            async def work(changes, tenant=tenant, new=new):
                await create_tenant(changes, tenant_id=parse_tenant_id(tenant), name=tenant, now=now)
                await own(changes, tenant_id=parse_tenant_id(tenant), patterns=[parse_pattern(f"{tenant}/*")])
                await create_key(changes, key=new.key, digest=new.digest)

            await session.perform("bench.set-up", work)
            tokens[tenant] = str(new.token)
    return tokens


def measure(report: Report, counts: list[int]) -> None:
    """All of it."""
    with Installation.made(CACHEGATE_PIN_IN_BACKGROUND="off") as installation:
        tokens = set_up(installation, counts)
        time.sleep(2.5)  # change times that are too young are not believed; caches are older than that
        with installation.serving(1) as port:
            time.sleep(1.0)
            other = Other(port, tokens["globex"])
            with other.reading():
                time.sleep(1.0)
            report.spread("other_alone_ms", other.milliseconds, "the other tenant with nobody beside it")
            client = Client(port, tokens["acme"])
            worst = 0.0
            for name in worst_manifests():
                model = f"acme/worst/{name}"
                path = f"/v1/models/{model}/-/{PACKAGE}/f0000000"
                with other.reading():
                    # It moves, so that it is read while the other one asks, and not by the scan before.
                    manifest = installation.folder / "cache" / "models-cache" / model_directory(model)
                    os.utime(manifest / PACKAGE / "model_config.json")
                    first = client.ask(path, "HEAD")
                    again = client.ask(path, "HEAD")
                waited = max(other.milliseconds)
                worst = max(worst, waited)
                report.row(f"{name}_first_ms", first[1], f"HEAD in that package, answered {first[0]}")
                report.row(f"{name}_again_ms", again[1], f"the same once more, answered {again[0]}")
                report.row(f"{name}_other_ms", waited, "the longest wait of the other tenant meanwhile")
            report.figure("other_waits_ms_worst", worst, meaning="the longest of these waits")
            report.row("other_refused", other.refused, "answers of 503 that the other tenant got meanwhile")
            measured = {count: measure_package(report, client, other, count) for count in counts}
            client.close()
    least, most = measured[counts[0]], measured[counts[-1]]
    for name in ("file", "absent", "blob"):
        meaning = f"{name}: the median of the largest package over that of the smallest"
        report.figure(f"{name}_ratio", most[name] / least[name], meaning=meaning)
    report.figure("listing_ms", most["listing"], meaning="the first page of the largest package, 1,000 files")


def measure_package(report: Report, client: Client, other: Other, count: int) -> dict[str, float]:
    """One package of so many files: each kind of question, first and later, and what the other one waits."""
    base = f"/v1/models/acme/files/{count}/-/{PACKAGE}"
    last = f"folder{(count - 1) % 10}/file-{count - 1:06}.bin"
    digest = md5(b"content %d/1" % count, usedforsecurity=False).hexdigest()
    asked = {
        "file": f"{base}/{last}",
        "absent": f"{base}/folder0/nothing.bin",
        "listing": base,
        "last_page": f"{base}?after={last}",
        "model": f"/v1/models/acme/files/{count}",
        "blob": f"/v1/blobs/{digest}",
    }
    medians = {}
    for name, path in asked.items():
        with other.reading():
            first = client.ask(path)
            later = [client.ask(path)[1] for _ in range(20)]
        medians[name] = quantile(later, 0.5)
        report.row(f"files_{count}_{name}_first_ms", first[1], f"answered {first[0]}")
        report.row(f"files_{count}_{name}_ms", medians[name], "the same later, the median of 20")
        waited = max(other.milliseconds)
        report.row(f"files_{count}_{name}_other_ms", waited, "the longest wait of the other tenant meanwhile")
    return medians


def main() -> int:
    """Measure, print, write."""
    chosen = arguments_of(str(__doc__), "packages of 2 and 2,000 files").parse_args()
    counts = amount_of(chosen, full=[2, 10_000, 20_000], quick=[2, 2_000], smoke=[2, 50])
    return run("Packages with many files", lambda report: measure(report, counts), chosen)


if __name__ == "__main__":
    sys.exit(main())
