"""Our side of a delivery benchmark: a cache, tenants with their keys, and the gateway.

The guard is on, decisions come from memory, every read is recorded (`process` durability), the canary is off.
Proxies on the loopback are trusted, so that `X-Forwarded-For` counts. All other settings are the defaults.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import md5
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client_requests import REQUESTS, SMALL_BYTES, WEIGHTS
from contender import Contender
from installation import Installation, new_key
from processes import SERVER_CORE, memory_mb, on_cores, tree
from workload import Item, Tenant, Workload

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits import keys, models, tenants
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.operations.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LARGE_BYTES = 1_000_000_000
PIN_SECONDS = 60.0
TENANTS, MODELS, KEYS, UNKNOWN_KEYS = 20, 5, 2, 40
FILES = ("weights.onnx", "class_names.txt")  # of each small package
OWNER, LARGE_MODEL, PARTS_MODEL = "bench", "bench/large/1", "bench/parts/1"
PARTS = 8
PUBLIC_URL = "http://cachegate.bench"  # only its paths are used
SETTINGS = {
    "CACHEGATE_PUBLIC_URL": PUBLIC_URL,
    "CACHEGATE_TRUSTED_PROXIES": "127.0.0.0/8",
    "CACHEGATE_LINK_SECONDS": "86400",  # longer than any benchmark
}


@dataclass(frozen=True)
class Sizes:
    """Of the large file, and of each of the eight that are one package; none where it is 0."""

    large: int = LARGE_BYTES
    part: int = 0


async def furnish(installation: Installation, sizes: Sizes) -> Workload:
    """Write the files, and make their tenants and keys. Links and entity tags come later."""
    choose = random.Random(7)
    names = [f"tenant{number:02}" for number in range(TENANTS)]
    small = [
        SampleModel(
            model_id=f"{name}/model-{number}/1",
            packages={
                _package(f"{name}{number}"): {file: choose.randbytes(SMALL_BYTES) for file in FILES},
            },
        )
        for name in names
        for number in range(MODELS)
    ]
    root = installation.settings.cache_root
    with tempfile.TemporaryDirectory(dir=installation.folder) as folder:
        large = {"weights.onnx": _real_bytes(Path(folder) / "large", sizes.large, choose)}
        parts = {
            f"part-{number}.bin": _real_bytes(Path(folder) / str(number), sizes.part, choose)
            for number in range(PARTS if sizes.part else 0)
        }
        written = write_sample_cache(
            root,
            [
                *small,
                SampleModel(model_id=LARGE_MODEL, packages={_package("large"): large}),
                *([SampleModel(model_id=PARTS_MODEL, packages={_package("parts"): parts})] if parts else []),
            ],
        )
    os.sync()  # or the disk would be busy while we measure
    items: dict[str, list[Item]] = {}
    for one in written:
        path = f"/v1/models/{one.model_id}/-/{one.package_id}/{one.handle}"
        owner = one.model_id if one.model_id.startswith(f"{OWNER}/") else one.model_id.partition("/")[0]
        items.setdefault(owner, []).append(Item.of(path, one.path.readlink()))
    made = await _make_keys(installation, {OWNER: 1, **dict.fromkeys(names, KEYS)})
    return Workload(
        tenants=tuple(Tenant(name, made[name], tuple(items[name])) for name in names),
        token=made[OWNER][0],
        large=items[LARGE_MODEL][0],
        parts=tuple(items.get(PARTS_MODEL, ())),
        unknown_tokens=made[""],
        links={},
        etags={},
        part_links={},
    )


@dataclass(frozen=True)
class Serving:
    """Our gateway under way, the workload with its links and tags, and an idle worker's memory."""

    contender: Contender
    workload: Workload
    idle_mb: float


@contextmanager
def serving_ours(installation: Installation, workload: Workload, *, workers: int = 1) -> Iterator[Serving]:
    """`cachegate serve` on the servers' core, with every file pinned."""
    with ExitStack() as stack:
        with on_cores(SERVER_CORE):
            port = stack.enter_context(installation.serving(workers))
        valkey = int((installation.settings.state / "valkey" / "valkey.pid").read_text())
        title = "Cachegate" if workers == 1 else f"Cachegate, {workers} workers"
        ours = Contender("cachegate", title, port, (serve_pid(installation), valkey))
        idle_mb = memory_mb(worker_pids(ours)[0])
        await_pinned(
            ours, [(workload.large, workload.token), *((one, workload.token) for one in workload.parts)]
        )
        await_pinned(ours, [(item, tenant.tokens[0]) for tenant in workload.tenants for item in tenant.files])
        yield Serving(ours, _with_answers(ours, workload), idle_mb)


def worker_pids(contender: Contender) -> list[int]:
    """The processes of ours that answer requests."""
    return [pid for pid in tree(contender.roots) if b"gateway.server.worker" in _read(pid, "cmdline")]


def _real_bytes(file: Path, count: int, choose: random.Random) -> Path:
    """A file of so many bytes, none of it a hole: a hole costs nobody anything to read."""
    block = choose.randbytes(1 << 20)
    with file.open("wb") as out:
        for at in range(0, count, len(block)):
            out.write((at.to_bytes(8, "big") + block[8:])[: count - at])
    return file


def _package(seed: str) -> str:
    """A package id as the platform makes them: 32 hexadecimal digits."""
    return md5(seed.encode(), usedforsecurity=False).hexdigest()


async def _make_keys(installation: Installation, counts: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Tenants, each with so many keys; under "" keys that nobody has."""
    made = {}
    async with open_session(installation.settings) as session:
        now = session.clock.now()
        for name, count in counts.items():
            tenant = parse_tenant_id(name)
            new = [new_key(session.peppers, name, now) for _ in range(count)]

            async def fill(changes: Any, name: str = name, tenant: Any = tenant, new: Any = new) -> None:
                await tenants.create_tenant(changes, tenant_id=tenant, name=name, now=now)
                await models.own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{name}/*")])
                for one in new:
                    await keys.create_key(changes, key=one.key, digest=one.digest)

            await session.perform("bench.fill", fill)
            made[name] = tuple(str(one.token) for one in new)
        made[""] = tuple(str(new_key(session.peppers, OWNER, now).token) for _ in range(UNKNOWN_KEYS))
    return made


def _with_answers(ours: Contender, workload: Workload) -> Workload:
    """With what a client has from earlier answers: entity tags, and links from the engine's metadata."""
    small = {
        path: link
        for tenant in workload.tenants
        for path, link in _links(ours, tenant.files, tenant.tokens[0]).items()
    }
    return replace(
        workload,
        links=small,
        part_links=_links(ours, workload.parts, workload.token),
        etags={path: etag for tenant in workload.tenants for path, etag in _etags(ours, tenant).items()},
    )


def _etags(ours: Contender, tenant: Tenant) -> dict[str, str]:
    """The entity tag of each file, by its path."""
    heads = [REQUESTS.get(item.path, tenant.tokens[0], method="HEAD") for item in tenant.files]
    tags = [answer.header("etag") for answer in ours.answers(heads)]
    return {item.path: tag for item, tag in zip(tenant.files, tags, strict=True) if tag is not None}


def _links(ours: Contender, items: Iterable[Item], token: str) -> dict[str, str]:
    """The signed link of each of these files by its path, without the host."""
    wanted = {item.link_path: item.path for item in items}
    asked = sorted({item.model for item in items})
    answers = ours.answers([REQUESTS.get(f"{WEIGHTS}?modelId={model}", token) for model in asked])
    urls = [
        url for answer in answers for url in _texts(json.loads(answer.body)) if url.startswith(PUBLIC_URL)
    ]
    links = [url.removeprefix(PUBLIC_URL) for url in urls]
    found = {wanted[path]: link for link in links if (path := link.partition("?")[0]) in wanted}
    if len(found) != len(wanted):
        raise RuntimeError(f"the metadata has links for {len(found)} of {len(wanted)} files")
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def serve_pid(installation: Installation, variable: str | None = None) -> int:
    """The process below ours that was given this state folder: parents come before their children."""
    told = (variable or f"CACHEGATE_STATE={installation.environment['CACHEGATE_STATE']}").encode()
    return next(pid for pid in tree((os.getpid(),)) if told in _read(pid, "environ").split(b"\0"))


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def await_pinned(ours: Contender, items: Iterable[tuple[Item, str]]) -> None:
    """Until ranges of each are offered: a client of the first second would be served at the hash's pace."""
    deadline = time.monotonic() + PIN_SECONDS
    connection = HTTPConnection("127.0.0.1", ours.port, timeout=PIN_SECONDS)
    for item, token in items:
        while True:
            connection.request("HEAD", item.path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            if answer.getheader("accept-ranges") == "bytes":
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{item.path} was not pinned within {PIN_SECONDS:g} s: {answer.status}")
            time.sleep(0.05)
    connection.close()
