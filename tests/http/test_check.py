"""The check face over real sockets: what proxies are told, and which of their words are believed."""

from __future__ import annotations

import json

import pytest

FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
HIDDEN = "/v1/models/globex/cars/1/-/pkgA1/weights.onnx"
DIALECTS = ("nginx", "envoy", "forwarded")
UNLIMITED = {
    "CACHEGATE_AUDIT_REFUSALS_PER_SECOND": "10000",  # each refusal of a stranger is looked up
    "CACHEGATE_PUBLIC_URL": "http://gateway",
}


@pytest.fixture(scope="module")
def world(build_world):
    """The world of all HTTP tests, which believes proxies on this machine."""
    yield from build_world("checked", workers=1, CACHEGATE_TRUSTED_PROXIES="127.0.0.1", **UNLIMITED)


def files_and_blobs(facts):
    """The paths of all files and blobs, and next to each one that is not there."""
    digests = {facts.digest_of(b"nobody has it"): None}
    for model in (*facts.cache, *facts.aliases, "nobody/nothing/0"):
        for package, files in {**facts.cache.get(facts.aliases.get(model, model), {}), "pkgNone": {}}.items():
            yield from (f"/v1/models/{model}/-/{package}/{file}" for file in (*files, "none.bin"))
            digests |= {facts.digest_of(content): None for content in files.values()}
    yield from (f"/v1/blobs/{digest}" for digest in digests)


def told(dialect, method, target, client="198.51.100.7"):
    """Method, path and headers of a check."""
    named = ("X-Forwarded-For", client)
    if dialect == "envoy":
        return method, "/check/envoy" + target, (named,)
    if dialect == "nginx":
        return "GET", "/check/nginx", (named, ("X-Original-Method", method), ("X-Original-URI", target))
    return "GET", "/check/forwarded", (named, ("X-Forwarded-Method", method), ("X-Forwarded-Uri", target))


def ask(wire, dialect, target, *more, method="GET", key=None):
    asked, path, headers = told(dialect, method, target)
    return wire.request(asked, path, key, headers=(*headers, *more))


def true_status(answer):
    """The status of a check's answer, whatever form it has: each answer tells it."""
    return int(answer.header("cachegate-status"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_check_says_what_the_gateway_itself_would_answer(dialect, world, facts):
    """About every file and blob, of every caller, with a method that routes take and one that they do not."""
    asked = [*files_and_blobs(facts), "/v2/models", "/admin/v1"]
    differing = []
    with world.wire.talk() as direct, world.wire.talk() as proxy:
        for caller in world.callers.values():
            for path in asked:
                for method in ("GET", "HEAD", "DELETE"):
                    expected = direct.request(method, path, headers=caller.headers)
                    checked, check_path, headers = told(dialect, method, path, "127.0.0.1")
                    answer = proxy.request(checked, check_path, headers=(*headers, *caller.headers))
                    if true_status(answer) != expected.status:
                        differing.append((caller.name, method, path, true_status(answer), expected.status))
                    assert answer.body == b"" or answer.status != 200
    assert differing == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_other_route_is_refused_for_everybody(dialect, world):
    model = "/v1/models/acme/cars/1"
    listings = (
        "/v1/models",
        model,
        f"{model}/-/pkgA1",
        "/v1/models/nobody/nothing/0",
        "/v1/whoami",
        "/access/v1/evaluation",
    )
    for path in (*listings, "/models/v1/external/stat?modelId=acme/cars/1", "/check/nginx"):
        for key in (None, world.token("acme")):
            answer = ask(world.wire, dialect, path, key=key)
            assert (true_status(answer), json.loads(answer.body)["type"]) == (
                400,
                "urn:cachegate:problem:uncheckable",
            ), path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_yes_is_empty_and_names_record_tenant_and_key(dialect, world):
    answer = ask(world.wire, dialect, FILE, key=world.token("acme"))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("content-length") == "0"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("cachegate-tenant") == "acme"
    assert answer.header("cachegate-key") == world.callers["acme"].key_id
    direct = world.wire.get(FILE, world.token("acme"))
    assert answer.header("cachegate-etag") == direct.header("etag")
    assert answer.header("x-accel-redirect") is None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_yes_is_on_record_before_and_after_as_a_read_by_the_client(dialect, world):
    answer = ask(world.wire, dialect, FILE, method="HEAD", key=world.token("acme"))
    [decided] = [one for one in world.installation.records() if one["id"] == answer.record_id]
    assert (decided["decision"], decided["action"], decided["tenant"]) == ("allow", "read", "acme")
    assert decided["resource"]["file"] == "weights.onnx"
    assert decided["request"]["method"] == "HEAD"
    assert decided["request"]["client"] == "198.51.100.7"
    assert decided["request"]["route"].startswith(f"/check/{dialect}")
    outcome = world.installation.outcome_of(answer.record_id)
    assert (outcome["ending"], outcome["status"], outcome["bytes"]) == ("handed-off", 200, 0)


def test_nginx_is_told_401_or_403_and_the_rest_in_headers(world):
    for target, key, status, shown in (
        (FILE, None, 401, 401),
        (FILE, world.token("acme discovers only"), 403, 403),
        (HIDDEN, world.token("acme"), 404, 403),
        ("/v1//models", world.token("acme"), 400, 403),
    ):
        answer = ask(world.wire, "nginx", target, key=key)
        other = ask(world.wire, "forwarded", target, key=key)
        assert (answer.status, true_status(answer)) == (shown, status)
        assert (other.status, true_status(other)) == (status, status)
        assert answer.header("cachegate-problem").encode() + b"\n" == answer.body
        assert other.header("cachegate-problem") is None
        bodies = {one.body.replace(one.record_id.encode(), b"R") for one in (answer, other)}
        assert len(bodies) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("key", [None, "acme"])
def test_hidden_and_absent_are_alike(key, dialect, world):
    token = None if key is None else world.token(key)
    pairs = (
        (HIDDEN, "/v1/models/nobody/none/1/-/pkgA1/weights.onnx"),
        ("/v1/models/globex/wide/1/-/pkgW2/weights.onnx", "/v1/models/globex/wide/1/-/pkgW9/weights.onnx"),
    )
    for hidden, absent in pairs:
        one, other = (ask(world.wire, dialect, target, key=token) for target in (hidden, absent))
        assert one.comparable() == other.comparable()


def problem(answer):
    return json.loads(answer.body)["type"].rpartition(":")[2]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "forged",
    [
        ("X-Forwarded-For", "198.51.100.8"),
        ("X_Forwarded_For", "198.51.100.8"),
        ("X_Original_URI", FILE),
        ("X-Original_URI", FILE),
        ("X_Original_Method", "GET"),
        ("X_Forwarded_Uri", FILE),
        ("X-Forwarded_Method", "GET"),
    ],
    ids=lambda pair: pair[0],
)
def test_what_came_twice_or_looks_alike_refuses(forged, dialect, world):
    answer = ask(world.wire, dialect, FILE, forged, key=world.token("acme"))
    assert (true_status(answer), problem(answer)) == (400, "malformed-check")


@pytest.mark.parametrize("dialect", ["nginx", "forwarded"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_header_comes_exactly_once(number, dialect, world):
    key = world.token("acme")
    _, path, headers = told(dialect, "GET", FILE)
    without = headers[:number] + headers[number + 1 :]
    for sent in (without, (*headers, headers[number])):
        answer = world.wire.get(path, key, headers=sent)
        assert (true_status(answer), problem(answer)) == (400, "malformed-check")


def test_envoy_names_the_client_too(world):
    answer = world.wire.get("/check/envoy" + FILE, world.token("acme"))
    assert (answer.status, problem(answer)) == (400, "malformed-check")


@pytest.mark.parametrize("asked", DIALECTS)
@pytest.mark.parametrize("proxy", ["nginx", "forwarded"])
def test_a_proxy_that_was_pointed_at_the_wrong_route_gets_no_yes(proxy, asked, world):
    """Its clients could write what that route reads: here they name a file that they may read."""
    if proxy == asked:
        return
    _, _, own = told(proxy, "GET", HIDDEN)
    _, path, forged = told(asked, "GET", FILE)
    answer = world.wire.get(path, world.token("acme"), headers=(*own, *forged[1:]))
    assert (true_status(answer), problem(answer)) == (400, "malformed-check")


@pytest.mark.parametrize("dialect", ["nginx", "forwarded"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", ""),
        ("GET", "v1/blobs/x"),
        ("GET", "http://gateway" + FILE),
        ("GET", "*"),
        ("GET", " " + FILE + " x"),
        ("", FILE),
        ("GET HEAD", FILE),
        ("GET,HEAD", FILE),
    ],
)
def test_what_is_no_method_and_target_refuses(method, target, dialect, world):
    answer = ask(world.wire, dialect, target, method=method, key=world.token("acme"))
    assert true_status(answer) == 400


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("client", ["", "unknown", "198.51.100.7, nonsense", "198.51.100.7,", "unix:"])
def test_a_client_without_an_address_refuses(client, dialect, world):
    asked, path, headers = told(dialect, "GET", FILE)
    headers = (("X-Forwarded-For", client), *headers[1:])
    answer = world.wire.request(asked, path, world.token("acme"), headers=headers)
    assert (true_status(answer), problem(answer)) == (400, "malformed-check")


@pytest.mark.parametrize("dialect", ["nginx", "forwarded"])
def test_a_query_of_the_check_itself_has_to_be_the_targets(dialect, world):
    _, path, headers = told(dialect, "GET", FILE + "?a=1")
    for query, status in (("?a=1", "malformed-query"), ("?a=2", "malformed-check")):
        assert problem(world.wire.get(path + query, world.token("acme"), headers=headers)) == status


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_tail_of_a_list_of_clients_is_believed_and_the_rest_is_not(dialect, world):
    asked, path, headers = told(dialect, "GET", FILE)
    headers = (("X-Forwarded-For", "203.0.113.1, 198.51.100.9"), *headers[1:])
    answer = world.wire.request(asked, path, world.token("acme"), headers=headers)
    [decided] = [one for one in world.installation.records() if one["id"] == answer.record_id]
    assert decided["request"]["client"] == "198.51.100.9"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_check_by_the_owner_is_answered_from_memory(dialect, world, eventually):
    """Once the file is old enough to be held: one that was just written may change without a new time."""
    key = world.token("acme")
    counted = "cachegate_answers_at_once_total"

    def are_all_from_memory():
        before = world.gateway.metrics()[counted]
        with world.wire.talk() as proxy:
            asked, path, headers = told(dialect, "GET", FILE)
            for _ in range(5):
                assert proxy.request(asked, path, key, headers=headers).status == 200
        return world.gateway.metrics()[counted] == before + 5

    eventually(are_all_from_memory)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_link_is_checked_where_the_original_request_carries_it(dialect, world):
    weights = world.wire.get("/models/v1/external/weights?modelId=acme/trucks/2", world.token("acme")).body
    link = weights.decode().partition('"http://gateway/d/')[2].partition('"')[0]
    for target, status in (
        ("/d/" + link, 200),
        ("/d/" + link + "A", 401),
        ("/d/" + link.replace("acme", "globex", 1), 401),
        ("/d/" + link.partition("?")[0], 401),
    ):
        assert true_status(ask(world.wire, dialect, target)) == status, target


def test_nobody_is_believed_who_is_not_named(common_world):
    for dialect in DIALECTS:
        for key in (None, common_world.token("acme")):
            answer = ask(common_world.wire, dialect, FILE, key=key)
            assert (answer.status, problem(answer)) == (403, "untrusted-proxy")


def test_prefixes_say_where_the_proxy_has_our_paths(build_world):
    prefixes = {"CACHEGATE_CHECK_PREFIXES": "/files=/v1/models,/own=/"}
    for world in build_world("prefixed", workers=1, CACHEGATE_TRUSTED_PROXIES="127.0.0.1", **prefixes):
        key, tail = world.token("acme"), FILE.removeprefix("/v1/models")
        for dialect in DIALECTS:
            for target, status in (
                ("/files" + tail, 200),
                ("/own" + FILE, 200),
                ("/files" + HIDDEN.removeprefix("/v1/models"), 404),
                (FILE, 404),
                ("/filesx" + tail, 404),
                ("/files/../v1/models" + tail, 400),
                ("/own/files" + tail, 404),
            ):
                assert true_status(ask(world.wire, dialect, target, key=key)) == status, target


@pytest.mark.parametrize("dialect", DIALECTS)
def test_from_memory_and_through_the_application_it_is_the_same_answer(dialect, world):
    """The connection that stays is answered from memory; one that is to be closed by the application."""
    asked = [
        (FILE, "acme"),
        (FILE, None),
        (HIDDEN, "acme"),
        (FILE, "acme discovers only"),
        ("/v1/models", None),
    ]
    with world.wire.talk() as kept:
        for method in ("GET", "DELETE"):
            for target, name in asked:
                key = None if name is None else world.token(name)
                checked, path, headers = told(dialect, method, target)
                answers = [
                    ask(world.wire, dialect, target, method=method, key=key),
                    kept.request(checked, path, key, headers=headers),
                ]
                one, other = ([*answer.comparable()] for answer in answers)
                one[1], other[1] = ({*pairs} - {("connection", "close")} for pairs in (one[1], other[1]))
                assert one == other
