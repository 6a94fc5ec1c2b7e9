"""Laws of the path grammar."""

from __future__ import annotations

import re
import string
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.model.access import Resource, ResourceKind
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import parse_file_handle, parse_md5, parse_model_id, parse_package_id
from gateway.resource.paths import locate, model_link, shape_of

ALPHANUMERIC = string.ascii_letters + string.digits


def _valid(parse, candidates):
    def keep(text):
        try:
            parse(text)
        except BadNameError:
            return False
        return True

    return candidates.filter(keep).map(parse)


_segments = st.one_of(
    st.sampled_from(
        ["-", "%", "%2D", "%2F", "a", "?", "#", "-a", "...", " ", "+", ";", "żółć", "cafe\u0301"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12),
)
model_ids = _valid(parse_model_id, st.lists(_segments, min_size=1, max_size=6).map("/".join))
package_ids = _valid(parse_package_id, st.text(ALPHANUMERIC, min_size=1, max_size=40))
file_handles = _valid(
    parse_file_handle,
    st.lists(st.text(ALPHANUMERIC + "._-", min_size=1, max_size=12), min_size=1, max_size=4).map("/".join),
)
# Bytes that a path trick is made of are frequent; any other byte can come as well.
raw_tails = st.lists(
    st.one_of(
        st.sampled_from(
            [b"/", b"-", b"/-/", b"%2F", b"%2e", b"..", b".", b"%", b"%25", b"%00", b"\\", b"pkg", b"a"]
        ),
        st.binary(min_size=1, max_size=3),
        st.sampled_from([b"%C0%AF", b"%ED%A0%80", b"%C5%BC", b"\xc5\xbc"]),
    ),
    max_size=12,
).map(b"".join)


class TestLinks:
    """`locate` reads every link back to the names it was made of."""

    @given(model_ids)
    @example(parse_model_id("-"))
    @example(parse_model_id("a/-/b/-"))
    def test_a_model_link_names_the_model(self, model):
        assert locate(model_link(model).encode("ascii")) == Resource(kind=ResourceKind.MODEL, model=model)

    @given(model_ids, package_ids)
    @example(parse_model_id("-"), parse_package_id("p"))
    @example(parse_model_id("x/-"), parse_package_id("p"))
    def test_a_package_link_names_the_package(self, model, package):
        named = locate(model_link(model, package).encode("ascii"))
        assert named == Resource(kind=ResourceKind.PACKAGE, model=model, package=package)

    @given(model_ids, package_ids, file_handles)
    @example(parse_model_id("a/-/b"), parse_package_id("p"), parse_file_handle("-/x"))
    def test_a_file_link_names_the_file(self, model, package, file):
        named = locate(model_link(model, package, file).encode("ascii"))
        assert named == Resource(kind=ResourceKind.FILE, model=model, package=package, file=file)

    @given(model_ids)
    def test_escaping_everything_names_the_same_model(self, model):
        escaped = "".join(f"%{octet:02x}" for octet in model.encode())
        assert locate(b"/v1/models/" + escaped.encode()).model == model

    @given(model_ids)
    @example(parse_model_id("%2e%2e/x"))
    def test_a_link_escaped_once_more_names_its_own_text(self, model):
        """A path is decoded once: were it twice, this would name the model again."""
        text = model_link(model).removeprefix("/v1/models/")
        assert locate(b"/v1/models/" + quote(text).encode()).model == text


class TestAnyBytes:
    """Whatever comes in, the answer is a valid name or a refusal."""

    @given(raw_tails)
    def test_a_tail_names_something_valid_or_is_refused(self, raw_tail):
        resource = _located(b"/v1/models/" + raw_tail)
        if resource is None:
            return
        assert resource.kind == shape_of(b"/v1/models/" + raw_tail)
        assert parse_model_id(resource.model) == resource.model
        if resource.package is not None:
            assert parse_package_id(resource.package) == resource.package
        if resource.file is not None:
            assert parse_file_handle(resource.file) == resource.file
            assert raw_tail.endswith(resource.file.encode())  # one spelling
        link = model_link(resource.model, resource.package, resource.file)
        assert locate(link.encode("ascii")) == resource

    @given(st.binary(max_size=40))
    def test_a_blob_is_32_lower_case_hex_digits_or_refused(self, raw_tail):
        named = _located(b"/v1/blobs/" + raw_tail)
        assert (named is not None) == bool(re.fullmatch(rb"[0-9a-f]{32}", raw_tail))
        if named is not None:
            assert parse_md5(named.md5).encode() == raw_tail


def _located(raw_path):
    """What a path names, or None when it is refused as malformed; any other refusal fails the test."""
    try:
        return locate(raw_path)
    except Refusal as refusal:
        if refusal.reason != Reason.MALFORMED_PATH:
            raise
        return None
