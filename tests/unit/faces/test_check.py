from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.credential.extract_link import extract_link
from gateway.faces.check import (
    DIALECTS,
    ENVOY,
    FORWARDED,
    NGINX,
    TELLING,
    Checks,
    answer_yes,
    checkable_routes,
    read_told,
    routes,
    tell_nginx,
    tell_status,
)
from gateway.faces.route import declarations
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.answers import FileParts
from gateway.model.check_prefixes import CheckPrefix
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId, TenantId
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Admission, Allowed, Ending, OpenFile, Receipt
from gateway.problems import PROBLEMS
from gateway.resource.proxied_paths import ProxiedPaths

FILE = b"/v1/models/acme/cars/1/-/pkgA1/weights.bin"
BLOB = b"/v1/blobs/" + b"0" * 32
CLIENT = (b"x-forwarded-for", b"198.51.100.7")
KEY = (b"authorization", b"Bearer opaque-key-of-somebody")


def checks(*, has_links=True, prefixes=()):
    return Checks(
        checkable=checkable_routes(has_links=has_links),
        is_answered=lambda raw_path: raw_path in {b"/v1/models", b"/inference/x"},
        paths=ProxiedPaths(prefixes),
    )


def asked(dialect, target, method=b"GET", **more):
    headers, raw_path, query = [KEY, CLIENT], b"/check", b""
    if dialect is ENVOY:
        raw_path, _, query = (b"/check/envoy" + target).partition(b"?")
    else:
        headers += [(dialect.method_header, method), (dialect.target_header, target)]
    request = WireRequest(
        method=method.decode() if dialect is ENVOY else "GET",
        raw_path=raw_path,
        query=query,
        headers=tuple(headers),
        client="198.51.100.7",
        route=dialect.template,
        trace_id=None,
        received_at=0.0,
        is_of_proxy=True,
    )
    return replace(request, **more)


def unwrapped(request, dialect, **how):
    """The original request, and the route or the reason to refuse."""
    original, route = checks(**how).unwrap(request, dialect)
    if route.extract is None or route.extract is extract_link:
        return original, route
    with pytest.raises(Refusal) as caught:
        route.extract(original)
    return original, caught.value.reason


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.template)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("target", "template"),
    [
        (FILE, "/v1/models/{model}/-/{package}/{file}"),
        (BLOB, "/v1/blobs/{md5}"),
        (b"/d/acme/cars/1/-/pkgA1/weights.bin?se=1&sig=x", "/d/{model}/-/{package}/{file}"),
    ],
)
def test_the_original_request_is_what_the_proxy_will_serve(target, template, method, dialect):
    original, route = unwrapped(asked(dialect, target, method), dialect)
    assert (
        original.method.encode(),
        original.raw_path + (b"?" + original.query if original.query else b""),
    ) == (
        method,
        target,
    )
    assert route.template == template
    assert route.action is Action.READ
    assert not route.sends_content
    assert route.find is None
    assert original.client == "198.51.100.7"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.template)
@pytest.mark.parametrize(
    ("target", "method", "reason"),
    [
        (FILE, b"POST", Reason.METHOD_NOT_ALLOWED),
        (FILE, b"OPTIONS", Reason.METHOD_NOT_ALLOWED),
        (b"/v1/models", b"GET", Reason.UNCHECKABLE),
        (b"/inference/x", b"POST", Reason.UNCHECKABLE),
        (b"/nowhere", b"GET", Reason.NO_ROUTE),
        (b"/v1//models", b"GET", Reason.MALFORMED_PATH),
        (b"/" + b"a" * 9000, b"GET", Reason.PATH_TOO_LONG),
    ],
)
def test_what_cannot_be_decided_is_refused_before_any_key_is_read(target, method, reason, dialect):
    assert unwrapped(asked(dialect, target, method), dialect)[1] is reason


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.template)
def test_nothing_is_believed_of_a_peer_that_is_no_trusted_proxy(dialect):
    request = asked(dialect, FILE, is_of_proxy=False)
    assert unwrapped(request, dialect)[1] is Reason.UNTRUSTED_PROXY


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.template)
def test_a_refused_check_is_recorded_with_what_was_told_and_no_more(dialect):
    original, _ = unwrapped(asked(dialect, FILE + b"?sig=secret", b"PURGE"), dialect)
    assert (original.method, original.raw_path, original.query) == ("PURGE", FILE, b"sig=secret")


@pytest.mark.parametrize("query", [b"a=1", b"versionId=3"])
def test_a_file_by_key_has_no_query(query):
    for path in (FILE, BLOB):
        original, route = unwrapped(asked(NGINX, path + b"?" + query), NGINX)
        with pytest.raises(Refusal) as caught:
            route.locate(original)
        assert caught.value.reason is Reason.MALFORMED_QUERY


def test_links_are_checked_only_where_links_are_made():
    link = asked(NGINX, b"/d/acme/cars/1/-/pkgA1/weights.bin?se=1&sig=x")
    assert unwrapped(link, NGINX, has_links=False)[1] is Reason.NO_ROUTE


def test_the_path_is_translated_after_it_was_judged():
    prefixes = [CheckPrefix(of_proxy="/files", of_gateway="/v1/models")]
    told = asked(FORWARDED, b"/files/acme/cars/1/-/pkgA1/weights.bin")
    assert unwrapped(told, FORWARDED, prefixes=prefixes)[0].raw_path == FILE
    confused = asked(FORWARDED, b"/files/../v1/models/acme/cars/1/-/pkgA1/weights.bin")
    assert unwrapped(confused, FORWARDED, prefixes=prefixes)[1] is Reason.MALFORMED_PATH


def receipt_of(sha256, tenant="acme"):
    principal = Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId("key_abcdefghijkl"),
        key_name="",
        tenant=None if tenant is None else TenantId(tenant),
        scopes=frozenset(),
        expires_at=None,
    )
    access = Access(principal=principal, action=Action.READ, resource=Resource(kind=ResourceKind.FILE))
    stamp = Stamp(1, ())
    found = OpenFile(
        descriptor=-1,
        size=7,
        identity=(1, 2, 3, 4, 5),
        model=ModelId("acme/cars/1"),
        package=PackageId("pkgA1"),
        handle=FileHandle("weights.bin"),
        md5=None,
        sha256=sha256,
    )
    allowed = Allowed(access=access, model=found.model, policies=(), grant="owner", stamp=stamp)
    admission = Admission(
        request=asked(NGINX, FILE), allowed=allowed, found=found, stamp=stamp, key_stamp=stamp
    )
    return Receipt(record_id="r" * 36, admission=admission, on_close=lambda _: None)


@pytest.mark.parametrize("tenant", ["acme", None])
def test_a_yes_is_200_without_a_body_and_hands_the_delivery_off(tenant):
    answer = answer_yes(receipt_of("1" * 64, tenant), NGINX)
    headers = dict(answer.headers.pairs)
    assert (answer.status, answer.body, answer.ending) == (200, b"", Ending.HANDED_OFF)
    assert headers[b"content-length"] == b"0"
    assert headers[b"cachegate-status"] == b"200"
    assert headers[b"cachegate-key"] == b"key_abcdefghijkl"
    assert headers.get(b"cachegate-tenant") == (None if tenant is None else tenant.encode())
    assert headers[b"cachegate-etag"] == b'"%b"' % (b"1" * 64)


@pytest.mark.parametrize(("dialect", "status"), [(NGINX, 403), (ENVOY, 503), (FORWARDED, 503)])
def test_a_file_that_is_not_pinned_is_not_handed_off(dialect, status):
    """Nobody would compare its content with anything."""
    answer = answer_yes(receipt_of(None), dialect)
    assert (answer.status, dict(answer.headers.pairs)[b"cachegate-status"]) == (status, b"503")
    assert answer.ending is None


@pytest.mark.parametrize("reason", list(PROBLEMS), ids=str)
def test_every_refusal_is_told_in_both_forms(reason):
    problem = PROBLEMS[reason].answer("r" * 36)
    plain, nginx = tell_status(problem), tell_nginx(problem)
    told = dict(nginx.headers.pairs)
    assert (plain.status, plain.body) == (problem.status, problem.body)
    assert nginx.status == (problem.status if problem.status in {401, 403} else 403)
    assert (
        told[b"cachegate-status"] == dict(plain.headers.pairs)[b"cachegate-status"] == b"%d" % problem.status
    )
    assert told[b"cachegate-problem"] + b"\n" == problem.body
    assert told[b"cachegate-problem"].isascii()
    assert not set(told[b"cachegate-problem"]) & set(b"\r\n")
    assert set(problem.headers.pairs) <= set(nginx.headers.pairs)


def test_the_form_of_nginx_is_for_what_is_in_memory():
    parts = FileParts(file=receipt_of(None).admission.found, pieces=(), length=0, on_hashed=None)
    with pytest.raises(TypeError):
        tell_nginx(replace(PROBLEMS[Reason.ABSENT].answer("r"), body=parts))


def test_the_routes_wrap_others_and_name_no_resource_themselves():
    declared = declarations(routes(checks()))
    assert [one.template for one in declared] == [one.template for one in DIALECTS]
    for route in declared:
        assert route.unwrap is not None
        assert route.wrapped_methods == ("GET", "HEAD")
        with pytest.raises(Refusal):
            route.locate(asked(NGINX, FILE))


@pytest.mark.parametrize(
    ("raw_path", "found"),
    [
        (b"/check/nginx", NGINX),
        (b"/check/forwarded", FORWARDED),
        (b"/check/envoy/", ENVOY),
        (b"/check/envoy//x", ENVOY),
        (b"/check/envoy", None),
        (b"/check/nginx/", None),
        (b"/Check/nginx", None),
        (b"//check/nginx", None),
        (b"/check/%6eginx", None),
    ],
)
def test_a_check_is_known_by_its_exact_path(raw_path, found):
    assert [one for one in DIALECTS if one.matches(raw_path)] == ([] if found is None else [found])


told_names = st.sampled_from(
    [
        *(b"x-forwarded-for", b"x-original-uri", b"x-original-method", b"x-forwarded-uri"),
        *(b"x-forwarded-method", b"x_original_uri", b"x-original_uri", b"x_other", b"accept"),
    ]
)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(headers=st.lists(st.tuples(told_names, st.sampled_from([b"/a", b"GET", b"198.51.100.7"])), max_size=6))
def test_what_is_told_is_read_alike_with_and_without_the_names_at_hand(dialect, headers):
    """Our own server gives the headers by name where none came twice; any other gives the list alone."""
    listed = replace(asked(dialect, FILE), headers=tuple(headers))
    if len(dict(headers)) == len(headers):
        assert read_told(listed, dialect) == read_told(replace(listed, fields=dict(headers)), dialect)
    else:
        is_twice = {name for name, _ in headers if [one for one, _ in headers].count(name) > 1}
        assert read_told(listed, dialect).reason or not is_twice & TELLING
