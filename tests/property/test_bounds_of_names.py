"""The length of a name has the same bound wherever the name comes from, and whatever it names.

Each reader below takes a name from one kind of source: a URL, a document, a record, an answer. Whether it
accepts the name is decided by `parse_model_id` or `parse_file_handle` alone.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from datetime import UTC
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.directory.documents.parse import load_tenant_documents
from gateway.directory.records.codec import UnreadableRecordError, decode_alias, decode_grants, encode
from gateway.directory.transfer.lines import parse_fact
from gateway.engine.answers import METADATA_TYPE, PACKAGE_TYPE, parse_answer
from gateway.engine.proxy_urls import parse_proxied
from gateway.engine.questions import parse_question
from gateway.engine.registry import parse_record
from gateway.engine.resolutions import parse_resolution
from gateway.engine.stat_answers import parse_stat
from gateway.faces.content import CATALOGUE
from gateway.faces.hooks import SIGNATURE, authority_hook
from gateway.inprocess.hook_request import HookRequest
from gateway.model.access import Action, WireRequest
from gateway.model.errors import BadNameError, Misconfigured, NameTooLongError, Reason, Refusal, Unavailable
from gateway.model.facts import Alias, Grant, Grants
from gateway.model.limits import MAX_TARGET_BYTES
from gateway.model.names import (
    MAX_NAME_BYTES,
    MAX_NAME_SEGMENTS,
    ModelId,
    Pattern,
    TenantId,
    parse_file_handle,
    parse_model_id,
    parse_pattern,
)
from gateway.resource.manifest import parse_manifest
from gateway.resource.paths import download_link, locate, model_link, parse_download

MD5 = "b1946ac92492d2347c6235b4d2611184"
SECRET = b"s" * 32
NOW = 1_767_225_600.0


def request(path=b"/", query=b"", headers=()):
    return WireRequest(
        method="GET",
        raw_path=path,
        query=query,
        headers=tuple(headers),
        client="192.0.2.1",
        route="-",
        trace_id=None,
        received_at=NOW,
    )


def as_body(**members):
    return json.dumps(members).encode()


class _Ends:
    """Whom a hook tells. What the models are is noted by the fact that it is asked at all."""

    async def end(self, keys, models):
        class Ended:
            generation, not_ours = 1, 0

        return Ended


def by_hook(text):
    body = as_body(models=[text])
    mac = hmac.digest(SECRET, b"%d.%b" % (NOW, body), "sha256").hex().encode()
    hook = authority_hook(SECRET, _Ends())
    asyncio.run(hook.take(request(headers=[(SIGNATURE, b"t=%d,v1=%b" % (NOW, mac))]), body))


def by_answer(text):
    head = {"type": METADATA_TYPE, "modelId": text, "modelArchitecture": "resnet", "modelPackages": []}
    parse_answer(as_body(modelMetadata=head))


def by_stat(text):
    parse_stat(as_body(modelMetadata={"modelArchitecture": "a", "taskType": "b", "modelId": text}))


def by_registry(text):
    raw = as_body(format_version=1, canonical_model_id=text, model={}, packages=[])
    parse_record(raw, ModelId(text))


def by_resolution(text):
    entry = {"model_id": text, "model_package_id": "p", "resolved_files": [], "task_type": "t"}
    parse_resolution(as_body(**entry, created_at="2026-01-01T00:00:00"), UTC)


def by_grants_record(text):
    grant = Grant(grant_id="g", actions=frozenset({"read"}), models=(Pattern(text),))
    decode_grants(encode(Grants(tenant_id=TenantId("acme"), grants=(grant,))), TenantId("acme"))


def by_alias_record(text):
    decode_alias(encode(Alias(alias=ModelId("short"), canonical=ModelId(text))), ModelId("short"))


def by_import(kind, name, **rest):
    fields = {"layout": 1, "source": "cli", **rest}
    return lambda text: parse_fact(as_body(fact=kind, **{name: text}, **fields))


def by_question(query):
    return lambda text: parse_question(query.format(quote(text, safe="")).encode())


def by_wrapped_question(text):
    inner = f"https://api.example/w?modelId={quote(text, safe='')}"
    url = parse_proxied(b"url=" + quote(inner, safe="").encode())
    parse_question(url.query.encode())


def by_page(text):
    CATALOGUE.locate(request(b"/v1/models", b"after=" + quote(text, safe="").encode()))


def by_manifest(name):
    return lambda text: parse_manifest(as_body(**{name: text}, package_artifacts=[]))


def by_inprocess(text):
    question = HookRequest(
        hook="load", action=Action.READ, raw_model=text, raw_package="pkgA1", raw_key="key"
    )
    question.route().locate(question.request(NOW))


READS_MODEL = {
    "a path": lambda text: locate(model_link(ModelId(text)).encode()),
    "a link": lambda text: parse_download(download_link(ModelId(text), "pkgA1", "w.onnx").encode()),
    "a path that escapes all": lambda text: locate(
        b"/v1/models/" + b"".join(b"%%%02X" % byte for byte in text.encode())
    ),
    "a page's cursor": by_page,
    "a question": by_question("modelId={}"),
    "a wrapped question": by_wrapped_question,
    "a hook's body": by_hook,
    "the provider's metadata": by_answer,
    "the provider's stat": by_stat,
    "a registry record": by_registry,
    "a resolution": by_resolution,
    "a grants record": by_grants_record,
    "an alias record": by_alias_record,
    "an imported alias": by_import("alias", "alias", canonical="acme/cars/1"),
    "an imported alias's target": by_import("alias", "canonical", alias="short"),
    "an imported rule": by_import("rule", "pattern", owner=None, visibility=None, groups=["g"]),
    "a manifest's canonical id": by_manifest("canonical_model_id"),
    "a manifest's cache id": by_manifest("model_id"),
    "an engine in this process": by_inprocess,
}
REFUSES = (BadNameError, Refusal, Unavailable, UnreadableRecordError, Misconfigured)


def takes(read, text):
    try:
        read(text)
    except REFUSES:
        return False
    return True


def segments(count, text="a"):
    return "/".join([text] * count)


def of_bytes(size, character="a"):
    """A name of so many bytes, in two segments."""
    width = len(character.encode())
    return "a/" + character * ((size - 2) // width) + "a" * ((size - 2) % width)


sizes = st.integers(MAX_NAME_BYTES - 3, MAX_NAME_BYTES + 3)
names_at_the_bound = st.one_of(
    st.integers(MAX_NAME_SEGMENTS - 2, MAX_NAME_SEGMENTS + 3).map(segments),
    st.builds(of_bytes, sizes, st.sampled_from(["a", "ż", "€", "𝄞", " ", "%"])),
    st.integers(1, 40).map(lambda count: segments(count, "a" * 12)),
)


def is_within(text):
    return len(text.encode()) <= MAX_NAME_BYTES and text.count("/") < MAX_NAME_SEGMENTS


@pytest.mark.parametrize("where", READS_MODEL)
@given(names_at_the_bound)
@example(segments(MAX_NAME_SEGMENTS))
@example(segments(MAX_NAME_SEGMENTS + 1))
@example(of_bytes(MAX_NAME_BYTES))
@example(of_bytes(MAX_NAME_BYTES + 1))
@example(of_bytes(MAX_NAME_BYTES, "ż"))
@example(of_bytes(MAX_NAME_BYTES + 1, "ż"))
def test_a_model_id_has_one_bound_wherever_it_comes_from(where, text):
    assert takes(READS_MODEL[where], text) is is_within(text)


@given(names_at_the_bound)
def test_a_pattern_has_the_bounds_of_the_ids_that_it_covers(text):
    pattern = f"{text}/*"
    assert takes(parse_pattern, pattern) is is_within(pattern)
    assert takes(parse_model_id, f"{text}/a") is is_within(pattern)


def documents(folder, **models):
    lines = ["[tenant]", 'id = "acme"', "[models]"]
    lines += [f"{name} = {value}" for name, value in models.items()]
    (folder / "acme.toml").write_text("\n".join(lines))
    return load_tenant_documents(folder)


@pytest.mark.parametrize(
    "text", [segments(MAX_NAME_SEGMENTS), segments(MAX_NAME_SEGMENTS + 1), "ż" * 256, "ż" * 257]
)
def test_a_tenant_document_has_the_same_bounds_and_says_where(tmp_path, text):
    quoted = json.dumps(text, ensure_ascii=False)
    for models in (
        {"own": f"[{quoted}]"},
        {"public": f"[{quoted}]"},
        {"aliases": f'{{ {quoted} = "acme/cars/1" }}'},
        {"aliases": f"{{ short = {quoted} }}"},
        {"groups": f"{{ some = [{quoted}] }}"},
    ):
        if is_within(text):
            documents(tmp_path, **models)
        else:
            with pytest.raises(Misconfigured, match=f"acme.toml:4.*{MAX_NAME_BYTES} bytes"):
                documents(tmp_path, **models)


# File handles.


def by_handle_in_path(text):
    locate(f"/v1/models/acme/cars/1/-/pkgA1/{text}".encode())


def by_handle_in_link(text):
    parse_download(f"/d/acme/cars/1/-/pkgA1/{text}".encode())


def by_handle_in_answer(text):
    file = {"fileHandle": text, "downloadUrl": "https://x.example/f", "md5Hash": MD5}
    package = {"type": PACKAGE_TYPE, "packageId": "p", "packageManifest": {}, "packageFiles": [file]}
    head = {"type": METADATA_TYPE, "modelId": "a", "modelArchitecture": "r", "modelPackages": [package]}
    if not parse_answer(as_body(modelMetadata=head)).packages:
        raise BadNameError("withheld")


def by_handle_in_registry(text):
    package = {"package_id": "p", "backend": "torch", "artifacts": [{"file_handle": text, "md5_hash": MD5}]}
    raw = as_body(format_version=1, canonical_model_id="a", model={}, packages=[package])
    if not parse_record(raw, ModelId("a")).packages:
        raise BadNameError("left out")


def by_handle_in_manifest(text):
    artifacts = [{"file_handle": text, "md5_hash": MD5}, {"file_handle": "other.onnx", "md5_hash": MD5}]
    manifest = parse_manifest(as_body(package_artifacts=artifacts))
    assert [one.handle for one in manifest.artifacts if one.handle != text] == ["other.onnx"]
    assert manifest.too_long == 2 - len(manifest.artifacts)
    if manifest.too_long:
        raise BadNameError("not servable")


READS_HANDLE = {
    "a path": by_handle_in_path,
    "a link": by_handle_in_link,
    "the provider's metadata": by_handle_in_answer,
    "a registry record": by_handle_in_registry,
    "a manifest": by_handle_in_manifest,
}
handles_at_the_bound = st.one_of(
    st.integers(MAX_NAME_SEGMENTS - 2, MAX_NAME_SEGMENTS + 3).map(segments),
    sizes.map(lambda size: "/".join(["a" * 199] * 2 + ["a" * (size - 400)])),
    st.integers(1, 60).map(lambda count: segments(count, "a" * 11)),
)


@pytest.mark.parametrize("where", READS_HANDLE)
@given(handles_at_the_bound)
@example(segments(MAX_NAME_SEGMENTS + 1))
@example("/".join(["a" * 199] * 2 + ["a" * 113]))
def test_a_file_handle_has_the_same_bound_wherever_it_comes_from(where, text):
    assert takes(READS_HANDLE[where], text) is is_within(text)


@pytest.mark.parametrize("parse", [parse_model_id, parse_pattern, parse_file_handle])
@given(st.text(st.sampled_from("a/.*é\0\ud800"), min_size=MAX_NAME_BYTES + 1, max_size=2 * MAX_NAME_BYTES))
def test_whatever_else_is_wrong_with_it_a_long_name_is_too_long_and_is_not_repeated(parse, text):
    with pytest.raises(NameTooLongError) as caught:
        parse(text)
    assert len(str(caught.value)) < 120


def test_a_path_that_is_too_long_for_a_name_is_a_bad_path_and_not_a_long_target():
    path = b"/v1/models/" + b"%C5%BC" * (MAX_NAME_BYTES // 2) + b"a"
    assert len(path) < MAX_TARGET_BYTES
    with pytest.raises(Refusal) as caught:
        locate(path)
    assert caught.value.reason is Reason.MALFORMED_PATH
