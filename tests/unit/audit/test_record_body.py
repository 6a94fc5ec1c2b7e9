"""Records composed of a position and a body are, byte for byte, the records of the schema."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.audit.canonical import MAX_INTEGER, canonical_form, parse_document
from gateway.audit.chain import Chain
from gateway.audit.record import (
    ChainPosition,
    ChangeRecord,
    DecisionRecord,
    ExportRecord,
    GapRecord,
    OutcomeRecord,
    QuestionRecord,
    RequestPart,
    ResourcePart,
    SubjectPart,
    SummaryRecord,
    UpstreamPart,
    encode,
    parse_line,
    split_hash,
)
from gateway.audit.record_body import RecordBodies, body_of
from gateway.audit.record_fields import secrets_of
from gateway.audit.scrub import (
    clean_agent,
    clean_client,
    clean_digits,
    clean_method,
    clean_name,
    clean_trace_id,
)
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.errors import Reason
from gateway.model.facts import KeyKind, Scope
from gateway.model.header_block import Headers
from gateway.model.listings import ModelListing
from gateway.model.questions import Answered, Evaluated, Question, Subject, SubjectKind
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import (
    Admission,
    Allowed,
    Ending,
    HeldFile,
    OpenFile,
    Outcome,
    Rejection,
    ServerOutcome,
)
from tests import samples
from tests.structs import made

NODE, CHAIN, TIME = "node-1", "node-1.019a1f957ad1-0123abcd", "2026-11-20T14:23:33.000001Z"
LINKS = ChainPosition(CHAIN)
LINKS.seq, LINKS.hash = 41, "ab" * 32
texts = st.text(max_size=20) | st.sampled_from(['a"b', "a\\b", "é", "\x00", "a/b", "\u2028"])


def admission(*, is_held=True, trace_id=None, model="acme/cars/1", agent=b"curl/8"):
    principal = samples.principal(scopes=frozenset({Scope.READ}))
    resource = Resource(kind=ResourceKind.FILE, model=model, package="p", file="f")
    stamp = Stamp(7, ())
    allowed = Allowed(
        access=Access(principal=principal, action=Action.READ, resource=resource),
        model=model, policies=("owner",), grant="owner", stamp=stamp,
    )  # fmt: skip
    place = {
        "size": 3, "identity": (1, 2, 3, 4, 5), "model": model, "package": "p", "handle": "f",
        "md5": "0" * 32, "sha256": "1" * 64,
    }  # fmt: skip
    found = (
        HeldFile(descriptor=-1, content=b"abc", headers=Headers.of(), **place)
        if is_held
        else OpenFile(descriptor=9, **place)
    )
    request = samples.wire_request(
        headers=((b"user-agent", agent),),
        client="192.0.2.7",
        route="/v1/{file}",
        trace_id=trace_id,
        received_at=1.0,
    )
    return Admission(request=request, allowed=allowed, found=found, stamp=stamp, key_stamp=stamp)


def record_of(kind, body):
    """The record of a line with this body, and the bytes that its hash covers."""
    chain = Chain()
    chain.start(CHAIN)
    chain.links.seq, chain.links.hash = LINKS.seq, LINKS.hash
    line = chain.seal_all([("id-1", body)], TIME)
    record = parse_line(line)
    assert record.__struct_config__.tag == kind
    return record, split_hash(line[:-1])[0]


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("trace_id", [None, "0af7651916cd43dd8448eb211c80319c"])
def test_the_record_of_an_allow_is_the_one_that_the_schema_encodes(is_held, trace_id):
    record, covered = record_of(
        "decision", RecordBodies(NODE).of_allow(admission(is_held=is_held, trace_id=trace_id))
    )
    fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "hash"}
    assert encode(type(record)(**fields)) == covered
    assert (record.id, record.chain, record.seq, record.prev, record.time) == (
        "id-1",
        CHAIN,
        42,
        "ab" * 32,
        TIME,
    )
    assert (record.tenant, record.resource.file, record.request.trace_id) == ("acme", "f", trace_id)


@pytest.mark.parametrize(("is_link", "principal"), [(True, "link"), (False, "tenant")])
def test_a_record_says_whether_its_caller_had_the_key_or_a_link(is_link, principal):
    one = admission()
    caller = replace(one.allowed.access.principal, is_link=is_link)
    access = replace(one.allowed.access, principal=caller)
    allow = RecordBodies(NODE).of_allow(replace(one, allowed=replace(one.allowed, access=access)))
    refusal = RecordBodies(NODE).of_refusal(
        Rejection(request=one.request, reason=Reason.NOT_PERMITTED, principal=caller)
    )
    for body in (allow, refusal):
        assert record_of("decision", body)[0].principal == principal


def test_what_differs_is_recorded_differently():
    bodies = RecordBodies(NODE)
    assert bodies.of_allow(admission()) == bodies.of_allow(admission())
    assert bodies.of_allow(admission()) != bodies.of_allow(admission(agent=b"wget"))
    assert bodies.of_allow(admission(model="acme/b")) != bodies.of_allow(admission(model="acme/c"))


@given(
    tenant=texts | st.none(),
    tenant_record=texts | st.none(),
    key_id=texts | st.none(),
    ending=st.sampled_from(Ending),
    status=st.integers(0, 599),
    sent=st.integers(0, MAX_INTEGER),
    milliseconds=st.floats(0, 1e9),
    sha256=st.none() | st.just("ef" * 32),
    reason=st.none() | st.sampled_from(Reason),
    upstream=st.none()
    | st.builds(
        ServerOutcome,
        server=texts,
        status=st.integers(0, 599),
        bytes_received=st.integers(0, MAX_INTEGER),
        milliseconds=st.floats(0, 1e9),
    ),
)
def test_the_record_of_an_outcome_is_the_one_that_the_schema_encodes(
    tenant, tenant_record, key_id, ending, status, sent, milliseconds, sha256, reason, upstream
):
    outcome = Outcome(
        ending=ending, status=status, bytes_sent=sent, milliseconds=milliseconds, sha256=sha256,
        reason=reason, upstream=upstream,
    )  # fmt: skip
    who = Principal(
        kind=KeyKind.TENANT, key_id=key_id, key_name="", tenant=tenant, tenant_record=tenant_record,
        scopes=frozenset(), expires_at=None,
    )  # fmt: skip
    part = None
    if upstream is not None:
        rounded = round(upstream.milliseconds * 1000)
        part = UpstreamPart(upstream.server, upstream.status, upstream.bytes_received, rounded)
    expected = OutcomeRecord(
        schema=2, id="id-1", chain=CHAIN, seq=42, prev="ab" * 32, time=TIME, node=NODE,
        decision_id="id-0", tenant=tenant, tenant_record=tenant_record, key_id=key_id, ending=ending.value,
        status=status, bytes=sent, microseconds=round(milliseconds * 1000), sha256=sha256,
        reason=None if reason is None else reason.value, upstream=part,
    )  # fmt: skip
    body = RecordBodies(NODE).of_outcome("id-0", who, outcome)
    covered = record_of("outcome", body)[1]
    assert covered == encode(expected) == canonical_form(parse_document(covered))


def asked_about(*answers, request=None):
    """An admission of a request with these questions."""
    one = admission()
    request = samples.wire_request() if request is None else request
    return replace(one, request=request, found=Evaluated(answers=answers, is_batch=True))


QUESTION = Question(
    subject=Subject(kind=SubjectKind.KEY, name="key_abcdefghijkl"),
    action=Action.READ,
    resource=Resource(kind=ResourceKind.PACKAGE, model="acme/latest", package="p"),
    moment=0.5,
    address="192.0.2.9",
)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (
            Answered(
                question=QUESTION,
                is_yes=True,
                reason=Reason.PERMITTED,
                model="acme/cars/1",
                grant="owner",
                policies=("a", "b"),
                stamp=Stamp(7, (Leaf(b"x", b""),)),
            ),
            {
                "answer": "yes",
                "reason": "permitted",
                "subject": SubjectPart("key", "key_abcdefghijkl"),
                "asked": "read",
                "resource": ResourcePart("package", "acme/latest", "acme/cars/1", "p"),
                "grant": "owner",
                "policies": ("a", "b"),
                "generation": 7,
                "moment": "1970-01-01T00:00:00.500000Z",
                "address": "192.0.2.9",
            },
        ),
        (
            Answered(question=Question(error="x"), is_yes=False, reason=Reason.MALFORMED_BODY),
            {"answer": "no", "reason": "malformed-body"},
        ),
        (
            Answered(question=Question(), is_yes=False, reason=Reason.NO_FACTS, is_undecided=True),
            {"answer": "undecided", "reason": "no-facts"},
        ),
    ],
)
def test_the_record_of_a_question_is_the_one_that_the_schema_encodes(answered, expected):
    [body] = RecordBodies(NODE).of_questions("id-0", asked_about(answered))
    record, covered = record_of("question", body)
    written = QuestionRecord(
        schema=2, id="id-1", chain=CHAIN, seq=42, prev="ab" * 32, time=TIME, node=NODE,
        ask_id="id-0", item=0, tenant="acme", key_id="key_abcdefghijkl", **expected,
    )  # fmt: skip
    assert covered == encode(written) == canonical_form(parse_document(covered))
    assert replace(record, hash="") == written


def test_only_a_request_about_access_has_questions():
    assert RecordBodies(NODE).of_questions("id-0", admission()) == []


def test_the_names_in_a_question_lose_the_secrets_of_its_request():
    key = "cg_live_0123456789abcdefghijklmn123456"
    request = samples.wire_request(headers=((b"authorization", b"Bearer my-own-secret-of-today"),))
    resource = Resource(kind=ResourceKind.MODEL, model="acme/my-own-secret-of-today")
    question = Question(
        subject=Subject(kind=SubjectKind.TENANT, name=key), action=Action.READ, resource=resource
    )
    answered = Answered(question=question, is_yes=False, reason=Reason.NOT_PERMITTED)
    [body] = RecordBodies(NODE).of_questions("id-0", asked_about(answered, request=request))
    covered = record_of("question", body)[1]
    assert b"cg_live" not in covered
    assert b"secret" not in covered


# One secret for the whole run, so that the same names come with and without it in their request.
SECRET = "Zq7hostile0key9of8this3request1"
names = texts | st.sampled_from([SECRET, f"acme/{SECRET}/1", SECRET.encode().hex(), "acme/cars/1", "é" * 40])
optional_names = st.none() | names
digests = st.none() | st.sampled_from(["ab" * 16, SECRET.encode().hex()[:32]])
headers = st.lists(
    st.sampled_from(
        [
            (b"authorization", b"Bearer " + SECRET.encode()),
            (b"x-api-key", SECRET.encode()),
            (b"cookie", b"a=1; session=" + SECRET.encode()),
            (b"user-agent", b"curl/8"),
            (b"user-agent", b'a "quoted" \\ agent/' + SECRET.encode()),
            (b"user-agent", b"\xff\x00\x7f"),
            (b"user-agent", b""),
            (b"accept", b"*/*"),
        ]
    ),
    max_size=3,
).map(tuple)
requests = st.builds(
    lambda **fields: WireRequest(raw_path=b"/", received_at=1.0, **fields),
    method=st.sampled_from(["GET", "HEAD", "BREW", 'A"B']),
    query=st.sampled_from([b"", b"token=" + SECRET.encode(), b"a=%41"]),
    headers=headers,
    client=st.sampled_from(["192.0.2.7", "::1", "local", 'x"y']),
    route=st.sampled_from(["/v1/{file}", "-"]),
    trace_id=st.none() | st.sampled_from(["", "no trace", "0af7651916cd43dd8448eb211c80319c", "ab" * 16]),
)
principals = st.builds(
    lambda **fields: Principal(key_name="", scopes=frozenset(), expires_at=None, **fields),
    kind=st.sampled_from(KeyKind),
    key_id=texts,
    tenant=st.none() | texts,
    tenant_record=st.none() | texts,
    is_link=st.booleans(),
)
resources = st.builds(
    made(Resource),
    kind=st.sampled_from(ResourceKind),
    model=optional_names,
    package=optional_names,
    file=optional_names,
    md5=digests,
)
policies = st.lists(texts, max_size=2).map(tuple)
generations = st.sampled_from([0, 1, 1 << 62])
BLANK = {"schema": 2, "id": "id-1", "chain": CHAIN, "seq": 42, "prev": "ab" * 32, "time": TIME, "node": NODE}


def request_fields(request):
    secrets, agent = secrets_of(request), request.header(b"user-agent")
    return RequestPart(
        method=clean_method(request.method),
        route=request.route,
        client=clean_client(request.client),
        agent=clean_agent(agent, secrets) if agent else None,
        trace_id=clean_digits(clean_trace_id(request.trace_id), secrets),
    )


def cleaned(name, request):
    return None if name is None else clean_name(name, secrets_of(request))


def named_fields(resource, model, request):
    return ResourcePart(
        kind=resource.kind.value,
        requested=cleaned(resource.model, request),
        model=cleaned(model, request),
        package=cleaned(resource.package, request),
        file=cleaned(resource.file, request),
        md5=clean_digits(resource.md5, secrets_of(request)),
    )


@given(
    request=requests, principal=principals, resource=resources, model=optional_names, policies=policies,
    grant=st.none() | texts, generation=generations, found_model=names, package=names, handle=names,
    md5=digests, sha256=st.none() | st.just("cd" * 32), size=st.integers(0, 1 << 50),
    kind=st.sampled_from(["open", "held", "listing"]),
)  # fmt: skip
def test_every_allow_is_recorded_as_the_schema_encodes_it(
    request, principal, resource, model, policies, grant, generation,
    found_model, package, handle, md5, sha256, size, kind,
):  # fmt: skip
    place = {
        "size": size, "identity": (1, 2, 3, 4, 5), "model": found_model, "package": package,
        "handle": handle, "md5": md5, "sha256": sha256,
    }  # fmt: skip
    if kind == "listing":
        found, size = ModelListing(model=found_model, packages=()), None
        part = named_fields(resource, model, request)
    else:
        is_open = kind == "open"
        found = (
            OpenFile(descriptor=9, **place)
            if is_open
            else HeldFile(descriptor=-1, content=b"", headers=Headers.of(), **place)
        )
        part = ResourcePart(
            kind=resource.kind.value,
            requested=cleaned(resource.model, request),
            model=cleaned(found_model, request),
            package=package,
            file=cleaned(handle, request),
            md5=md5,
            sha256=sha256,
        )
    expected = DecisionRecord(
        **BLANK, decision="allow", reason="permitted", tenant=principal.tenant, key_id=principal.key_id,
        tenant_record=principal.tenant_record,
        principal="link" if principal.is_link else principal.kind.value, action="read", grant=grant,
        policies=policies, generation=generation, resource=part, size=size, request=request_fields(request),
    )  # fmt: skip
    allowed = Allowed(
        access=Access(principal=principal, action=Action.READ, resource=resource),
        model=model, policies=policies, grant=grant, stamp=Stamp(3, ()),
    )  # fmt: skip
    stamp = Stamp(generation, ())
    one = Admission(request=request, allowed=allowed, found=found, stamp=stamp, key_stamp=stamp)
    for _ in range(2):  # composed, and remembered
        covered = record_of("decision", RecordBodies(NODE).of_allow(one))[1]
        assert covered == encode(expected)


@given(
    request=requests, principal=st.none() | principals, resource=st.none() | resources,
    model=optional_names, policies=policies, generation=st.none() | generations,
    action=st.none() | st.just("read"), claimed=st.none() | texts, claimed_record=st.none() | texts,
    grant=st.none() | texts, reason=st.sampled_from(Reason),
)  # fmt: skip
def test_every_refusal_is_recorded_as_the_schema_encodes_it(
    request, principal, resource, model, policies, generation, action, claimed, claimed_record, grant, reason
):
    rejection = Rejection(
        request=request, reason=reason, principal=principal, resource=resource, action=action, model=model,
        policies=policies, claimed_key_id=claimed, claimed_tenant=claimed,
        claimed_tenant_record=claimed_record, grant=grant,
        stamp=None if generation is None else Stamp(generation, ()),
    )  # fmt: skip
    expected = DecisionRecord(
        **BLANK, decision="deny", reason=reason.value, tenant=principal.tenant if principal else claimed,
        tenant_record=principal.tenant_record if principal else claimed_record, grant=grant,
        key_id=principal.key_id if principal else None, claimed_key_id=claimed,
        principal=principal and ("link" if principal.is_link else principal.kind.value), action=action,
        policies=policies, generation=generation,
        resource=None if resource is None else named_fields(resource, model, request),
        request=request_fields(request),
    )  # fmt: skip
    covered = record_of("decision", RecordBodies(NODE).of_refusal(rejection))[1]
    assert covered == encode(expected)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (GapRecord, {"since": "a", "until": "b", "refused": 3, "why": 'a "w"'}),
        (
            SummaryRecord,
            {"source": "s", "tenant": "é", "second": "c", "count": 2, "reasons": {"z": 1}},
        ),
        (ChangeRecord, {"actor": "a", "action": "b", "subject": ("x", "y")}),
        (ExportRecord, {"target": "t", "state": "ended", "records": 0, "reason": None}),
    ],
)
def test_a_body_of_fields_is_the_record_that_the_schema_encodes(kind, fields):
    tag = kind.__struct_config__.tag
    record, covered = record_of(tag, body_of(tag, node=NODE, **fields))
    assert covered == encode(kind(**BLANK, **fields)) == canonical_form(parse_document(covered))
    assert {name: getattr(record, name) for name in fields} == fields
