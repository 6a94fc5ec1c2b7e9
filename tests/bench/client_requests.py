"""The requests of a delivery benchmark: what clients send, as lists that a load generator works through.

A set holds many requests, each with another key and another path, in the header sets of the clients that
read from a cache: python-requests (which the engine uses), httpx, curl, and a platform with tracing behind a
proxy, each of whose requests has a `traceparent` of its own. No set repeats one request, and all contenders
are sent the same bytes.

A set says what the right answer is, so that it can be checked before it is measured.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from hashlib import sha256
from http import HTTPStatus
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from contender import Answer
    from workload import Item, Tenant, Workload

SMALL_RANGE = "bytes=0-999"
RANGE_LENGTH = 1_000
KINDS = 4  # of clients
FRESH_TRACE, FRESH_NAME = "{trace}", "{name}"  # in a request: something else each time that it is sent
HEADERS_BYTES = 2_000  # no answer has more of them
WEIGHTS, STAT = "/models/v1/external/weights", "/models/v1/external/stat"
ADDRESSES = 8  # of each tenant's clients, as the proxy forwards them

_choose = random.Random(11)


@dataclass(frozen=True)
class Request:
    """One request as it is sent. A fresh trace or name is in it as a placeholder."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    item: Item | None = None  # the file that it is for
    tenant: str = ""
    must_hold: tuple[str, ...] = ()  # texts of a right answer's body

    @property
    def raw(self) -> str:
        lines = [
            f"{self.method} {self.target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join((*lines, "", ""))

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def refreshed(self) -> Request:
        """With the placeholders filled in, to be sent once."""
        return replace(
            self,
            target=refresh(self.target),
            headers=tuple((name, refresh(value)) for name, value in self.headers),
        )


def refresh(text: str) -> str:
    """The text with something new in place of its placeholder."""
    if FRESH_TRACE in text:
        return text.replace(
            FRESH_TRACE, f"00-{_choose.getrandbits(128):032x}-{_choose.getrandbits(64):016x}-01"
        )
    return text.replace(FRESH_NAME, f"{_choose.getrandbits(64):016x}") if FRESH_NAME in text else text


@dataclass(frozen=True)
class Client:
    """A client's own headers, in the order in which it sends them; its key comes last but for curl."""

    before: tuple[tuple[str, str], ...]
    after: tuple[tuple[str, str], ...] = ()

    def get(self, target: str, token: str | None, *more: tuple[str, str], method: str = "GET") -> Request:
        key = () if token is None else (("Authorization", f"Bearer {token}"),)
        return Request(method, target, (("Host", "bench"), *self.before, *more, *key, *self.after))


REQUESTS = Client((
    ("User-Agent", "python-requests/2.32.5"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Accept", "*/*"),
    ("Connection", "keep-alive"),
))  # fmt: skip
HTTPX = Client((
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Connection", "keep-alive"),
    ("User-Agent", "python-httpx/0.28.1"),
))  # fmt: skip
CURL = Client((("User-Agent", "curl/8.5.0"), ("Accept", "*/*")))


def traced(address: str) -> Client:
    """A service of a platform with tracing, whose requests come through a proxy that is trusted."""
    forwarded = (("X-Forwarded-For", address), ("X-Forwarded-Proto", "https"))
    return Client(HTTPX.before, (("traceparent", FRESH_TRACE), *forwarded))


@dataclass(frozen=True)
class Expected:
    """The right answer: its status, and what its body is."""

    status: HTTPStatus
    body: Callable[[Request, Answer], str | None]  # what is wrong with it
    least_bytes: int  # of a body, as sent
    most_bytes: int
    has_body: bool = True

    def fault(self, request: Request, answer: Answer) -> str | None:
        """What is wrong with an answer, or None."""
        if answer.status != self.status:
            return f"the status should be {self.status}"
        if self.has_body and not self.least_bytes <= len(answer.body) <= self.most_bytes:
            return f"the body should have {self.least_bytes:,} to {self.most_bytes:,} bytes"
        return self.body(request, answer)


@dataclass(frozen=True)
class RequestSet:
    """Requests of one kind, measured together."""

    name: str
    title: str
    requests: tuple[Request, ...]
    expected: Expected


def request_sets(workload: Workload) -> dict[str, RequestSet]:
    """All sets by name, in the order in which they are measured."""
    made = [*_reads(workload), *_file_answers(workload), *_documents(workload), *_refusals(workload)]
    return {one.name: one for one in made}


def varied(workload: Workload) -> RequestSet:
    """Whole small files: all keys and files, a quarter of it from each client."""
    requests = _by_clients(workload, lambda client, token, item: client.get(item.path, token))
    return _set("varied", "whole files, four clients' headers", requests, _WHOLE)


def unguarded_requests(workload: Workload) -> list[Request]:
    """Requests that a guard refuses: an unknown key, and no key, for a small file and the large one."""
    paths = (workload.tenants[0].files[0].path, workload.large.path)
    return [REQUESTS.get(path, token) for path in paths for token in (workload.unknown_tokens[0], None)]


def _reads(workload: Workload) -> Iterable[RequestSet]:
    """Those with a figure of their own."""
    yield varied(workload)
    every = list(workload.readers())
    requests = [
        _for(item, tenant, traced(address).get(item.path, token))
        for (tenant, token, item), address in zip(every, cycle(_addresses(workload)), strict=False)
    ]
    yield _set("traced", "whole files, each with a trace of its own", requests, _WHOLE)
    requests = [
        _for(item, tenant, REQUESTS.get(item.path, token, method="HEAD")) for tenant, token, item in every
    ]
    yield _set("head", "HEAD of a file", requests, _HEAD)
    requests = [
        _for(item, tenant, REQUESTS.get(item.path, token, ("Range", SMALL_RANGE)))
        for tenant, token, item in every
    ]
    yield _set("range", f"Range: {SMALL_RANGE} of a file", requests, _RANGE)
    requests = [
        _for(item, tenant, REQUESTS.get(workload.links[item.path], None))
        for tenant in workload.tenants
        for item in tenant.files
    ]
    yield _set("link", "whole files by signed link", requests, _WHOLE)


def _file_answers(workload: Workload) -> Iterable[RequestSet]:
    requests = _by_clients(
        workload,
        lambda client, token, item: client.get(
            item.path, token, ("If-None-Match", workload.etags[item.path])
        ),
    )
    yield _set("conditional", "If-None-Match with the file's ETag", requests, _UNCHANGED)
    requests = _by_clients(workload, lambda client, token, item: client.get(f"/v1/blobs/{item.md5}", token))
    yield _set("blob", "a file by its digest", requests, _WHOLE)


def _documents(workload: Workload) -> Iterable[RequestSet]:
    """Listings, the caller itself, the engine's metadata."""

    packages = {item.package_path: item for _, _, item in workload.readers()}
    one_a_package = [one for one in workload.readers() if packages[one[2].package_path] is one[2]]

    def about_package(target: Callable[[Item], str], holds: Callable[[Item], str]) -> list[Request]:
        made = _by_clients(
            workload, lambda client, token, item: client.get(target(item), token), one_a_package
        )
        return [replace(one, must_hold=(holds(one.item),)) for one in made if one.item is not None]

    def about_tenant(target: str, holds: Callable[[Tenant], Sequence[str]]) -> list[Request]:
        callers = [(tenant, token) for tenant in workload.tenants for token in tenant.tokens]
        clients = _clients(workload)
        return [
            replace(client.get(target, token), tenant=tenant.name, must_hold=tuple(holds(tenant)))
            for number, (tenant, token) in enumerate(callers)
            for client in clients[KINDS * number : KINDS * (number + 1)]
        ]

    requests = about_package(lambda item: item.package_path, lambda item: item.path)
    yield _set("listing", "a package's files", requests, _DOCUMENT)
    requests = about_tenant("/v1/models", lambda tenant: [item.model_path for item in tenant.files])
    yield _set("models", "the caller's five models", requests, _DOCUMENT)
    requests = about_tenant("/v1/whoami", lambda tenant: [f'"{tenant.name}"'])
    yield _set("whoami", "the caller itself", requests, _DOCUMENT)
    requests = about_package(lambda item: f"{WEIGHTS}?modelId={item.model}", lambda item: item.link_path)
    yield _set("weights", "the engine's metadata of a model", requests, _DOCUMENT)
    requests = about_package(lambda item: f"{STAT}?modelId={item.model}", lambda item: item.model)
    yield _set("stat", "the engine's question for a right", requests, _DOCUMENT)


def _refusals(workload: Workload) -> Iterable[RequestSet]:
    tenants = workload.tenants
    after = dict(zip([one.name for one in tenants], (*tenants[1:], tenants[0]), strict=True))
    pairs = [
        (tenant, token, item)
        for tenant in tenants
        for item in after[tenant.name].files
        for token in tenant.tokens
    ]
    clients = _clients(workload)
    requests = [
        replace(_client(clients, number).get(item.path, token), tenant=tenant.name)
        for number, (tenant, token, item) in enumerate(pairs)
    ]
    yield _set("hidden", "a file of another tenant", requests, _NOT_FOUND)

    def absent(item: Item) -> str:
        return item.path.replace("/model-", "/absent-", 1)

    requests = _by_clients(workload, lambda client, token, item: client.get(absent(item), token))
    yield _set("absent", "a model that is not there", requests, _NOT_FOUND)
    paths = [item.path for tenant in tenants for item in tenant.files]
    unknown, turns = cycle(workload.unknown_tokens), cycle(clients)
    requests = [next(turns).get(path, next(unknown)) for path in paths]
    yield _set("unknown_key", "a key that nobody has", requests, _NO_KEY)
    requests = [next(turns).get(path, None) for path in paths]
    yield _set("no_key", "no key", requests, _NO_KEY)
    requests = _by_clients(
        workload, lambda client, token, item: client.get(item.path.replace("/v1/", "/v9/", 1), token)
    )
    yield _set("no_route", "a path that nothing answers", requests, _NOT_FOUND)
    requests = [
        replace(REQUESTS.get(f"/v1/models/{tenant.name}/{FRESH_NAME}/1/-/p/f", token), tenant=tenant.name)
        for tenant in tenants
        for token in tenant.tokens
    ]
    yield _set("scan", "a new name each time", requests, _NOT_FOUND)


def _set(name: str, title: str, requests: Sequence[Request], expected: Expected) -> RequestSet:
    """Shuffled, but the same way each time: neighbours share neither key nor file nor client."""
    shuffled = list(requests)
    random.Random(name).shuffle(shuffled)
    return RequestSet(name, title, tuple(shuffled), expected)


def _by_clients(
    workload: Workload,
    make: Callable[[Client, str, Item], Request],
    readers: Iterable[tuple[Tenant, str, Item]] | None = None,
) -> list[Request]:
    """Every file with every key, or these, with the clients in turn, so that each key has all of them."""
    clients = _clients(workload)
    return [
        _for(item, tenant, make(_client(clients, number), token, item))
        for number, (tenant, token, item) in enumerate(readers or workload.readers())
    ]


def _client(clients: Sequence[Client], number: int) -> Client:
    """The client of one in a list in which two keys take turns: each key comes to all four kinds."""
    return clients[(number + number // 2) % len(clients)]


def _clients(workload: Workload) -> list[Client]:
    """The kinds in turn, the traced one from several addresses."""
    return [client for address in _addresses(workload) for client in (REQUESTS, HTTPX, CURL, traced(address))]


def _addresses(workload: Workload) -> list[str]:
    count = len(workload.tenants) * ADDRESSES
    return [f"198.51.{100 + number // 250}.{1 + number % 250}" for number in range(count)]


def _for(item: Item, tenant: Tenant, request: Request) -> Request:
    return replace(request, item=item, tenant=tenant.name)


def _is_file(request: Request, answer: Answer) -> str | None:
    is_right = request.item is not None and sha256(answer.body).hexdigest() == request.item.sha256
    return None if is_right else "the body is not the file"


def _is_head(request: Request, answer: Answer) -> str | None:
    is_right = request.item is not None and answer.header("content-length") == str(request.item.size)
    return None if is_right else "Content-Length is not the file's size"


def _is_range(request: Request, answer: Answer) -> str | None:
    is_right = request.item is not None and answer.body == request.item.blob.read_bytes()[:RANGE_LENGTH]
    return None if is_right else "the body is not the range"


def _is_empty(_request: Request, answer: Answer) -> str | None:
    return "the body is not empty" if answer.body else None


def _holds(request: Request, answer: Answer) -> str | None:
    text = answer.body.decode()
    missing = [one for one in request.must_hold if one not in text]
    return f"{missing[0]!r} is not in the body" if missing else None


SMALL_BYTES = 10_000
_WHOLE = Expected(HTTPStatus.OK, _is_file, SMALL_BYTES, SMALL_BYTES)
_HEAD = Expected(HTTPStatus.OK, _is_head, 0, 0, has_body=False)
_RANGE = Expected(HTTPStatus.PARTIAL_CONTENT, _is_range, RANGE_LENGTH, RANGE_LENGTH)
_UNCHANGED = Expected(HTTPStatus.NOT_MODIFIED, _is_empty, 0, 0, has_body=False)
_DOCUMENT = Expected(HTTPStatus.OK, _holds, 20, 10_000)
_NOT_FOUND = Expected(HTTPStatus.NOT_FOUND, _holds, 20, 2_000)
_NO_KEY = Expected(HTTPStatus.UNAUTHORIZED, _holds, 20, 2_000)
