"""Names: what parses is what the engine could have written, and nothing is normalised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.errors import BadNameError
from gateway.model.names import (
    MAX_NAME_BYTES,
    ancestors,
    parse_file_handle,
    parse_group_name,
    parse_key_id,
    parse_md5,
    parse_model_id,
    parse_package_id,
    parse_pattern,
    parse_tenant_id,
)


@pytest.mark.parametrize(
    "text", ["acme/cars/1", "ACME/cars/1", "żółć/1", "a b", "a%2Fb", "x/-", "a'b\"c", "coco"]
)
def test_a_model_id_stays_as_it_was_written(text):
    assert parse_model_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/", "//", "a//b", "/a", "a/", ".", "..", "a/../b", "a/./b", "a\x00b", "a\nb", "a\\b", "a*b", "a/*",
     "\ud800", "a\u2028b", "a\x7fb", "x" * (MAX_NAME_BYTES + 1), "ż" * MAX_NAME_BYTES],
)  # fmt: skip
def test_what_could_be_a_path_trick_is_no_model_id(text):
    with pytest.raises(BadNameError):
        parse_model_id(text)


@pytest.mark.parametrize("text", ["acme/*", "acme/cars/*", "acme/cars/1"])
def test_patterns_are_ids_and_prefixes(text):
    assert parse_pattern(text) == text


@pytest.mark.parametrize("text", ["*", "/*", "a*", "a/*/b", "a/**", "*/a", "a/b*", "", "a//*"])
def test_no_other_star_is_a_pattern(text):
    with pytest.raises(BadNameError):
        parse_pattern(text)


@pytest.mark.parametrize(
    "text", ["pkgA1", "c70f32369a54d61e06ef4e6b56c82524", "0", "A" * 255, "COM", "COM10"]
)
def test_package_ids_follow_the_engines_rule(text):
    assert parse_package_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "a-b", "a_b", "a.b", "a/b", "ż", "A" * 256, "CON", "con", "Lpt9", "nul", "a\n"]
)
def test_other_package_ids_are_refused(text):
    with pytest.raises(BadNameError):
        parse_package_id(text)


@pytest.mark.parametrize("text", ["weights.onnx", "a/b/c.txt", "-", "_", "a..b", ".hidden"])
def test_file_handles_follow_the_engines_rule(text):
    assert parse_file_handle(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a.", "a b", "a%2Fb", "model_config.json",
     "MODEL_CONFIG.JSON", "model_dependencies/x", "dependencies", ".weights.onnx.lock", "nul", "a/CON",
     "con.txt", "a\x00", "ż", "a\n"],
)  # fmt: skip
def test_other_file_handles_are_refused(text):
    with pytest.raises(BadNameError):
        parse_file_handle(text)


@pytest.mark.parametrize("text", ["", "A" * 32, "a" * 31, "a" * 33, "g" * 32, "a" * 32 + "\n"])
def test_only_32_lower_case_hex_digits_name_a_blob(text):
    with pytest.raises(BadNameError):
        parse_md5(text)


@pytest.mark.parametrize("parse", [parse_tenant_id, parse_group_name])
@pytest.mark.parametrize("text", ["", "-a", ".a", "a/b", "a b", "a" * 65, "ż", "a\n"])
def test_tenants_and_groups_have_plain_names(parse, text):
    with pytest.raises(BadNameError):
        parse(text)


@pytest.mark.parametrize("text", ["", "key_", "key_short", "key_0123456789ab\n", "cg_live_0123456789ab"])
def test_a_token_or_half_a_key_id_is_no_key_id(text):
    with pytest.raises(BadNameError):
        parse_key_id(text)


def test_the_message_of_a_bad_key_id_does_not_repeat_what_may_be_a_token():
    with pytest.raises(BadNameError) as caught:
        parse_key_id("cg_live_0123456789abcdefghijklmn000000")
    assert "0123456789" not in str(caught.value)


def test_the_ancestors_of_a_model_are_itself_and_its_prefixes_most_specific_first():
    assert ancestors(parse_model_id("a/b/c")) == ("a/b/c", "a/b/*", "a/*")
    assert ancestors(parse_model_id("a")) == ("a",)


@given(st.lists(st.text("ab-.ż", min_size=1, max_size=4), min_size=1, max_size=5))
def test_every_prefix_pattern_that_covers_a_model_starts_it(segments):
    text = "/".join(segments)
    if any(segment in {".", ".."} for segment in segments):
        return
    model = parse_model_id(text)
    covering = ancestors(model)
    assert len(covering) == len(segments)
    for pattern in covering[1:]:
        assert model.startswith(pattern.removesuffix("*"))
        assert parse_pattern(pattern) == pattern
