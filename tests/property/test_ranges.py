"""Laws of ranges and preconditions: whatever is requested, the bytes of the answer are those of the file."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import HTTP
from hashlib import sha256
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.conditions import entity_tags
from gateway.delivery.digests import is_digest_wanted
from gateway.delivery.file_answer import plan_delivery
from gateway.delivery.headers import asked_fields
from gateway.delivery.ranges import MAX_RANGES, Span, coalesce, find_ranges
from gateway.model.errors import Reason

contents = st.binary(max_size=60)
positions = st.one_of(st.integers(0, 70), st.integers(0, 10**30))
range_specs = st.one_of(
    st.builds(lambda first, more: f"{first}-{first + more}", positions, st.integers(0, 80)),
    st.builds("{}-".format, positions),
    st.builds("-{}".format, positions),
)
blanks = st.sampled_from(["", " ", "\t", " , ", ",,"])
valid_fields = st.lists(st.tuples(blanks, range_specs), min_size=1, max_size=12).map(
    lambda members: "bytes=" + ",".join([members[0][1], *(blank + spec for blank, spec in members[1:])])
)
# Pieces that a range is made of are frequent; any other byte can come as well.
raw_fields = st.lists(
    st.one_of(
        st.sampled_from([b"bytes", b"=", b"bytes=", b"-", b",", b"0", b"9", b" ", b"1-2", b"-5", b"3-"]),
        st.binary(min_size=1, max_size=3),
    ),
    max_size=12,
).map(b"".join)
raw_tags = st.lists(
    st.one_of(
        st.sampled_from([b'"', b'"a"', b"W/", b'W/"a"', b"*", b",", b" ", b"\t", b"\\"]),
        st.binary(max_size=3),
    ),
    max_size=12,
).map(b"".join)
spans = st.lists(st.builds(lambda offset, count: Span(offset=offset, count=count), *[st.integers(1, 60)] * 2))


def plan(content, headers, method="GET"):
    return plan_delivery(
        method,
        asked_fields(headers),
        size=len(content),
        sha256=sha256(content).hexdigest(),
        is_blob=True,
    )


def body_of(planned, content):
    return b"".join(
        content[piece.offset : piece.end] if isinstance(piece, Span) else piece for piece in planned.pieces
    )


def positions_in(several):
    return {position for span in several for position in range(span.offset, span.end)}


def wanted_by(field, size):
    """The positions that a valid field asks for, worked out one by one."""
    found = set()
    for member in field.removeprefix("bytes=").split(","):
        first, dash, last = member.strip(" \t").partition("-")
        if not dash:
            continue
        low = int(first) if first else max(size - int(last), 0)
        high = int(last) if first and last else size - 1
        found.update(range(low, min(high, size - 1) + 1))
    return found


class TestWhatIsAnswered:
    """The bytes of an answer are the bytes of the file, at the places that it names."""

    @given(contents, valid_fields)
    def test_the_parts_are_the_positions_that_were_asked_for(self, content, field):
        planned = plan(content, [(b"range", field.encode())])
        wanted = wanted_by(field, len(content))
        if planned.status == 206:
            parts = [piece for piece in planned.pieces if isinstance(piece, Span)]
            assert positions_in(parts) == wanted
            assert sum(part.count for part in parts) == len(wanted)  # no byte twice
        elif planned.reason is not None:
            assert planned.reason is Reason.RANGE_NOT_SATISFIABLE
            assert not wanted
        else:
            assert not content

    @given(contents, valid_fields)
    def test_a_client_that_reads_the_parts_reads_the_file(self, content, field):
        planned = plan(content, [(b"range", field.encode())])
        if planned.status != 206:
            return
        headers, body = dict(planned.headers), body_of(planned, content)
        assert len(body) == planned.length == int(headers[b"content-length"])
        if not headers[b"content-type"].startswith(b"multipart/"):
            parts = [(headers[b"content-range"].decode(), body)]
        else:
            raw = b"Content-Type: " + headers[b"content-type"] + b"\r\n\r\n" + body
            parsed = message_from_bytes(raw, policy=HTTP)
            assert not parsed.defects
            parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in parsed.iter_parts()]
        for content_range, part in parts:
            places, _, size = content_range.removeprefix("bytes ").partition("/")
            first, _, last = places.partition("-")
            assert int(size) == len(content)
            # Line ends within a part are the reader's to keep; the parser of mail may change a lone one.
            if b"\r" not in content and b"\n" not in content:
                assert part == content[int(first) : int(last) + 1]

    @given(contents, raw_fields)
    def test_whatever_is_ignored_is_answered_by_the_whole_file(self, content, field):
        planned = plan(content, [(b"range", field)])
        assert planned.status in {200, 206} or planned.reason is Reason.RANGE_NOT_SATISFIABLE
        if planned.status == 200:
            assert body_of(planned, content) == content


class TestCoalescing:
    """The same bytes, in as few spans as there are gaps."""

    @given(spans)
    def test_coalescing_keeps_the_set(self, several):
        assert positions_in(coalesce(several)) == positions_in(several)

    @given(spans)
    def test_what_is_left_neither_overlaps_nor_touches(self, several):
        left = sorted(coalesce(several), key=lambda span: span.offset)
        assert all(one.end < other.offset for one, other in pairwise(left))

    @given(spans)
    def test_coalescing_twice_changes_nothing(self, several):
        once = coalesce(several)
        assert coalesce(once) == once

    @given(spans)
    def test_each_stands_where_the_first_of_its_own_stood(self, several):
        def place(span):
            return next(
                place
                for place, one in enumerate(several)
                if span.offset <= one.offset and one.end <= span.end
            )

        places = [place(span) for span in coalesce(several)]
        assert places == sorted(places)


class TestParsing:
    """No bytes of a client raise, or get more out than the limits."""

    @given(st.lists(raw_fields, max_size=2), st.integers(0, 100))
    def test_a_range_field_never_raises(self, lines, size):
        found = find_ranges(lines, size)
        if found is not None:
            assert len(found) <= MAX_RANGES
            assert all(0 <= span.offset < span.end <= size for span in found)

    @given(st.lists(raw_tags, max_size=3))
    def test_a_list_of_tags_never_raises(self, lines):
        named = entity_tags(lines)
        assert all(tag[:1] == tag[-1:] == b'"' for tag in named.strong | named.weak)

    @given(st.lists(st.text("abc,W/", max_size=6), max_size=5))
    def test_a_list_that_was_written_is_read(self, texts):
        tags = [b'"%b"' % text.encode() for text in texts]
        assert entity_tags([b" , ".join(tags)]).strong == set(tags)

    @given(st.lists(st.binary(max_size=30), max_size=3))
    def test_a_wish_for_a_digest_never_raises(self, lines):
        assert is_digest_wanted(lines) in {True, False}


class TestPrecedence:
    """RFC 9110, 13.2.2."""

    @given(contents, st.one_of(valid_fields.map(str.encode), raw_fields), st.booleans(), raw_tags)
    def test_if_none_match_beats_range(self, content, field, is_weak, if_range):
        etag = b'"%b"' % sha256(content).hexdigest().encode()
        held = b"W/" + etag if is_weak else etag
        headers = [(b"range", field), (b"if-range", if_range), (b"if-none-match", held)]
        planned = plan(content, headers)
        assert planned.status == 304
        assert planned.pieces == ()

    @given(contents, valid_fields, raw_tags)
    def test_a_range_never_stands_under_another_tag(self, content, field, if_range):
        planned = plan(content, [(b"range", field.encode()), (b"if-range", if_range)])
        assert planned.status == 200

    @given(contents, st.one_of(valid_fields.map(str.encode), raw_fields))
    def test_head_is_get_without_its_range(self, content, field):
        of_head = plan(content, [(b"range", field)], method="HEAD")
        of_get = plan(content, [])
        assert (of_head.status, of_head.headers, of_head.pieces) == (200, of_get.headers, ())
