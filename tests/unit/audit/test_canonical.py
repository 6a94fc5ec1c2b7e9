"""The canonical form is made from values alone, and what could be read in two ways has none."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.canonical import MAX_INTEGER, canonical_form, parse_document
from gateway.audit.record import encode, split_hash

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    texts | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
documents = st.dictionaries(texts, values, max_size=6)


@given(documents)
def test_the_form_is_the_same_however_the_values_were_printed(document):
    form = canonical_form(parse_document(json.dumps(document).encode()))
    loose = json.dumps(dict(reversed(document.items())), indent=3, ensure_ascii=False).encode()
    assert canonical_form(parse_document(loose)) == form == encode(json.loads(form))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":"x","b":"x"}}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":-0}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":%d}' % 10**400,
        b'{"a":null}',
        b'{"a":"\xff"}',
        b'{"a":1}{"a":1}',
        b"[1]",
        b"1",
        b"",
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b'{"a":' * 100_000,
        b'{"a":"' + b"x" * (5 << 20) + b'"}',
    ],
    ids=range(19),
)
def test_what_could_be_read_in_two_ways_is_refused(raw):
    with pytest.raises(ValueError, match=r"^it |is null"):
        parse_document(raw)


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(ValueError, match="surrogate"):
        canonical_form(parse_document(b'{"a":"\\ud800"}'))


def test_every_record_is_written_in_canonical_form(audit):
    log = audit.open(head_records=5)
    audit.write(log, 20)
    log.close()
    for line in audit.lines():
        covered, digest = split_hash(line)
        found = parse_document(line)
        assert found.pop("hash") == digest
        assert canonical_form(found) == covered


def test_jq_prints_another_line_of_the_same_form(audit):
    log = audit.open()
    log.reject(audit.denial(agent=b'curl "\\x7f\x7f\xc3\xa9" <>'))
    log.close()
    for line in audit.lines():
        printed = subprocess.run(["jq", "-S", "."], input=line, capture_output=True, check=True).stdout
        assert printed != line
        assert canonical_form(parse_document(printed)) == canonical_form(parse_document(line))
