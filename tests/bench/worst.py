"""The worst input for each parser, within its bounds: for the benchmark and for its test.

Each bound names who may send it: an anonymous caller, a tenant, a writer of the volume, the platform or an
operator. `is_aside` marks what a worker does not parse on its event loop.
"""

from __future__ import annotations

import hmac
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec.structs import replace

from gateway.audit.record_fields import request_member, secrets_of
from gateway.audit.scrub import _clean_agent
from gateway.credential.client import Peer, parse_trusted_networks
from gateway.credential.extract import extract
from gateway.credential.fingerprint import fingerprint
from gateway.decision.grant_index import GrantIndex
from gateway.delivery.conditions import MAX_FIELD_BYTES as MAX_TAGS_BYTES
from gateway.delivery.digests import MAX_FIELD_BYTES as MAX_PREFERENCES_BYTES
from gateway.delivery.file_answer import plan_delivery
from gateway.delivery.headers import asked_fields
from gateway.delivery.ranges import MAX_FIELD_BYTES as MAX_RANGE_BYTES
from gateway.directory.documents.parse import load_tenant_documents
from gateway.directory.documents.tables import MAX_DOCUMENT_BYTES
from gateway.directory.edits.changes import MAX_GRANTED_NAMES, MAX_GRANTS
from gateway.directory.records.codec import decode_grants, encode
from gateway.engine.answers import (
    MAX_ANSWER_BYTES,
    MAX_FILES,
    MAX_MEMBERS,
    METADATA_TYPE,
    PACKAGE_TYPE,
    parse_answer,
)
from gateway.engine.questions import parse_question
from gateway.engine.stat_answers import parse_stat
from gateway.faces import content, evaluation_bodies, identity
from gateway.faces.content import CATALOGUE
from gateway.faces.hooks import MAX_BODY_BYTES, MAX_NAMED, SIGNATURE, authority_hook
from gateway.faces.proxy import Unwrapping
from gateway.faces.route import declarations
from gateway.middleware.routes import Routes
from gateway.middleware.shape import refusal_by_shape
from gateway.middleware.trace import find_trace_id
from gateway.model.access import WireRequest
from gateway.model.errors import CachegateError
from gateway.model.facts import Grant, Grants
from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_QUERY_FIELDS, MAX_TARGET_BYTES
from gateway.model.names import MAX_NAME_BYTES, MAX_NAME_SEGMENTS, Pattern, TenantId
from gateway.resource.manifest import MAX_MANIFEST_BYTES, parse_manifest
from gateway.resource.paths import locate

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1 << 30
NOW = 1_800_000_000
KEY = (b"x-api-key", b"cg_live_abcdefghijklmnopqrstuvwx000000")
MD5 = "b1946ac92492d2347c6235b4d2611184"


@dataclass(frozen=True)
class Parser:
    """One parser: who feeds it, what bounds its input, and the worst inputs, each ready to be read."""

    name: str
    fed_by: str
    bound: str
    inputs: dict[str, Callable[[], object]]
    is_aside: bool = False


def answered(read: Callable[..., object], *arguments: object) -> Callable[[], None]:
    """Read it. A refusal is an answer like another."""

    def once() -> None:
        with suppress(CachegateError):
            read(*arguments)

    return once


def request(path: bytes = b"/v1/models", query: bytes = b"", headers: tuple = (KEY,)) -> WireRequest:
    """A request as the guard sees it."""
    return WireRequest(
        method="GET",
        raw_path=path,
        query=query,
        headers=headers,
        client="192.0.2.1",
        route="-",
        trace_id=None,
        received_at=float(NOW),
    )


def filled(pieces: int, piece: bytes, between: bytes, size: int) -> bytes:
    """So many pieces of one kind, as long as fits."""
    each = (size - len(between) * (pieces - 1)) // pieces
    return between.join([(piece * (each // len(piece) + 1))[: each - each % len(piece)]] * pieces)


def queries() -> Parser:
    """A query, by everybody who reads one."""
    proxy = Unwrapping(
        public_url="https://models.example", upstream="https://api.example", offers=None, download=None
    )
    most = MAX_TARGET_BYTES - 50
    escapes = filled(MAX_QUERY_FIELDS, b"%41", b"&", most)
    values = b"modelId=" + b"%61" * MAX_NAME_BYTES
    rest = filled(MAX_QUERY_FIELDS - 1, b"%41", b"&", most - len(values))
    values += b"".join(b"&x=" + one[3:] for one in rest.split(b"&"))
    inner = filled(MAX_QUERY_FIELDS, b"%41", b"&", most // 6).decode()
    wrapped = b"url=" + quote(f"https://api.example/models/v1/external/weights?{inner}", safe="").encode()
    keys = (KEY,)
    return Parser(
        "query",
        "anybody",
        f"{MAX_TARGET_BYTES} bytes with the path, {MAX_QUERY_FIELDS} fields",
        {
            "8 kB of `&`": answered(extract, keys, b"&" * most),
            "8 kB of `;`": answered(extract, keys, b";" * most),
            "the shape of 8 kB of `&`": answered(refusal_by_shape, request(query=b"&" * most), CATALOGUE),
            "32 names of 256 bytes of `%41`": answered(extract, keys, escapes),
            "a page with names of escapes": answered(CATALOGUE.locate, request(query=escapes)),
            "a question with values of escapes": answered(parse_question, values),
            "a wrapped question": answered(proxy.unwrap, request(b"/proxy", wrapped)),
        },
    )


def headers() -> Parser:
    """A header block, by everybody who reads one before a decision."""
    trusted = parse_trusted_networks(["10.0.0.0/8"])
    most = MAX_HEADER_BYTES - 100

    def read(fields: tuple[tuple[bytes, bytes], ...]) -> None:
        _clean_agent.cache_clear()  # a new agent each time
        asked = request(headers=fields)
        refusal_by_shape(asked, CATALOGUE)
        Peer("10.0.0.1", trusted).client(fields)
        find_trace_id(asked.header(b"traceparent"))
        fingerprint(fields, b"")
        request_member(asked, secrets_of(asked))
        extract(fields, b"")

    def many(name: bytes, value: bytes, count: int = MAX_HEADER_COUNT) -> Callable[[], None]:
        room = most // count - len(name) - 4
        return answered(read, tuple((name, (value * (room // len(value) + 1))[:room]) for _ in range(count)))

    return Parser(
        "headers",
        "anybody",
        f"{MAX_HEADER_BYTES} bytes, {MAX_HEADER_COUNT} fields",
        {
            "a hundred keys": many(b"x-api-key", b"k"),
            "a hundred bearers": many(b"authorization", b"Bearer "),
            "a hundred schemes": many(b"authorization", b"Basic"),
            "thousands of hops": many(b"x-forwarded-for", b"10.0.0.1,", 1),
            "thousands of commas": many(b"x-forwarded-for", b",", 1),
            "a hundred lists of hops": many(b"x-forwarded-for", b"10.0.0.1,"),
            "an agent of announcements": many(b"user-agent", b"token = ", 1),
            "an agent of one word": many(b"user-agent", b"a", 1),
            "a cookie": many(b"cookie", b"a=b; ", 1),
            "a hundred others": many(b"x-other", b"a,"),
        },
    )


def paths() -> Parser:
    """A path: which route it has, and what it names."""
    routes = Routes(declarations([*content.routes(), *identity.routes()]))
    most = MAX_TARGET_BYTES - 20

    def read(path: bytes) -> None:
        routes.find(path)
        locate(path)

    start = b"/v1/models/a"
    fill = {
        "slashes": b"/",
        "escaped slashes": b"%2F",
        "dots": b"/..",
        "marks": b"/-/",
        "segments": b"/a",
        "four-byte characters": b"%F0%9D%84%9E",
    }
    inputs = {
        f"8 kB of {name}": answered(read, start + one * (most // len(one))) for name, one in fill.items()
    }
    longest = start + b"%61" * (MAX_NAME_BYTES - 31) + b"/a" * (MAX_NAME_SEGMENTS - 1) + b"/-/" + b"p" * 255
    inputs["the longest name"] = answered(read, longest + b"/" + b"/".join([b"a" * 31] * 16))
    return Parser(
        "path",
        "anybody",
        f"{MAX_TARGET_BYTES} bytes with the query; names of {MAX_NAME_SEGMENTS} segments and "
        f"{MAX_NAME_BYTES} bytes",
        inputs,
    )


def ranges() -> Parser:
    """The fields that say which part of a file is asked for, and on what condition."""

    def read(**fields: bytes) -> None:
        asked = asked_fields([(name.replace("_", "-").encode(), value) for name, value in fields.items()])
        plan_delivery("GET", asked, size=SIZE, sha256="0" * 64, is_blob=True)

    scattered = b"bytes=" + b",".join(b"%d-%d" % (one, one) for one in range(0, 10_000, 2))
    together = b"bytes=" + b"0-," * MAX_RANGE_BYTES
    tags, preferences = b'"",' * MAX_TAGS_BYTES, b"a=1," * MAX_PREFERENCES_BYTES
    return Parser(
        "range",
        "whoever may read the file",
        f"Range of {MAX_RANGE_BYTES} bytes, lists of tags of {MAX_TAGS_BYTES}, preferences of "
        f"{MAX_PREFERENCES_BYTES}; longer ones are ignored",
        {
            "all of them": lambda: read(
                range=together[:MAX_RANGE_BYTES],
                if_none_match=tags[:MAX_TAGS_BYTES],
                want_repr_digest=preferences[:MAX_PREFERENCES_BYTES],
            ),
            "parts without end": lambda: read(range=scattered[:MAX_RANGE_BYTES].rpartition(b",")[0]),
            "numbers without end": lambda: read(range=b"bytes=" + b"9" * (MAX_RANGE_BYTES - 10) + b"-"),
            "32 kB of tags": lambda: read(if_match=tags[: 32 * 1024]),
            "32 kB of preferences": lambda: read(want_repr_digest=preferences[: 32 * 1024]),
        },
    )


def manifests() -> Parser:
    """A package's manifest."""

    def document(artifacts: list[dict]) -> bytes:
        return json.dumps({"package_artifacts": artifacts}, separators=(",", ":")).encode()

    def most_of(make: Callable[[int], str]) -> bytes:
        one = len(document([{"file_handle": make(0), "md5_hash": MD5}])) - len(document([])) + 1
        count = MAX_MANIFEST_BYTES // one - 100
        return document([{"file_handle": make(number), "md5_hash": MD5} for number in range(count)])

    bad = document([{"file_handle": "a/" * 2_000 + "b"}] * 1_000)
    return Parser(
        "manifest",
        "a writer of the volume",
        f"{MAX_MANIFEST_BYTES >> 20} MiB; handles of {MAX_NAME_SEGMENTS} segments, {MAX_NAME_BYTES} bytes",
        {
            "as many files as fit": answered(parse_manifest, most_of(lambda number: f"{number:07d}")),
            "as many segments as fit": answered(
                parse_manifest, most_of(lambda number: f"{number:07d}" + "/a" * (MAX_NAME_SEGMENTS - 1))
            ),
            "handles of 2,000 segments": answered(parse_manifest, bad),
        },
        is_aside=True,
    )


def tenant_files() -> Parser:
    """A tenant's document, for a command."""
    grants = "".join(
        f'[[grants]]\nmodels = ["globex/{number}"]\nactions = ["read"]\n' for number in range(MAX_GRANTS)
    )
    own = ",".join(f'"acme/{number}"' for number in range(40_000))
    texts = {
        "grants": f'[tenant]\nid = "acme"\n{grants}',
        "patterns": f'[tenant]\nid = "acme"\n[models]\nown = [{own}]\n',
    }

    def read(text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "acme.toml").write_text(text[:MAX_DOCUMENT_BYTES])
            load_tenant_documents(Path(folder))

    return Parser(
        "tenant_file",
        "an operator",
        f"{MAX_DOCUMENT_BYTES >> 20} MiB; read by commands only",
        {name: answered(read, text) for name, text in texts.items()},
        is_aside=True,
    )


def grants_of(count: int, names: int) -> Grants:
    """So many grants of a tenant, with so many names in each."""
    return Grants(
        tenant_id=TenantId("acme"),
        grants=tuple(
            Grant(
                grant_id=f"grt_{number:012d}",
                actions=frozenset({"read"}),
                models=tuple(Pattern(f"globex/models-{number}/{one}") for one in range(names)),
            )
            for number in range(count)
        ),
    )


def grants() -> Parser:
    """A tenant's grants, decoded: large records are, aside."""
    each = MAX_GRANTED_NAMES // MAX_GRANTS
    records = {
        "as many grants as there may be": encode(grants_of(MAX_GRANTS, each)),
        "as many names": encode(grants_of(100, MAX_GRANTED_NAMES // 100)),
    }
    return Parser(
        "grants",
        "an operator",
        f"{MAX_GRANTS} grants of a tenant, {MAX_GRANTED_NAMES} names in them",
        {name: answered(decode_grants, raw, TenantId("acme")) for name, raw in records.items()},
        is_aside=True,
    )


def arranged() -> Parser:
    """The same, arranged for decisions: once for each change of them, on the loop."""
    most = grants_of(MAX_GRANTS, MAX_GRANTED_NAMES // MAX_GRANTS).grants
    return Parser(
        "arranged_grants",
        "an operator",
        f"{MAX_GRANTS} grants of a tenant, {MAX_GRANTED_NAMES} names in them",
        {"as many as there may be": lambda: GrantIndex(most)},
    )


def hooks() -> Parser:
    """A webhook's body, up to the change that it asks for."""
    secret = b"s" * 32

    async def end(_keys: object, _models: object) -> SimpleNamespace:
        return SimpleNamespace(generation=1, not_ours=0)

    hook = authority_hook(secret, SimpleNamespace(end=end))

    def sent(body: bytes, *, is_signed: bool = True) -> Callable[[], None]:
        mac = hmac.digest(secret if is_signed else bytes(32), b"%d.%b" % (NOW, body), "sha256").hex()
        asked = request(headers=((SIGNATURE, f"t={NOW},v1={mac}".encode()),))

        def once() -> None:
            # The hook awaits nothing before the change: what is measured is what it does on the loop.
            taking = hook.take(asked, body)
            with suppress(CachegateError, StopIteration):
                taking.send(None)

        return once

    short = json.dumps({"models": ["a"] * ((MAX_BODY_BYTES - 100) // 5)}).encode()
    longest = json.dumps({"models": ["/".join(["a" * 2] * 16)] * MAX_NAMED}).encode()
    keys = json.dumps({"keys_sha256": ["0" * 64] * ((MAX_BODY_BYTES - 100) // 70)}).encode()
    return Parser(
        "hook",
        "the platform; its signature, anybody",
        f"{MAX_BODY_BYTES >> 10} KiB, {MAX_NAMED} keys and models",
        {
            "a forged body": sent(bytes(MAX_BODY_BYTES), is_signed=False),
            "too many models": sent(short),
            "as many models as there may be": sent(longest),
            "as many keys as fit": sent(keys),
        },
    )


def evaluations() -> Parser:
    """A batch of AuthZEN questions, up to what is recorded of it."""
    most = evaluation_bodies.MAX_BODY_BYTES

    def sent(body: bytes) -> Callable[[], None]:
        asked = replace(request(headers=((b"content-type", b"application/json"), KEY)), body=body[:most])
        return answered(evaluation_bodies.parse_evaluations, asked)

    def batch(item: dict[str, object]) -> bytes:
        one = {"subject": {"type": "tenant", "id": "acme"}, "action": {"name": "read"}}
        return json.dumps({**one, "evaluations": [item] * evaluation_bodies.MAX_EVALUATIONS}).encode()

    name = "/".join(["\u00e9\u00e9"] * MAX_NAME_SEGMENTS)
    file = {"type": "file", "id": "f", "properties": {"model": name, "package": "p"}}
    context = {"time": "2026-11-30T12:00:00.123456+01:00", "ip": "2001:db8::1"}
    values, containers = evaluation_bodies.MAX_VALUES, evaluation_bodies.MAX_CONTAINERS
    padding = "x" * (most - 100)
    return Parser(
        "evaluations",
        "a caller with `decisions:ask`",
        f"{most >> 10} KiB, {evaluation_bodies.MAX_EVALUATIONS} questions, {containers} objects and lists",
        {
            "a full batch": sent(batch({"resource": file, "context": context})),
            "as many members as there may be": sent(
                json.dumps({f"{n:x}": 1 for n in range(values)}).encode()
            ),
            "as many lists as there may be": sent(b'{"a":[' + b"[]," * (containers - 3) + b"[]]}"),
            "nesting": sent(b'{"a":' * 1_999 + b"1" + b"}" * 1_999),
            "one text of emoji": sent(json.dumps({"a": "\U0001f600" + padding}, ensure_ascii=False).encode()),
            "escapes": sent(json.dumps({"a": "\u00e9" * (most // 7)}).encode()),
            "too many lists": sent(b'{"a":[' + b"[]," * (most // 3)),
        },
    )


def stats() -> Parser:
    """The platform's answer about a key."""
    head = b'{"modelMetadata":{"modelArchitecture":"a","taskType":"b","modelId":"c"},"x":'
    room = MAX_ANSWER_BYTES - len(head) - 2
    values = {
        "numbers": b"[" + b",".join([b"0"] * (room // 2 - 1)) + b"]",
        "objects": b"[" + b",".join([b"{}"] * (room // 3 - 1)) + b"]",
        "brackets": b"[" * (room // 2) + b"]" * (room // 2),
        "escapes": b'"' + b"\\u0000" * ((room - 2) // 6) + b'"',
    }
    return Parser(
        "stat",
        "the platform",
        f"{MAX_ANSWER_BYTES >> 20} MiB",
        {f"2 MB of {name}": answered(parse_stat, head + value + b"}") for name, value in values.items()},
    )


def answer(files: list[dict], **more: object) -> bytes:
    """A page of the provider's metadata."""
    package = {"type": PACKAGE_TYPE, "packageId": "p", "packageManifest": {}, "packageFiles": files}
    head = {"type": METADATA_TYPE, "modelId": "a", "modelArchitecture": "r", "modelPackages": [package]}
    return json.dumps({"modelMetadata": {**head, **more}}, separators=(",", ":")).encode()


def metadata() -> Parser:
    """A page of the provider's metadata: large ones are read aside."""

    def file(number: int, **more: object) -> dict:
        return {"fileHandle": f"f{number}", "downloadUrl": "https://x.example/f", "md5Hash": MD5, **more}

    url = "https://x.example/" + "u" * 850
    return Parser(
        "metadata",
        "the provider",
        f"{MAX_ANSWER_BYTES >> 20} MiB, {MAX_FILES} files, {MAX_MEMBERS} fields",
        {
            "as many files as there may be": answered(
                parse_answer, answer([file(number, downloadUrl=url) for number in range(MAX_FILES)])
            ),
            "too many files": answered(parse_answer, answer([{}] * (MAX_MEMBERS - 20))),
            "one object of all fields": answered(
                parse_answer, answer([], **{f"{one}": 0 for one in range(MAX_MEMBERS // 2 - 20)})
            ),
            "too many fields": answered(parse_answer, answer([], **{f"{one}": 0 for one in range(150_000)})),
            "too many items": answered(parse_answer, answer([{}] * 600_000)),
        },
        is_aside=True,
    )


PARSERS = (
    queries,
    headers,
    paths,
    ranges,
    manifests,
    tenant_files,
    grants,
    arranged,
    hooks,
    evaluations,
    stats,
    metadata,
)
