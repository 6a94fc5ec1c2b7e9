from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import msgspec
import pytest
from msgspec.structs import replace

from gateway import model
from gateway.directory.records.codec import (
    CHECK_BYTES,
    SCOPE_BITS,
    UnreadableRecordError,
    decode_alias,
    decode_binding,
    decode_grants,
    decode_key,
    decode_rule,
    decode_tenant,
    encode,
    encode_key,
)
from gateway.model.facts import (
    DEFAULT_SCOPES,
    UNCHANGED,
    Alias,
    Grant,
    Grants,
    Key,
    KeyLife,
    ModelRule,
    Scope,
    Visibility,
)
from gateway.model.issuers import Binding
from gateway.model.names import KeyId, ModelId, Pattern, TenantId
from gateway.model.records import PolicyTexts, Record

KEY_ID_FIELD, EXPIRES_FIELD = 4, 11
DIGEST = bytes(range(32))


def kinds() -> list[type[Record]]:
    """Every kind of record, whichever modules other tests have loaded."""
    for module in iter_modules(model.__path__, f"{model.__name__}."):
        import_module(module.name)
    return [*Record.__subclasses__(), PolicyTexts]


def test_every_kind_has_a_number_of_its_own():
    numbers = [kind.__struct_config__.tag for kind in kinds()]
    assert sorted(numbers) == list(range(1, len(kinds()) + 1))


def test_every_record_begins_with_its_layout_and_its_generation():
    for kind in kinds():
        assert kind.__struct_fields__[0] == "layout"
        assert kind is PolicyTexts or kind.__struct_fields__[1] == "generation"


def test_every_scope_has_a_bit_of_its_own():
    assert SCOPE_BITS.keys() == set(Scope)
    assert len({bit for bit in SCOPE_BITS.values() if bit.bit_count() == 1}) == len(Scope)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x90", b"\x91\x05", b"\x96\x05\x01\x00\xa1\xff\xa1a\xa1a"])
def test_what_is_no_row_is_unreadable(raw):
    with pytest.raises(UnreadableRecordError):
        decode_alias(raw, ModelId("a"))


def test_a_key_is_not_encoded_without_its_digest(make_key):
    with pytest.raises(TypeError):
        encode(make_key())


def test_a_typical_key_record_is_small(make_key):
    key = make_key(tenant="tenant-0123", name="ci pipeline", expires_at=1.8e9, generation=1_000_000)
    assert len(encode_key(key, DIGEST)) <= 110


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_compares_with_nothing_is_unreadable(make_key, moment):
    row = msgspec.msgpack.decode(encode_key(make_key(expires_at=1.0), DIGEST))
    assert row[EXPIRES_FIELD] == 1.0
    row[EXPIRES_FIELD] = moment
    with pytest.raises(UnreadableRecordError):
        decode_key(msgspec.msgpack.encode(row), DIGEST)


def test_a_key_bound_to_what_is_no_network_is_unreadable(make_key):
    with pytest.raises(UnreadableRecordError):
        decode_key(encode_key(make_key(networks=("everywhere",)), DIGEST), DIGEST)


@pytest.mark.parametrize("index", [0, CHECK_BYTES - 1])
def test_a_key_record_under_another_digest_is_unreadable(make_key, index):
    other = bytearray(DIGEST)
    other[index] ^= 1
    raw = encode_key(make_key(), DIGEST)
    assert decode_key(raw, DIGEST) == make_key()
    with pytest.raises(UnreadableRecordError):
        decode_key(raw, bytes(other))


@pytest.mark.parametrize("check", [b"", DIGEST[: CHECK_BYTES - 1], DIGEST, None, "text"])
def test_a_key_record_without_its_check_is_unreadable(make_key, check):
    row = msgspec.msgpack.decode(encode_key(make_key(), DIGEST))
    assert row[-1] == DIGEST[:CHECK_BYTES]
    for broken in ([*row[:-1], check], row[:-1]):
        with pytest.raises(UnreadableRecordError):
            decode_key(msgspec.msgpack.encode(broken), DIGEST)


LIVES = [
    KeyLife(disabled_at=5.0),
    KeyLife(revoked_for="in a build log"),
    KeyLife(replaces=KeyId("key_000000000002"), replaced_by=KeyId("key_000000000003")),
    KeyLife(is_decoy=True),
]


@pytest.mark.parametrize("life", LIVES)
def test_what_became_of_a_key_is_in_its_record(make_key, life):
    assert decode_key(encode_key(make_key(life=life), DIGEST), DIGEST).life == life


def test_a_key_to_which_nothing_happened_has_the_first_layout_and_shares_its_life(make_key):
    raw = encode_key(make_key(), DIGEST)
    assert msgspec.msgpack.decode(raw)[1] == 1
    assert decode_key(raw, DIGEST).life is UNCHANGED


@pytest.mark.parametrize(
    "life",
    [
        None, [], "", [None, "", None, None], [None, "", None, None, False], [None, "", None, None, True, 1],
        [float("nan"), "", None, None, False], [5.0, "", "key_x", None, False],
        [5.0, None, None, None, False], [5.0, "", None, None, 1],
    ],
)  # fmt: skip
def test_a_key_whose_life_does_not_parse_is_unreadable(make_key, life):
    *row, _, check = msgspec.msgpack.decode(encode_key(make_key(life=LIVES[0]), DIGEST))
    assert row[1] == 2
    with pytest.raises(UnreadableRecordError):
        decode_key(msgspec.msgpack.encode([*row, life, check]), DIGEST)


@pytest.mark.parametrize("layout", [0, 1, 3, None, "2", True])
def test_a_key_of_a_layout_that_is_not_its_own_is_unreadable(make_key, layout):
    row = msgspec.msgpack.decode(encode_key(make_key(life=LIVES[0]), DIGEST))
    row[1] = layout
    with pytest.raises(UnreadableRecordError):
        decode_key(msgspec.msgpack.encode(row), DIGEST)


@pytest.mark.parametrize("seconds", [-1.0, 3600.5, float("nan"), float("inf")])
def test_a_degraded_time_out_of_bounds_is_unreadable(acme, seconds):
    with pytest.raises(UnreadableRecordError):
        decode_tenant(encode(replace(acme, degraded_seconds=seconds)), acme.tenant_id)


def test_a_record_under_the_name_of_another_is_unreadable(acme):
    other = TenantId("globex")
    rule = ModelRule(pattern=Pattern("a/*"), owner=other)
    alias = Alias(alias=ModelId("a"), canonical=ModelId("b"))
    for decode, raw, name in [
        (decode_tenant, encode(acme), other),
        (decode_grants, encode(Grants(tenant_id=acme.tenant_id, grants=())), other),
        (decode_rule, encode(rule), Pattern("a")),
        (decode_alias, encode(alias), ModelId("b")),
    ]:
        with pytest.raises(UnreadableRecordError):
            decode(raw, name)


@pytest.mark.parametrize("actions", [frozenset(), frozenset({"identify"}), frozenset({"read", "write"})])
def test_a_grant_of_what_cannot_be_granted_is_unreadable(actions):
    grants = Grants(tenant_id=TenantId("a"), grants=(Grant(grant_id="g", actions=actions),))
    with pytest.raises(UnreadableRecordError):
        decode_grants(encode(grants), TenantId("a"))


@pytest.mark.parametrize(
    "grant",
    [
        Grant(grant_id="g", actions=frozenset({"read"}), models=("*",)),
        Grant(grant_id="g", actions=frozenset({"read"}), groups=("a b",)),
        Grant(grant_id="g", actions=frozenset({"read"}), packages=("a/b",)),
    ],
)
def test_a_grant_on_what_is_no_name_is_unreadable(grant):
    with pytest.raises(UnreadableRecordError):
        decode_grants(encode(Grants(tenant_id=TenantId("a"), grants=(grant,))), TenantId("a"))


def test_a_rule_or_alias_that_points_to_what_is_no_name_is_unreadable():
    with pytest.raises(UnreadableRecordError):
        decode_rule(encode(ModelRule(pattern=Pattern("a"), owner=TenantId("no tenant"))), Pattern("a"))
    with pytest.raises(UnreadableRecordError):
        decode_alias(encode(Alias(alias=ModelId("a"), canonical=ModelId("../b"))), ModelId("a"))


def test_a_record_of_an_unknown_layout_is_unreadable(acme):
    row = msgspec.msgpack.decode(encode(replace(acme, generation=1)))
    row[1] = 2
    with pytest.raises(UnreadableRecordError):
        decode_tenant(msgspec.msgpack.encode(row), acme.tenant_id)


@pytest.mark.parametrize(
    "written", ["key_000000000001", "", "00000000000", "0000000000011", "00000000000\u00e9"]
)
def test_a_key_record_whose_short_id_is_none_is_unreadable(make_key, written):
    # Records hold the id without the common prefix `key_`.
    row = msgspec.msgpack.decode(encode_key(make_key(), DIGEST))
    assert row[KEY_ID_FIELD] == "000000000001"
    row[KEY_ID_FIELD] = written
    with pytest.raises(UnreadableRecordError):
        decode_key(msgspec.msgpack.encode(row), DIGEST)


RECORD = "ten_00000000000A"


@pytest.mark.parametrize("record_id", [None, RECORD])
def test_what_belongs_to_a_tenant_is_stored_with_the_id_of_its_record(record_id):
    key = Key(
        key_id="key_000000000001", tenant="acme", tenant_record=record_id, name="", scopes=DEFAULT_SCOPES,
        networks=(), created_at=1.0, pepper_id="p",
    )  # fmt: skip
    assert decode_key(encode_key(key, bytes(32)), bytes(32)) == key
    rule = ModelRule(pattern="acme/*", owner="acme", owner_record=record_id)
    assert decode_rule(encode(rule), "acme/*") == rule
    grants = Grants(tenant_id="acme", tenant_record=record_id, grants=())
    assert decode_grants(encode(grants), "acme") == grants
    binding = Binding(
        binding_id="bnd_000000000001", url="u", subject="s", tenant="acme", tenant_record=record_id, rules=(),
        created_at=1.0,
    )  # fmt: skip
    assert decode_binding(encode(binding), binding.digest) == binding


def test_a_name_with_anything_else_behind_it_is_none():
    for text in (
        "acme 0",
        "acme ten_00000000000A",
        "acme  00000000000A",
        "acme 00000000000A ",
        " 00000000000A",
    ):
        raw = msgspec.msgpack.encode([4, 1, 7, "cli", "acme/*", text, None, []])
        with pytest.raises(UnreadableRecordError):
            decode_rule(raw, "acme/*")


def test_records_with_times_have_a_layout_of_their_own_and_others_have_not():
    timed = Grant(grant_id="g", actions=frozenset({"read"}), models=("a/*",), expires_at=5.0)
    for grant, layout in ((timed, 2), (replace(timed, expires_at=None), 1)):
        grants = Grants(tenant_id="acme", grants=(grant,))
        assert msgspec.msgpack.decode(encode(grants))[1] == layout
        assert decode_grants(encode(grants), "acme") == grants
    public = ModelRule(pattern="a/*", visibility=Visibility.PUBLIC, not_before=5.0)
    for rule, layout in ((public, 2), (replace(public, not_before=None), 1)):
        assert msgspec.msgpack.decode(encode(rule))[1] == layout
        assert decode_rule(encode(rule), "a/*") == rule


@pytest.mark.parametrize(
    "row",
    [
        [4, 2, 7, "cli", "a/*", None, "public", [], None, None],  # the layout of what it does not have
        [4, 2, 7, "cli", "a/*", None, "private", [], None, 5.0],  # only a publication ends
        [4, 2, 7, "cli", "a/*", None, None, [], None, 5.0],
        [4, 2, 7, "cli", "a/*", None, "public", [], None, float("nan")],
        [4, 2, 7, "cli", "a/*", None, "public", [], None, "5"],
        [4, 1, 7, "cli", "a/*", None, "public", [], None, 5.0],
        [4, 3, 7, "cli", "a/*", None, "public", [], None, 5.0],
    ],
)
def test_a_rule_with_other_times_denies(row):
    with pytest.raises(UnreadableRecordError):
        decode_rule(msgspec.msgpack.encode(row), "a/*")


@pytest.mark.parametrize(
    "grants",
    [
        [["g", ["read"], ["a/*"], [], [], "cli", None, None]],  # no times in the layout for times
        [["g", ["read"], ["a/*"], [], [], "cli", None]],
        [["g", ["read"], ["a/*"], [], [], "cli", None, float("inf")]],
        [["g", ["read"], ["a/*"], [], [], "cli"], ["h", ["read"], ["a/*"], [], [], "cli", None, 5.0]],
    ],
)
def test_grants_with_other_times_deny(grants):
    with pytest.raises(UnreadableRecordError):
        decode_grants(msgspec.msgpack.encode([3, 2, 7, "acme", grants]), "acme")


@pytest.mark.parametrize(
    "end",
    [[[], [], None, None], [[], [], "acme", None], [[], [], RECORD], [[], [], RECORD, 5], [[], [], None, ""]],
)
def test_a_tenant_with_another_record_id_denies(end):
    raw = msgspec.msgpack.encode([2, 4, 7, "cli", "acme", "Acme", False, 1.0, 0.0, *end])
    with pytest.raises(UnreadableRecordError):
        decode_tenant(raw, "acme")
