"""The feed of the audit log: the operator's readers get records as written, a tenant views of its own."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlencode

import msgspec
import pytest

from gateway.audit.index import IndexReader, encode_cursor
from tests.conftest import request_bytes
from tests.feed_readers import EVENTS, Stream
from tests.feed_readers import STREAM as EVENT_STREAM

FILE = "/v1/models/acme/cars/1/-/pkgA1/weights.onnx"
NODES = "/audit/v1/nodes"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
API_KEY = "urn:cachegate:token-type:api-key"
FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
LINES = (("Accept", "application/x-ndjson"),)


@pytest.fixture(scope="module")
def site(build_world):
    settings = {"CACHEGATE_PUBLIC_URL": "https://models.example", "CACHEGATE_STALL_SECONDS": "2"}
    yield from build_world("feed", workers=2, **settings)


def node_of(site):
    return site.installation.records()[0]["node"]


@pytest.fixture(scope="module")
def keys(site):
    """Keys that read the log: of an auditor, and of two tenants that read files as well."""
    create = ("keys", "create", "--scopes", "audit:read")
    made = {"auditor": site.installation.json("keys", "create", "--admin", "--role", "auditor")["token"]}
    for tenant in ("acme", "globex"):
        more = ("--scopes", "read", "--scopes", "discover", "--tenant", tenant)
        made[tenant] = site.installation.json(*create, *more)["token"]
    return made


def read_all(site, key, **query):
    """Every event, page by page; how many pages."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    path, events = f"{EVENTS}?{asked}", []
    with site.wire.talk() as talk:
        while True:
            answer = talk.get(path, key)
            assert answer.status == 200, answer.body
            page = answer.json()
            events += page["events"]
            assert len(answer.header("link")) < 2048
            path = re.fullmatch(r'<(.+)>; rel="next"', answer.header("link"))[1]
            if page["at_end"]:
                return events


def read_until(site, key, record_id, eventually, **query):
    """Every event, once that of a record is among them."""

    def found():
        events = read_all(site, key, **query)
        ids = {one["record"]["id"] for one in events}
        return events if record_id in ids else None

    return eventually(found)


def record_of(answer):
    return answer.header("cachegate-record")


def test_an_auditor_gets_every_record_as_it_was_written_each_chain_in_its_order(site, keys, eventually):
    last = record_of(site.wire.get(FILE, site.token("acme")))
    events = read_until(site, keys["auditor"], last, eventually, limit=7)
    written = {one["id"]: one for one in site.installation.records()}
    read = [one["record"] for one in events]
    assert len({one["id"] for one in read}) == len(read)
    assert all(written[one["id"]] == one for one in read)
    before = {one["id"] for one in written.values() if one["time"] <= written[last]["time"]}
    assert before <= {one["id"] for one in read}
    chains = {}
    for one in read:
        assert one["seq"] == chains.get(one["chain"], 0) + 1
        chains[one["chain"]] = one["seq"]
    assert len(chains) > 2


def test_a_cursor_of_any_record_goes_on_behind_it_in_every_form(site, keys):
    events = read_all(site, keys["auditor"])[:6]
    after = events[2]["cursor"]
    page = site.wire.get(f"{EVENTS}?after={after}&limit=3", keys["auditor"])
    assert [one["record"] for one in page.json()["events"]] == [one["record"] for one in events[3:6]]
    lines = site.wire.get(f"{EVENTS}?after={after}&limit=3", keys["auditor"], headers=LINES)
    assert lines.header("content-type") == "application/x-ndjson"
    assert [json.loads(line)["record"] for line in lines.body.splitlines()] == [
        one["record"] for one in events[3:6]
    ]


def test_the_line_of_a_record_is_byte_for_byte_the_one_that_was_written(site, keys):
    body = site.wire.get(f"{EVENTS}?limit=20", keys["auditor"], headers=LINES).body
    written = b"".join(path.read_bytes() for path in site.installation.audit.glob("*.jsonl"))
    lines = [re.fullmatch(rb'\{"cursor":"[\w-]+","record":(\{.+\})\}', line)[1] for line in body.splitlines()]
    assert len(lines) == 20
    assert all(line + b"\n" in written for line in lines)


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("tenant=acme", lambda one: one.get("tenant") == "acme"),
        ("kind=change", lambda one: one["kind"] == "change"),
        ("decision=deny", lambda one: one.get("decision") == "deny"),
        ("reason=not-permitted", lambda one: one.get("reason") == "not-permitted"),
        ("model=acme/cars/1", lambda one: "acme/cars/1" in str(one.get("resource"))),
    ],
)
def test_a_filter_leaves_what_fits_and_nothing_else(site, keys, eventually, query, fits):
    site.wire.get("/v1/models/globex/held/9", site.token("acme"))
    last = record_of(site.wire.get(FILE, site.token("acme")))
    everything = [
        one["record"]["id"]
        for one in read_until(site, keys["auditor"], last, eventually)
        if fits(one["record"])
    ]
    name, _, value = query.partition("=")
    found = [one["record"] for one in read_all(site, keys["auditor"], **{name: value})]
    assert found
    assert all(map(fits, found))
    assert [one["id"] for one in found][: len(everything)] == everything


def test_refusals_of_a_tenant_look_the_same_to_it(site, keys, eventually):
    """Of another's model, of nobody's, of another tenant's alias, and of an own one that is not there."""
    names = ("globex/held/9", "nobody/none/1", "globex/best", "acme/gone/1")
    routes = ("", "/-/pkgA1", "/-/pkgA1/weights.onnx")
    for route in routes:
        answers = [site.wire.get(f"/v1/models/{name}{route}", keys["acme"]) for name in names]
        assert {one.status for one in answers} == {404}
        ids = [record_of(one) for one in answers]
        events = read_until(site, keys["acme"], ids[-1], eventually)
        views = [one["record"] for one in events if one["record"]["id"] in ids]
        whole = {one["id"]: one for one in site.installation.records()}
        assert len({whole[one]["reason"] for one in ids}) == 2, "the records tell them apart"
        assert len({whole[one]["resource"]["model"] for one in ids}) == 4
        assert {one["resource"].pop("requested") for one in views} == set(names)
        for one in views:
            assert one.pop("id") in ids
            assert one.pop("time")
        assert len({json.dumps(one, sort_keys=True) for one in views}) == 1
        assert views[0]["problem"] == "not-found"


def test_no_filter_of_a_tenant_finds_the_model_behind_anothers_alias(site, keys, eventually):
    last = record_of(site.wire.get("/v1/models/globex/best", keys["acme"]))
    read_until(site, keys["acme"], last, eventually)
    assert next(one for one in site.installation.records() if one["id"] == last)["resource"]["model"]
    found = read_all(site, keys["acme"], model="acme/trucks/2", decision="deny")
    assert last not in {one["record"]["id"] for one in found}
    assert last in {one["record"]["id"] for one in read_all(site, keys["acme"], model="globex/best")}
    assert not read_all(site, keys["acme"], reason="not-permitted")
    assert last in {one["record"]["id"] for one in read_all(site, keys["acme"], reason="not-found")}


def test_a_tenant_sees_its_own_records_alone_and_only_what_is_listed(site, keys, eventually):
    site.wire.get("/v1/models/globex/cars/1", site.token("globex"))
    last = record_of(site.wire.get(FILE, keys["acme"]))
    views = [one["record"] for one in read_until(site, keys["acme"], last, eventually)]
    whole = {one["id"]: one for one in site.installation.records()}
    assert {whole[one["id"]]["tenant"] for one in views} == {"acme"}
    listed = {
        *("schema", "id", "kind", "time", "key_id", "claimed_key_id", "principal", "action", "decision"),
        *("status", "problem", "resource", "size", "request", "decision_id", "ending", "bytes"),
        *("microseconds", "sha256", "change_id", "result"),
    }  # fmt: skip
    assert {name for one in views for name in one} <= listed
    assert {"decision", "outcome", "change", "change-outcome"} <= {one["kind"] for one in views}


def test_a_tenant_sees_nothing_of_one_that_had_its_name_before(site, eventually):
    def live():
        site.installation.run("tenants", "create", "umbrella")
        scopes = ("--scopes", "audit:read", "--scopes", "discover")
        key = site.installation.json("keys", "create", "--tenant", "umbrella", *scopes)
        last = record_of(site.wire.get("/v1/models/umbrella/one/1", key["token"]))
        read_until(site, key["token"], last, eventually)
        return key, site.wire.get(EVENTS, key["token"]).json()

    before, page = live()
    site.installation.run("tenants", "remove", "umbrella", "--yes")
    after, own = live()
    assert {one["record"].get("key_id") for one in page["events"]} == {before["key_id"]}
    assert before["key_id"] not in str(own)
    assert not read_all(site, after["token"], key_id=before["key_id"])
    assert site.wire.get(f"{EVENTS}?after={page['next']}", after["token"]).status == 400
    for path in ("/audit/v1/usage", "/audit/v1/readers?model=umbrella/one/1"):
        assert before["key_id"] not in site.wire.get(path, after["token"]).body.decode()
    nothing = site.wire.get(f"/audit/v1/keys/{before['key_id']}", after["token"]).json()
    assert [nothing[what] for what in ("models", "refusals", "networks")] == [[], [], []]


def test_what_is_no_cursor_of_this_reader_is_a_clear_problem(site, keys):
    of_all = read_all(site, keys["auditor"], limit=3)[0]["cursor"]
    of_acme = read_all(site, keys["acme"])[0]["cursor"]
    asked = [
        *((keys["acme"], of_all), (keys["globex"], of_acme), (keys["auditor"], of_acme)),
        *((keys["auditor"], text) for text in ("x", "0", of_all[:-4], of_all + "AAAA", "%00", "A" * 700)),
    ]
    for key, cursor in asked:
        answer = site.wire.get(f"{EVENTS}?after={cursor}", key)
        assert (answer.status, answer.json()["type"]) == (400, "urn:cachegate:problem:unknown-cursor")
        assert cursor not in answer.body.decode() or cursor in "x0"


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "wait=61", "wait=nan", "kind=no", "decision=no", "since=no",
     "nothing=1", "limit=1&limit=2", "after", "until=1", "wait=-1", "sesame=1", "until=sesame",
     "limit=sesame", "kind=sesame", "since=9999-12-31T23:59:59-14:00", "until=0001-01-01T00:00:00%2B14:00"],
)  # fmt: skip
def test_a_query_that_says_nothing_sensible_is_refused(site, keys, query):
    answer = site.wire.get(f"{EVENTS}?{query}", keys["auditor"])
    assert answer.status == 400
    assert "sesame" not in answer.body.decode()


def test_a_tenant_names_no_tenant_and_no_consumer(site, keys):
    for query in ("tenant=globex", "tenant=acme", "consumer=siem"):
        assert site.wire.get(f"{EVENTS}?{query}", keys["acme"]).status == 400


def test_who_may_not_read_reads_nothing(site, keys):
    tenant_admin = site.installation.json(
        "keys", "create", "--tenant", "acme", "--role", "tenant-admin", "--scopes", "keys:manage"
    )["token"]
    asked = {None: 401, site.token("acme"): 403, site.token("acme revoked"): 401, tenant_admin: 403}
    for path in (EVENTS, NODES):
        for key, status in asked.items():
            assert site.wire.get(path, key).status == status
        assert site.wire.request("POST", path, keys["auditor"]).status == 405


def test_a_token_that_is_narrowed_to_a_model_reads_nothing(site, keys):
    """With the same scope and key as one that is not narrowed, which reads."""

    def token(**more):
        form = {"grant_type": EXCHANGE, "subject_token": keys["acme"], "subject_token_type": API_KEY, **more}
        body = urlencode(form).encode()
        headers = (*FORM, ("Content-Length", str(len(body))))
        answer = site.wire.send(request_bytes("POST", "/v1/token", None, headers, is_last=True) + body)
        assert answer.status == 200, answer.body
        return (("Authorization", f"Bearer {answer.json()['access_token']}"),)

    whole, narrowed = token(scope="audit:read"), token(scope="audit:read", model="acme/cars/1")
    for path in (EVENTS, NODES, "/audit/v1/usage", "/audit/v1/readers?model=acme/cars/1"):
        assert site.wire.get(path, headers=whole).status == 200
        refused = site.wire.get(path, headers=narrowed)
        assert refused.status == 403
        [record] = [one for one in site.installation.records() if one["id"] == record_of(refused)]
        assert record["reason"] == "missing-action"


def test_a_long_poll_returns_with_the_record_that_it_waited_for(site, keys, eventually):
    seen, waited_for = set(), []
    with site.wire.talk(timeout=40) as talk:
        after = talk.get(f"{EVENTS}?after=end", keys["acme"]).json()["next"]

        def poll():
            """Records of before that are indexed only now return it too: then it polls again."""
            nonlocal after
            while not seen.intersection(waited_for):
                page = talk.get(f"{EVENTS}?wait=30&after={after}&kind=decision", keys["acme"]).json()
                seen.update(one["record"]["id"] for one in page["events"])
                after = page["next"]

        thread = threading.Thread(target=poll)
        thread.start()
        assert eventually(lambda: site.gateway.metrics()["cachegate_feed_waiting"] == 1)
        waited_for.append(record_of(site.wire.get(FILE, keys["acme"])))
        thread.join()
    assert seen.issuperset(waited_for)


def test_a_poll_at_its_end_gets_the_records_of_its_own_reading_and_one_stands_for_both(site):
    key = site.installation.json("keys", "create", "--tenant", "hooli", "--scopes", "audit:read")["token"]
    with site.wire.talk(timeout=40) as talk:
        answer = talk.get(f"{EVENTS}?after=end", key)
        began = record_of(answer)
        last = talk.get(f"{EVENTS}?wait=1.5&after={answer.json()['next']}", key)
        assert record_of(last) == began, "one record stands for both"
        read = [one["record"] for one in last.json()["events"]]
        assert {one.get("decision_id", one["id"]) for one in read} == {began}


def test_a_stream_sends_records_as_they_come_and_resumes_by_its_last_id(site, keys):
    stream = Stream(site.wire, keys["auditor"], "after=end&tenant=globex")
    assert (stream.status, stream.headers[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
    events = stream.events()
    first = record_of(site.wire.get("/v1/models", site.token("globex")))
    cursor, record = next(one for one in events if one[1]["id"] == first)
    stream.close()
    second = record_of(site.wire.get("/v1/models/globex/lab/1", site.token("globex")))
    again = Stream(site.wire, keys["auditor"], "tenant=globex", (("Last-Event-ID", cursor),))
    ids = []
    for _, one in again.events():
        ids.append(one["id"])
        if one["id"] == second:
            break
    again.close()
    assert record["tenant"] == "globex"
    assert first not in ids


def test_a_poll_whose_client_leaves_ends_at_once(site, keys, eventually):
    """And says so: nothing was sent, and its place is free, long before its time is over."""
    key = site.installation.json("keys", "create", "--tenant", "hooli", "--scopes", "audit:read")
    poll = site.wire.connect()
    poll.sendall(request_bytes("GET", f"{EVENTS}?wait=60&after=end&since=2999-01-01T00:00:00Z", key["token"]))
    assert eventually(lambda: site.gateway.metrics()["cachegate_feed_waiting"] == 1)
    poll.close()
    assert eventually(lambda: site.gateway.metrics()["cachegate_feed_waiting"] == 0)
    assert eventually(lambda: ending_of(site, key)) == "client-gone"


def ending_of(site, key):
    """How the first reading of a key ended."""
    found = [one for one in site.installation.records() if one.get("key_id") == key["key_id"]]
    return next((one["ending"] for one in found if one["kind"] == "outcome"), None)


def test_a_reader_of_a_stream_that_takes_nothing_is_cut_and_holds_up_no_other(site, keys, eventually):
    key = site.installation.json("keys", "create", "--admin", "--role", "auditor")
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((site.wire.host, site.wire.port))
        stuck.sendall(request_bytes("GET", EVENTS, key["token"], EVENT_STREAM))
        assert eventually(lambda: site.gateway.metrics()["cachegate_feed_streams"] == 1)
        other = Stream(site.wire, keys["auditor"], "after=end&tenant=acme")
        wanted = record_of(site.wire.get(FILE, site.token("acme")))
        assert any(record["id"] == wanted for _, record in other.events())
        other.close()
        assert eventually(lambda: site.gateway.metrics()["cachegate_feed_streams"] == 0)
        assert eventually(lambda: ending_of(site, key)) == "client-gone"


ENDS = {
    "the key is revoked": ("keys", "revoke", "{key_id}"),
    "the key is disabled": ("keys", "disable", "{key_id}"),
    "the key ends": (),
    "the tenant is suspended": ("tenants", "suspend", "hooli"),
}


@pytest.mark.parametrize(
    "end", [pytest.param(one, marks=() if ENDS[one] else pytest.mark.slow) for one in ENDS]
)
def test_a_stream_and_a_poll_end_with_their_key(site, eventually, end):
    lasts = () if ENDS[end] else ("--expires", "8s")
    made = site.installation.json("keys", "create", "--tenant", "hooli", "--scopes", "audit:read", *lasts)
    stream = Stream(site.wire, made["token"], "after=end")
    assert stream.status == 200
    poll = site.wire.connect(timeout=60)
    poll.sendall(
        request_bytes("GET", f"{EVENTS}?wait=50&after=end&since=2999-01-01T00:00:00Z", made["token"])
    )
    assert eventually(lambda: site.gateway.metrics()["cachegate_feed_waiting"] == 1)
    if ENDS[end]:
        site.installation.run(*(one.format(**made) for one in ENDS[end]))
    with suppress(ConnectionError):
        while stream.file.readline():
            pass
    try:
        received = poll.recv(1000)
    except ConnectionError:
        received = b""
    assert not received.startswith(b"HTTP/1.1 200")
    poll.close()
    stream.close()
    assert eventually(lambda: site.gateway.metrics()["cachegate_feed_streams"] == 0)
    if "tenants" in ENDS[end]:
        site.installation.run("tenants", "resume", "hooli", "--force")


def test_a_tenant_has_a_bounded_number_of_streams(site, keys):
    open_streams = [Stream(site.wire, keys["globex"], "after=end") for _ in range(20)]
    statuses = [one.status for one in open_streams]
    assert {200, 503} == set(statuses)
    other = Stream(site.wire, keys["auditor"], "after=end")
    assert other.status == 200
    for one in (*open_streams, other):
        one.close()


def test_nodes_are_listed_and_a_tenant_is_told_their_addresses_alone(site, keys):
    [node] = site.wire.get(NODES, keys["auditor"]).json()["nodes"]
    assert (node["node"], node["url"], node["workers"]) == (node_of(site), None, 2)
    [told] = site.wire.get(NODES, keys["acme"]).json()["nodes"]
    assert told == {"node": node_of(site), "url": None, "is_this": True}


def test_reading_is_recorded_once_a_minute_and_refusals_each_time(site, keys, eventually):
    key = site.installation.json("keys", "create", "--tenant", "hooli", "--scopes", "audit:read")
    with site.wire.talk() as talk:
        ids = {record_of(talk.get(EVENTS, key["token"])) for _ in range(20)}
        refused = {record_of(talk.get(f"{EVENTS}?after=x", key["token"])) for _ in range(3)}
    assert len(ids) == 1
    assert len(refused) == 3

    def own():
        found = [one for one in site.installation.records() if one.get("key_id") == key["key_id"]]
        return found if any(one["kind"] == "outcome" for one in found) else None

    of_reading = [one for one in eventually(own) if one["kind"] in {"decision", "outcome"}]
    assert sorted(one["kind"] for one in of_reading if one.get("decision") != "deny") == [
        "decision",
        "outcome",
    ]
    assert sum(one.get("reason") == "unknown-cursor" for one in of_reading) == 3


@pytest.fixture
def follow(site, keys, tmp_path):
    """The command, through the public listener or that of the admin API."""

    def run(*more, wire=site.wire, key=keys["auditor"], status=0):
        through = {"CACHEGATE_URL": f"http://127.0.0.1:{wire.port}", "CACHEGATE_ADMIN_KEY": key}
        site_of_follower = replace(
            site.installation, environment={**site.installation.environment, **through}
        )
        return site_of_follower.run(
            "audit", "follow", "--once", "--cursor-file", str(tmp_path / "cursors"), *more, status=status
        )

    return run


def test_follow_prints_every_record_once_and_goes_on_where_it_ended(site, keys, follow, eventually):
    last = record_of(site.wire.get(FILE, site.token("acme")))
    read_until(site, keys["auditor"], last, eventually)
    lines = follow().stdout.splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert last in ids
    assert len(ids) == len(set(ids))
    written = b"".join(path.read_bytes() for path in site.installation.audit.glob("*.jsonl")).decode()
    assert all(f"{line}\n" in written for line in lines)
    later = record_of(site.wire.get(FILE, site.token("acme")))
    read_until(site, keys["auditor"], later, eventually)
    more = [json.loads(line)["id"] for line in follow(wire=site.gateway.admin).stdout.splitlines()]
    assert later in more
    assert not set(ids) & set(more)


def test_follow_ends_with_a_clear_line_for_a_key_or_a_cursor_that_is_refused(site, keys, follow, tmp_path):
    assert "audit:read" in follow(key=site.token("acme"), status=2).stderr
    (tmp_path / "cursors").write_text(json.dumps({"nodes": {node_of(site): "x" * 40}}))
    told = follow(status=2)
    assert "cursor" in told.stderr
    assert not told.stdout


def test_a_tenant_follows_its_own_records(site, keys, follow, eventually):
    last = record_of(site.wire.get(FILE, keys["acme"]))
    read_until(site, keys["acme"], last, eventually)
    views = [json.loads(line) for line in follow(key=keys["acme"]).stdout.splitlines()]
    assert last in {one["id"] for one in views}
    assert not {"tenant", "chain", "policies"} & {name for one in views for name in one}


def test_a_reader_with_a_name_goes_on_where_it_acknowledged_until_it_is_removed(site, keys):
    name = "siem-here"
    path = f"{EVENTS}?consumer={name}&limit=2"
    assert site.wire.get(path, keys["auditor"]).status == 400
    site.installation.run("audit", "consumers", "add", name, "--feed", "--from-start")
    first = site.wire.get(path, keys["auditor"]).json()
    assert site.wire.get(path, keys["auditor"]).json()["events"][0]["record"] == first["events"][0]["record"]
    second = site.wire.get(f"{path}&after={first['next']}", keys["auditor"]).json()
    again = site.wire.get(path, keys["auditor"]).json()
    assert [one["record"] for one in again["events"]] == [one["record"] for one in second["events"]]
    listed = site.installation.json("audit", "consumers", "list")["consumers"]
    assert [one["delivered"] for one in listed if one["name"] == name] == [2]
    assert site.wire.get(path, keys["acme"]).status == 400
    site.installation.run("audit", "consumers", "remove", name)
    assert site.wire.get(path, keys["auditor"]).status == 400


def test_the_operators_readers_go_on_from_a_cursor_of_the_index_and_tenants_do_not(site, keys):
    reader = IndexReader(site.installation.audit, node_of(site))
    page = reader.read(reader.start(), 2)
    after = encode_cursor(page.records[0].cursor)
    answer = site.wire.get(f"{EVENTS}?after={after}&limit=1", keys["auditor"])
    assert answer.json()["events"][0]["record"]["id"] == page.records[1].record.id
    elsewhere = encode_cursor(msgspec.structs.replace(page.records[0].cursor, node="another-node"))
    for key, cursor in ((keys["acme"], after), (keys["auditor"], elsewhere)):
        answer = site.wire.get(f"{EVENTS}?after={cursor}", key)
        assert (answer.status, answer.json()["type"]) == (400, "urn:cachegate:problem:unknown-cursor")


@pytest.mark.slow
def test_a_worker_that_stops_ends_its_streams_and_answers_its_polls(new_installation, eventually):
    """In order, and long before the grace for transfers is over."""
    installation = new_installation("stopping", CACHEGATE_GRACE_SECONDS="3600")
    key = installation.json("keys", "create", "--admin", "--role", "auditor")["token"]
    gateway = installation.serve(workers=1)
    stream = Stream(gateway.wire, key, "after=end")
    polled = []
    thread = threading.Thread(
        target=lambda: polled.append(gateway.wire.get(f"{EVENTS}?wait=60&after=end&kind=gap", key))
    )
    thread.start()
    assert eventually(lambda: gateway.metrics()["cachegate_feed_waiting"] == 1)
    assert gateway.stop() == 0
    assert all(line.startswith((b"retry", b"id", b":", b"data")) for line in stream.lines() if line)
    stream.close()
    thread.join()
    assert polled[0].status == 200
