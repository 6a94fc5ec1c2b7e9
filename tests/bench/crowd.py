"""A server with a great many keys: written as a file of facts, imported by `cachegate directory import`.

Keys are hashed under the installation's own pepper. The benchmark knows the tokens of some; the others have
random digests and no known token.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import redis
from installation import Installation, new_key

from gateway.adapters.clock import SystemClock
from gateway.directory.transfer.file import end_line, header_line
from gateway.directory.transfer.lines import StoredKey, fact_line
from gateway.identity.pepper import load_peppers
from gateway.identity.tokens import BASE62
from gateway.model.facts import DEFAULT_SCOPES, Grant, Grants, Key, ModelRule, Tenant
from gateway.model.names import KeyId, Pattern, TenantId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS_PER_TENANT = 10


@dataclass(frozen=True)
class Crowd:
    """Who is in the file: the tokens that are known, and every digest."""

    tokens: tuple[str, ...]
    digests: tuple[bytes, ...]


def write_keys(installation: Installation, file: Path, keys: int, known: int, progress: Any) -> Crowd:
    """Tenants and keys, ten of each tenant, in the order that an import wants."""
    peppers = load_peppers(installation.settings.pepper_folder)
    now, choose = SystemClock().now(), random.Random(7)
    tenants = [f"tenant-{number:06d}" for number in range(max(1, keys // KEYS_PER_TENANT))]
    made, tokens = [], []
    for number in range(keys):
        tenant = TenantId(tenants[number % len(tenants)])
        if number < known:
            new = new_key(peppers, tenant, now)
            made.append((new.key, new.digest))
            tokens.append(str(new.token))
        else:
            made.append((_key(choose, tenant, now), os.urandom(32)))
        progress()
    made.sort(key=lambda one: one[0].key_id)

    def facts() -> Iterator[bytes]:
        for tenant in tenants:
            yield fact_line(
                Tenant(tenant_id=TenantId(tenant), name=tenant, is_suspended=False, created_at=now)
            )
        for key, digest in made:
            yield fact_line(StoredKey(digest=digest, key=key))

    _write(installation, file, facts(), len(tenants) + keys)
    return Crowd(tuple(tokens), tuple(digest for _, digest in made))


def write_rights(installation: Installation, file: Path, keys: int, model: str) -> None:
    """A rule and a grant for each tenant: it owns what is called like it, and may read one model."""
    tenants = [f"tenant-{number:06d}" for number in range(max(1, keys // KEYS_PER_TENANT))]

    def facts() -> Iterator[bytes]:
        for tenant in tenants:
            yield fact_line(ModelRule(pattern=Pattern(f"{tenant}/*"), owner=TenantId(tenant)))
        for tenant in tenants:
            grant = Grant(grant_id="grant_00000001", actions=frozenset({"read"}), models=(Pattern(model),))
            yield fact_line(Grants(tenant_id=TenantId(tenant), grants=(grant,)))

    _write(installation, file, facts(), 2 * len(tenants))


def bring_in(installation: Installation, file: Path) -> float:
    """`cachegate directory import`, with its progress bar; how many seconds it took."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "gateway", "directory", "import", str(file)],
        env={**installation.environment, "TERM": os.environ.get("TERM", "dumb")},  # noqa: TID251 -- a bar needs a terminal
        check=True,
    )
    return time.monotonic() - started


def used_memory(url: str) -> int:
    """What the server says that it uses."""
    with redis.Redis(unix_socket_path=unquote(urlsplit(url).path), socket_timeout=60) as client:
        return int(client.info("memory")["used_memory"])


def _key(choose: random.Random, tenant: TenantId, now: float) -> Key:
    return Key(
        key_id=KeyId("key_" + "".join(choose.choices(BASE62, k=12))),
        tenant=tenant,
        name="bench",
        scopes=DEFAULT_SCOPES,
        networks=(),
        created_at=now,
        pepper_id="p1",
    )


def _write(installation: Installation, file: Path, lines: Iterator[bytes], count: int) -> None:
    fingerprints = load_peppers(installation.settings.pepper_folder).fingerprints()
    with file.open("wb") as out:
        out.write(header_line(generation=0, history="", peppers=fingerprints))
        out.writelines(lines)
        out.write(end_line(facts=count, generation=0))
