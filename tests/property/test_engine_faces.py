"""Laws of the functions that the engine's faces are built from."""

from __future__ import annotations

import json
import string
from urllib.parse import quote, urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_attestation,
    decode_origin,
    encode,
)
from gateway.engine.answers import narrowed, parse_answer, rewritten
from gateway.engine.proxy_urls import find_path_below
from gateway.engine.signed_proxy_urls import parse_asked, wrap_signed
from gateway.engine.urls import parse_url
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.facts import Attestation, Origin
from gateway.model.names import FileHandle, Md5, ModelId, PackageId, parse_model_id
from gateway.resource.paths import download_link, is_download, parse_download

PUBLIC_URL = "https://models.example/gw"
PUBLIC = parse_url(PUBLIC_URL)
REFUSALS = {Reason.MALFORMED_QUERY, Reason.PATH_TOO_LONG}


def _is_model_id(text):
    try:
        parse_model_id(text)
    except BadNameError:
        return False
    return True


_readable = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
model_ids = st.lists(_readable, min_size=1, max_size=4).map("/".join).filter(_is_model_id).map(ModelId)
packages = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8).map(
    lambda one: PackageId(f"q{one}")  # none of the names that Windows keeps for itself
)
handles = st.text(string.ascii_lowercase, min_size=1, max_size=8).map(lambda one: FileHandle(f"x{one}.bin"))
signatures = st.builds(
    "se={}&sig=key_0123456789ab.{}".format,
    st.integers(1, 10**11),
    st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=43),
)
digests = st.frozensets(st.integers(0, 2**128 - 1).map(lambda number: Md5(f"{number:032x}")), max_size=8)
_tricks = st.sampled_from(
    [
        b"url=",
        b"&",
        b"se=1",
        b"&sig=x",
        b"%2F",
        b"%3F",
        b"%26",
        b"%25",
        b"#",
        b";",
        quote(PUBLIC_URL, safe="").encode(),
    ]
)
raw_queries = st.lists(st.one_of(_tricks, st.binary(max_size=4)), max_size=10).map(b"".join)


@given(model_ids, packages, handles, signatures)
def test_a_wrapped_link_reads_back_as_the_file_and_the_signature_that_it_was(
    model, package, handle, signature
):
    link = f"{PUBLIC_URL}{download_link(model, package, handle)}?{signature}"
    wrapped = wrap_signed(PUBLIC_URL, link)
    for query in (urlsplit(wrapped).query, f"url={quote(wrapped, safe='')}", f"url={quote(link, safe='')}"):
        url = parse_asked(query.encode(), PUBLIC)
        assert url.text() == link
        raw_path = find_path_below(url, PUBLIC).encode()
        assert is_download(raw_path)
        named = parse_download(raw_path)
        assert (named.model, named.package, named.file) == (model, package, handle)


@given(raw_queries)
@example(b"url=&se=1&sig=x")
@example(b"url=%F0&se=1&sig=x")
@example(b"url=http%3A%2F%2F%5B&se=1&sig=x")
def test_whatever_is_asked_of_the_proxy_is_read_or_refused(raw_query):
    url, reason = _asked(raw_query)
    assert reason in REFUSALS if url is None else parse_url(url.text()) == url


def _asked(raw_query):
    try:
        return parse_asked(raw_query, PUBLIC), None
    except Refusal as refusal:
        return None, refusal.reason


def _answer(described):
    """An answer with these packages; of those without files the type is wrong, and they are withheld."""
    return {
        "modelMetadata": {
            "type": "external-model-metadata-v1",
            "modelId": "acme/cars/1",
            "modelArchitecture": "resnet",
            "modelPackages": [
                {
                    "type": "external-model-package-v1" if files else "another",
                    "packageId": package,
                    "packageManifest": {"opset": 1.50},
                    "packageFiles": [
                        {"fileHandle": handle, "downloadUrl": "https://storage.example/"}
                        for handle in sorted(files)
                    ],
                }
                for package, files in described.items()
            ],
        }
    }


@given(
    st.dictionaries(packages.map(str.lower), st.frozensets(handles, max_size=3), max_size=5),
    st.data(),
)
def test_a_narrowed_answer_is_the_one_of_a_provider_that_has_no_other_packages(described, data):
    offered = [package for package, files in described.items() if files]
    shown = frozenset(data.draw(st.lists(st.sampled_from(offered), unique=True)) if offered else ())
    answer = parse_answer(json.dumps(_answer(described)).encode())
    kept = {package: files for package, files in described.items() if package in shown}
    other = parse_answer(json.dumps(_answer(kept)).encode())
    result = narrowed(answer, shown)
    assert [one.package for one in result.packages] == list(kept)

    def link(package, file):
        return f"{package}/{file.handle}"

    assert rewritten(result, link) == rewritten(other, link)


@given(model_ids, digests, st.integers(0, 2**40))
def test_an_attestation_is_read_as_it_was_written_and_under_no_other_name(model, named, generation):
    attestation = Attestation(model=model, digests=named, generation=generation)
    raw = encode(attestation)
    assert decode_attestation(raw, model) == attestation
    assert _is_unreadable(lambda: decode_attestation(raw, ModelId(f"{model}x")))


@given(model_ids, packages, handles, st.booleans())
def test_an_origin_is_read_as_it_was_written_and_under_no_other_name(model, package, handle, is_ours):
    origin = Origin(model=model, package=package, handle=handle, is_ours=is_ours)
    raw = encode(origin)
    assert decode_origin(raw, model, package, handle) == origin
    assert _is_unreadable(lambda: decode_origin(raw, model, package, FileHandle(f"{handle}x")))


@given(st.binary(max_size=60))
def test_bytes_are_a_record_or_unreadable(raw):
    for read in (
        lambda: decode_attestation(raw, ModelId("a")),
        lambda: decode_origin(raw, ModelId("a"), PackageId("p"), FileHandle("f")),
    ):
        assert _is_unreadable(read) or read() is not None


def _is_unreadable(read):
    try:
        read()
    except UnreadableRecordError:
        return True
    return False
