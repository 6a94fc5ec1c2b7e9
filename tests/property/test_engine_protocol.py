"""Laws of parsing the engine's and the provider's messages: only declared errors, and no data lost."""

from __future__ import annotations

import json
import string
from contextlib import suppress
from datetime import UTC, timedelta, timezone
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.engine.answers import parse_answer, rewritten
from gateway.engine.local_answers import PackageOnDisk, find_local_answer
from gateway.engine.proxy_urls import find_path_below, is_ours, parse_proxied, wrap
from gateway.engine.questions import parse_question
from gateway.engine.registry import parse_record
from gateway.engine.request_headers import PASSED_ON, headers_for_upstream
from gateway.engine.resolutions import parse_resolution
from gateway.engine.urls import parse_url
from gateway.model.errors import BadNameError, Reason, Refusal, Unavailable
from gateway.model.names import ModelId, PackageId, parse_model_id

MODEL = ModelId("acme/cars/1")
MD5 = "b1946ac92492d2347c6235b4d2611184"
HEADER_NAMES = sorted(PASSED_ON | {b"authorization", b"x-api-key", b"x-enforce-internal-artefacts-urls"})
QUERY_REFUSALS = {Reason.MALFORMED_QUERY, Reason.PATH_TOO_LONG}


def _parses(parse, text):
    try:
        parse(text)
    except BadNameError:
        return False
    return True


def _refusal(parse):
    """What the parser returns, and why it refused: one of the two is None."""
    try:
        return parse(), None
    except Refusal as refusal:
        return None, refusal.reason


_readable = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
model_ids = (
    st.lists(_readable, min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda text: _parses(parse_model_id, text))
    .map(ModelId)
)
_names = st.text(string.ascii_letters, min_size=1, max_size=8).map(lambda name: f"x-{name}-q")
_values = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)

# Bytes that a query trick is made of are frequent; any other byte can come as well.
_tricks = st.sampled_from(
    [b"modelId=", b"&", b"=", b"+", b"%2", b"%25", b"%00", b"%26", b";", b"#", b"startAfter=", b"[]", b"url="]
)
raw_queries = st.lists(st.one_of(_tricks, st.binary(min_size=1, max_size=3), st.just(b"a")), max_size=10).map(
    b"".join
)

_url_pieces = st.sampled_from(
    [
        "https://",
        "http://",
        "//",
        "/",
        "\\",
        "@",
        ":",
        ":80",
        "?",
        "#",
        "%",
        "%2e",
        "%2F",
        "%00",
        "%25",
        "..",
        ".",
        "[",
        "]",
        "[::1]",
        "127.0.0.1",
        "0x7f",
        "1",
        "a.example",
        "gw.example",
        "a",
        "&",
        "=",
        ";",
        "ż",
        " ",
        "\t",
        "\u3002",
        "_",
        "-",
    ]
)
url_like = st.lists(_url_pieces, max_size=8).map(lambda pieces: "".join(["https://", *pieces]))
texts = st.one_of(url_like, st.lists(_url_pieces, max_size=6).map("".join), st.text(max_size=20))

_label = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=6)
hosts = st.one_of(
    st.lists(_label, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "example"])),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
_path_text = string.ascii_letters + string.digits + "-_~!$&'()*+,;=:@ /"
paths = st.text(_path_text, max_size=20).map(
    lambda text: "/" + quote(text.strip("/"), safe="/:@!$&'()*+,;=~")
)
queries = st.one_of(st.none(), st.text(string.ascii_letters + "=&+/?:@-_.~", max_size=20))


@st.composite
def urls(draw):
    port = draw(st.one_of(st.just(""), st.integers(1, 65535).map(lambda number: f":{number}")))
    query = draw(queries)
    text = f"{draw(st.sampled_from(['http', 'https']))}://{draw(hosts)}{port}{draw(paths)}"
    return text if query is None else f"{text}?{query}"


class TestQuestions:
    """What we decide by is what the provider reads."""

    @given(raw_queries)
    @example(b"modelId=a&modelId=b")
    @example(b"modelId=%2e%2e")
    def test_a_query_is_read_or_refused(self, raw_query):
        question, reason = _refusal(lambda: parse_question(raw_query))
        assert reason in QUERY_REFUSALS or parse_question(question.upstream_query().encode()) == question

    @given(
        model_ids,
        st.one_of(st.none(), _values.filter(bool)),
        st.lists(st.tuples(_names, _values), max_size=4),
    )
    def test_the_provider_reads_what_was_decided(self, model, start_after, extra):
        pairs = [("modelId", model), *([] if start_after is None else [("startAfter", start_after)]), *extra]
        question = parse_question(urlencode(pairs).encode())
        assert parse_qsl(question.upstream_query(), keep_blank_values=True) == pairs
        assert (question.model, question.start_after) == (model, start_after)


class TestHeaders:
    """No header gets upstream unnamed."""

    @given(st.lists(st.tuples(st.one_of(st.sampled_from(HEADER_NAMES), st.binary()), st.binary())))
    def test_the_only_credential_is_ours_and_no_internal_header_passes(self, headers):
        *passed, last = headers_for_upstream(headers, (b"authorization", b"ours"))
        assert last == (b"authorization", b"ours")
        assert {name for name, _ in passed} <= PASSED_ON
        assert set(passed) <= set(headers)
        assert len({name for name, _ in passed}) == len(passed)


class TestUrls:
    """A URL that is accepted means the same to whoever splits it, and to the client that will send it."""

    @given(texts)
    @example("https://a\\@b/")
    @example("https://[::1%25x]/")
    @example("https://a:80\n/")
    @settings(deadline=None)
    def test_a_text_has_one_reading_or_none(self, text):
        try:
            url = parse_url(text)
        except BadNameError:
            return
        self._agrees(text, url)

    @given(urls())
    @settings(deadline=None)
    def test_plain_urls_are_accepted_and_keep_their_meaning(self, text):
        assume(_parses(parse_url, text))
        self._agrees(text, parse_url(text))

    @given(hosts, paths, queries)
    def test_ordinary_urls_parse(self, host, path, query):
        assume(not path.startswith("//"))
        assume(not {segment.partition(";")[0] for segment in path.split("/")} & {".", ".."})
        assert parse_url(f"https://{host}{path}" + ("" if query is None else f"?{query}")).path == path

    def _agrees(self, text, url):
        split = urlsplit(text)
        assert parse_url(url.text()) == url
        assert (split.scheme, split.path, split.query) == (url.scheme, url.path, url.query or "")
        assert parse_url(f"http://{split.netloc}").host == url.host
        assert (split.port or {"http": 80, "https": 443}[url.scheme]) == url.port
        assert split.username is split.password is None
        sent = httpx.URL(url.text())
        assert sent.host == url.host.strip("[]")
        assert (sent.port or {"http": 80, "https": 443}[sent.scheme]) == url.port
        assert sent.raw_path.decode() == url.target


class TestProxyUrls:
    """`/proxy?url=` is the inverse of what the engine does."""

    PUBLIC = parse_url("https://gw.example/cache")

    @given(st.one_of(raw_queries, texts.map(lambda text: b"url=" + quote(text, safe="").encode())))
    def test_a_query_is_read_or_refused(self, raw_query):
        url, reason = _refusal(lambda: parse_proxied(raw_query, self.PUBLIC))
        assert reason in QUERY_REFUSALS or find_path_below(url, self.PUBLIC) != "/proxy"

    @given(urls())
    def test_what_the_engine_wrapped_is_unwrapped(self, text):
        assume(_parses(parse_url, text))
        wrapped = wrap("https://gw.example/cache", text)
        assert parse_url(wrapped).path == "/cache/proxy"
        assert parse_proxied(wrapped.partition("?")[2].encode(), self.PUBLIC) == parse_url(text)

    @given(urls())
    def test_only_our_origin_and_path_is_ours(self, text):
        assume(_parses(parse_url, text))
        url = parse_url(text)
        assert is_ours(url, url)
        assert is_ours(url, self.PUBLIC) == url.text().startswith(
            ("https://gw.example/cache/", "https://gw.example/cache?")
        )


_json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_strange_package = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(st.just("external-model-package-v1"), _json),
        "packageId": st.one_of(st.just("pkgA1"), st.just("PKGA1"), _json),
        "packageManifest": st.one_of(st.just({"type": "x"}), _json),
        "packageFiles": st.one_of(
            _json,
            st.lists(
                st.fixed_dictionaries(
                    {"downloadUrl": st.just("https://storage/?sig=s3cret")},
                    optional={
                        "fileHandle": st.one_of(st.just("w.onnx"), _json),
                        "md5Hash": st.one_of(st.just(MD5), _json),
                    },
                ),
                max_size=3,
            ),
        ),
    },
)


class TestAnswers:
    """A provider's URL is never shown, and nothing else is ever lost."""

    @given(st.one_of(st.binary(max_size=50), _json.map(lambda value: json.dumps(value).encode())))
    def test_a_body_is_read_or_decides_nothing(self, raw):
        with suppress(Unavailable):
            parse_answer(raw)

    @given(st.lists(_strange_package, max_size=3), st.dictionaries(st.text(max_size=6), _json, max_size=3))
    @settings(deadline=None)
    def test_no_url_of_the_provider_is_shown_and_every_other_field_is(self, packages, extra):
        metadata = {
            **extra,
            "type": "external-model-metadata-v1",
            "modelId": MODEL,
            "modelArchitecture": "resnet",
            "modelPackages": packages,
        }
        answer = parse_answer(json.dumps({**extra, "modelMetadata": metadata}).encode())
        body = rewritten(answer, lambda package, file: "LINK")
        assert b"s3cret" not in body
        shown = json.loads(body)
        assert {**shown, "modelMetadata": None} == {**extra, "modelMetadata": None}
        assert {**shown["modelMetadata"], "modelPackages": None} == {**metadata, "modelPackages": None}
        assert len(shown["modelMetadata"]["modelPackages"]) == len(packages)
        assert len(answer.packages) + answer.withheld == len(packages)


class TestFilesOfTheEngine:
    """Whatever lies on the volume, it is read or refused."""

    @given(st.one_of(st.binary(max_size=60), _json.map(lambda value: json.dumps(value).encode())))
    def test_bytes_are_read_or_refused(self, raw):
        for parse in (lambda: parse_resolution(raw, UTC), lambda: parse_record(raw, MODEL)):
            parsed, reason = _refusal(parse)
            assert parsed is not None or reason is Reason.UNSERVABLE
        on_disk = PackageOnDisk(package=PackageId("p"), raw_manifest=raw, servable=frozenset())
        assert find_local_answer(MODEL, [on_disk]) is None

    @given(st.datetimes(), st.integers(-12 * 60, 14 * 60), st.booleans())
    def test_every_time_that_python_writes_is_read(self, moment, minutes, is_aware):
        zone = timezone(timedelta(minutes=minutes))
        written = moment.replace(tzinfo=zone) if is_aware else moment
        entry = {
            "model_id": MODEL,
            "model_package_id": "p",
            "resolved_files": [],
            "task_type": "classification",
            "created_at": written.isoformat(),
        }
        created = parse_resolution(json.dumps(entry).encode(), UTC if is_aware else zone).created_at
        assert created == moment.replace(tzinfo=zone).timestamp()
