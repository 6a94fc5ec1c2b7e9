from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.transfer.file import end_line, header_line, place_of, read_lines
from gateway.directory.transfer.lines import StoredKey, fact_line
from gateway.model.errors import Misconfigured
from gateway.model.facts import Alias, Grants, ModelRule
from gateway.model.names import ModelId, Pattern, TenantId

HEAD = header_line(generation=3, history="ab", peppers={"p1": "f"})


@pytest.fixture
def facts(acme, policy, make_key):
    return [
        policy,
        acme,
        replace(acme, tenant_id=TenantId("globex")),
        ModelRule(pattern=Pattern("acme/x/1"), owner=acme.tenant_id),
        ModelRule(pattern=Pattern("acme/*"), owner=acme.tenant_id),
        Alias(alias=ModelId("best"), canonical=ModelId("acme/x/1")),
        Grants(tenant_id=acme.tenant_id, grants=()),
        StoredKey(digest=b"\x01" * 32, key=make_key(1)),
        StoredKey(digest=b"\x02" * 32, key=make_key(2)),
    ]


def lines_of(facts, *, end=None):
    return [HEAD, *map(fact_line, facts), end_line(facts=len(facts) if end is None else end, generation=3)]


def read(lines):
    header, facts = read_lines(lines, "facts.ndjson")
    return header, list(facts)


def test_a_file_gives_back_its_header_and_its_facts(facts):
    header, found = read(lines_of(facts))
    assert (header.generation, header.history, header.peppers) == (3, "ab", {"p1": "f"})
    assert found == facts


def test_an_empty_export_is_one(facts):
    assert read(lines_of([]))[1] == []


def test_a_file_that_was_cut_short_is_refused(facts):
    lines = lines_of(facts)
    for length in range(len(lines)):
        with pytest.raises(Misconfigured):
            read(lines[:length])


def test_a_file_from_which_a_line_was_taken_is_refused(facts):
    lines = lines_of(facts)
    for gone in range(len(lines)):
        with pytest.raises(Misconfigured):
            read(lines[:gone] + lines[gone + 1 :])


def test_lines_out_of_order_or_twice_are_refused_with_their_number(facts):
    for index in range(len(facts) - 1):
        swapped = list(facts)
        swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
        with pytest.raises(Misconfigured, match=f"facts.ndjson:{index + 3}: "):
            read(lines_of(swapped))
        doubled = facts[: index + 1] + facts[index:]
        with pytest.raises(Misconfigured, match=f"facts.ndjson:{index + 3}: "):
            read(lines_of(doubled))


def test_a_line_that_is_no_fact_is_named_by_its_number(facts):
    lines = lines_of(facts)
    lines[3] = b'{"fact": "tenant"}\n'
    with pytest.raises(Misconfigured, match=r"facts.ndjson:4: "):
        read(lines)


def test_what_follows_the_end_is_refused(facts):
    with pytest.raises(Misconfigured):
        read([*lines_of(facts), fact_line(facts[-1])])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{}\n",
        b'{"cachegate": "directory", "version": 2, "generation": 1, "history": "", "peppers": {}}\n',
        b'{"cachegate": "audit", "version": 1, "generation": 1, "history": "", "peppers": {}}\n',
    ],
)
def test_a_file_of_something_else_is_refused(head, facts):
    with pytest.raises(Misconfigured, match=r"facts.ndjson:1: "):
        read([head, *lines_of(facts)[1:]])


def test_a_rule_stands_before_every_rule_that_covers_more():
    # A partial import must not allow what a narrower rule in the rest restricts.
    patterns = ["a/b/c", "a/b/*", "a/*", "zz/1", "z/*"]
    placed = sorted((ModelRule(pattern=Pattern(one)) for one in patterns), key=place_of)
    order = [rule.pattern for rule in placed]
    assert order.index("a/b/c") < order.index("a/b/*") < order.index("a/*")
    assert order.index("zz/1") < order.index("z/*")
