"""Tokens and the admin API: `.venv/bin/python tests/bench/identity.py [--quick] [--json FILE]`.

One worker is asked for tokens, each for one of forty keys, and then for small files: with the keys, and with
tokens of these keys that it has seen before, in turns. How long it takes to recognise such a token is
measured by itself, in this process, without a server: a digest, a look into memory, and the checks that
depend on the time and the client's address.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from client_requests import Expected, Request, RequestSet, varied
from equipment import Equipment, find_servers
from installation import Installation, admin_port, new_key
from ours import SETTINGS, Sizes, furnish, serving_ours
from processes import LOAD_CORE, on_cores
from program import amount_of, arguments_of, run
from rounds import add_figure, add_row
from wrk import send_requests

from gateway.adapters.clock import SystemClock
from gateway.directory.edits.keys import create_key
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.access_tokens import AccessTokens, TokenOrder
from gateway.identity.authenticate import Authenticator
from gateway.identity.authenticate_token import TokenAuthenticator
from gateway.identity.keys_by_id import KeysById
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.signing_keys import arrange, create_token_key
from gateway.model.access import Credential
from gateway.model.facts import KeyKind, Tenant
from gateway.model.names import TenantId
from gateway.model.stamps import Leaf, Stamp
from gateway.operations.session import open_session

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from contender import Answer, Contender
    from report import Report

    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect

LARGE_BYTES = 1 << 20  # no large file is read here
KNOWN_TOKENS = 256
ADMIN_WORKERS = 4
EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:cachegate:token-type:api-key",
}
CLIENT = "192.0.2.1"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float  # of each turn
    repeats: int  # of the known tokens
    admin_writes: int  # of each round


FULL = Size(rounds=9, seconds=6.0, repeats=400, admin_writes=200)
QUICK = Size(rounds=3, seconds=1.0, repeats=40, admin_writes=50)
SMOKE = Size(rounds=1, seconds=0.2, repeats=1, admin_writes=2)


@dataclass(frozen=True)
class FormRequest(Request):
    """A request with a form as its body."""

    form: str = ""

    @property
    def raw(self) -> str:
        return super().raw + self.form


def asks_for_token(key: str) -> FormRequest:
    """A request that exchanges this key."""
    form = urlencode({**EXCHANGE, "subject_token": key})
    headers = (
        ("Host", "bench"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", str(len(form))),
    )
    return FormRequest("POST", "/v1/token", headers, form=form)


def _is_token(_request: Request, answer: Answer) -> str | None:
    return None if b'"access_token":"eyJ' in answer.body else "there is no token in it"


def exchanges(keys: Sequence[str]) -> RequestSet:
    """All keys, one after the other."""
    expected = Expected(HTTPStatus.OK, _is_token, least_bytes=500, most_bytes=1500)
    return RequestSet("exchange", "tokens for keys", tuple(map(asks_for_token, keys)), expected)


def with_tokens(sent: RequestSet, ours: Contender, keys: Sequence[str]) -> RequestSet:
    """The same reads with a token in the place of each key."""
    made = [json.loads(_post(ours, key))["access_token"] for key in keys]
    tokens = {f"Bearer {key}": f"Bearer {token}" for key, token in zip(keys, made, strict=True)}
    requests = [
        replace(one, headers=tuple((name, tokens.get(value, value)) for name, value in one.headers))
        for one in sent.requests
    ]
    return replace(sent, name="tokens", requests=tuple(requests))


def _post(ours: Contender, key: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=10)
    try:
        asked = asks_for_token(key)
        connection.request("POST", asked.target, asked.form, dict(asked.headers))
        return connection.getresponse().read()
    finally:
        connection.close()


class _Directory:
    """The records of the keys, in memory."""

    def __init__(self, keys: dict[bytes, Any], tenant: Tenant) -> None:
        self._keys = keys
        self._tenant = tenant
        self._ids = {key.key_id: digest for digest, key in keys.items()}

    async def find_key(self, digests: Sequence[bytes]) -> Any:
        [digest] = digests
        leaves = Leaf(b"key" + digest, b"record"), Leaf(b"tenant", b"record")
        return self._keys[digest], self._tenant, Stamp(1, leaves)

    async def find_key_digest(self, key_id: str) -> bytes:
        return self._ids[key_id]


def known_token_us(size: Size, folder: Path) -> list[float]:
    """Microseconds to recognise a token that was verified before, round by round."""
    now = SystemClock().now()
    peppers = Peppers(current=Pepper(id="p1", secret=b"p" * 32))
    made = [new_key(peppers, "acme", now) for _ in range(KNOWN_TOKENS)]
    tenant = Tenant(tenant_id=TenantId("acme"), name="acme", is_suspended=False, created_at=now)
    directory: Any = _Directory({one.digest: one.key for one in made}, tenant)
    keys = Authenticator(directory, peppers)
    signing = create_token_key(folder / "tokens")
    tokens = AccessTokens(issuer="https://cachegate.bench", seconds=900)
    tokens.ring = arrange([signing], {signing.kid: now}, now)
    subject = TokenAuthenticator(keys, KeysById(directory), tokens)
    texts = []
    for one in made:
        principal = keys.judge(one.key, tenant, CLIENT, now)
        texts.append(tokens.sign(tokens.grant(principal, TokenOrder(), now)))
        asyncio.run(subject.authenticate(Credential(texts[-1]), CLIENT, now))
    found = []
    for _ in range(size.rounds):
        began = time.perf_counter()
        for _ in range(size.repeats):
            for text in texts:
                if subject.recall(Credential(text), CLIENT, now) is None:
                    raise RuntimeError("a token that was verified before is not known")
        found.append((time.perf_counter() - began) / size.repeats / len(texts) * 1e6)
    return found


async def _make_owner(installation: Installation) -> str:
    """An owner's key, and a tenant to make keys for."""
    async with open_session(installation.settings) as session:
        now = session.clock.now()
        order = KeyOrder(now=now, kind=KeyKind.ADMIN, tenant=None, name="bench")
        new = issue_key(order, environment="bench", peppers=session.peppers)

        async def make(changes: Changes) -> Effect:
            await create_tenant(changes, tenant_id=TenantId("acme"), name="acme", now=now)
            return await create_key(changes, key=new.key, digest=new.digest)

        await session.perform("keys.create", make, key_id=new.key.key_id)
        return new.token or ""


def admin_write_ms(size: Size) -> list[float]:
    """Milliseconds until a key that was ordered through the admin API is there and true in all workers."""
    body = b'{"tenant":"acme"}'
    with Installation.made() as installation:
        key = asyncio.run(_make_owner(installation))
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with installation.serving(ADMIN_WORKERS), on_cores(LOAD_CORE):
            connection = http.client.HTTPConnection("127.0.0.1", admin_port(installation), timeout=10)
            medians = []
            for turn in range(size.rounds + 1):  # the first one fills memories; it does not count
                taken = []
                for _ in range(size.admin_writes):
                    began = time.perf_counter()
                    connection.request("POST", "/admin/v1/keys", body, headers)
                    answer = connection.getresponse()
                    told = json.loads(answer.read())
                    taken.append((time.perf_counter() - began) * 1e3)
                    if answer.status != HTTPStatus.CREATED or told["workers"] != ADMIN_WORKERS:
                        raise RuntimeError(f"a key was not made everywhere: {answer.status} {told}")
                medians += [median(taken)] if turn else []
            connection.close()
    return medians


def measure(report: Report, size: Size) -> None:
    written = admin_write_ms(size)
    what = f"milliseconds until a key made through the admin API is true in {ADMIN_WORKERS} workers"
    add_figure(report, "admin_write_p50_ms", written, 10.0, what)
    with tempfile.TemporaryDirectory() as folder, on_cores(LOAD_CORE):
        known = known_token_us(size, Path(folder))
    nginx, wrk, environment = find_servers()
    equipment = Equipment(nginx=nginx, wrk=wrk, python=Path(), caddy=Path(), environment=environment)
    with Installation.made(**SETTINGS) as installation:
        workload = asyncio.run(furnish(installation, Sizes(large=LARGE_BYTES)))
        keys = [token for tenant in workload.tenants for token in tenant.tokens]
        with serving_ours(installation, workload) as serving, on_cores(LOAD_CORE):
            ours = serving.contender
            by_key = varied(serving.workload)
            by_token = with_tokens(by_key, ours, keys)
            new = exchanges(keys)
            for sent in (by_key, by_token):
                ours.verify(sent, step=7)
            for sent in (new, by_key, by_token):  # fills memories; it does not count
                send_requests(equipment, ours, sent, size.seconds)
            made, ratios, cpu = [], [], []
            for number in range(size.rounds):
                made.append(send_requests(equipment, ours, new, size.seconds))
                turns = (by_key, by_token) if number % 2 else (by_token, by_key)
                told = {one.name: send_requests(equipment, ours, one, size.seconds) for one in turns}
                ratios.append(told["tokens"].per_second / told[by_key.name].per_second)
                cpu.append((told["tokens"].cpu_us, told[by_key.name].cpu_us))
    add_figure(report, "token_verified_us", known, 5.0, "recognising a token that was verified before")
    rates = [one.per_second for one in made]
    add_figure(report, "token_new_per_s", rates, 1500.0, "tokens made by one worker a second")
    add_figure(report, "token_vs_key", ratios, 0.95, "small reads with known tokens over the same with keys")
    add_row(report, "token_new_cpu_us", [one.cpu_us for one in made], "CPU time of a token that is made")
    add_row(report, "token_read_cpu_us", [one for one, _ in cpu], "CPU time of a read with a known token")
    add_row(report, "key_read_cpu_us", [one for _, one in cpu], "CPU time of the same with a key")


def main() -> int:
    chosen: argparse.Namespace = arguments_of(__doc__ or "", "fewer and shorter rounds").parse_args()
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    return run("Access tokens", lambda report: measure(report, size), chosen)


if __name__ == "__main__":
    sys.exit(main())
