"""Laws of the paths of apps of somebody else's: the guard and the app's router read one and the same."""

from __future__ import annotations

from urllib.parse import quote, unquote

from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import Match, Route

from gateway.middleware.in_app.paths import PathTemplate, read_path

TEMPLATES = (
    "/files/{model:path}/-/{package}/{file:path}",
    "/infer/{model:path}",
    "/infer/{model:path}/classes",
    "/blobs/{md5}",
    "/n/{number:int}",
    "/open",
)
ALPHABET = "/-.%\\;?=aA0~_ \x00\n\x7fé€" + "25efEF"
RAW = st.one_of(
    st.text(ALPHABET, max_size=30).map(lambda text: "/" + text),
    st.tuples(
        st.sampled_from(["/files/", "/infer/", "/blobs/", "/n/", "/open"]), st.text(ALPHABET, max_size=20)
    ).map("".join),
).map(lambda text: text.encode())


def endpoint(_request):
    raise AssertionError("it is matched and not called")


@given(RAW)
@example(b"/infer/a%2Fclasses")
@example(b"/infer/%61")
@example(b"/infer/a%0A")
@example(b"/infer/a\n")
@example(b"/n/12")
def test_a_template_finds_what_starlettes_router_finds_in_the_path_that_a_server_decodes(raw):
    text = read_path(raw)
    if text is None:
        assert not any(PathTemplate(one).matches(raw) for one in TEMPLATES)
        return
    decoded = unquote(raw.decode("ascii"))  # as the servers do it
    assert decoded == text
    for template in TEMPLATES:
        scope = {"type": "http", "method": "GET", "path": decoded}
        match, child = Route(template, endpoint).matches(scope)
        found = PathTemplate(template).converted(raw)
        assert (match is Match.FULL) is (found is not None)
        assert found is None or child["path_params"] == found


@given(RAW)
def test_a_path_that_is_taken_has_one_spelling(raw):
    text = read_path(raw)
    if text is not None:
        again = quote(text, safe="/:@!$&'()*+,;=\"<>[]^`{|}#?").encode()
        assert read_path(again) == text
        assert raw.count(b"/") == text.count("/")  # no slash was hidden in an escape
        assert not {"", ".", ".."} & set(text[1:].split("/")[:-1])


@given(st.binary(max_size=40))
def test_no_bytes_make_it_fail(raw):
    assert read_path(raw) is None or raw.startswith(b"/")
