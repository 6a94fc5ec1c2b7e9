"""The bytes of each kind of record, as every version so far has written them.

A record outlives the version that wrote it: other nodes of a fleet, and the versions before and after this
one, read the same bytes. So a change of these bytes needs a new layout beside the old one.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from msgspec.structs import replace

from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_alias,
    decode_attestation,
    decode_ending,
    decode_grants,
    decode_key,
    decode_origin,
    decode_pin,
    decode_rule,
    decode_ruling,
    decode_tenant,
    encode,
    encode_key,
)
from gateway.directory.records.policies import decode_policy, decode_policy_head, encode_policy
from gateway.model.errors import Reason
from gateway.model.facts import (
    DEFAULT_SCOPES,
    MAX_ATTESTED,
    Alias,
    Attestation,
    Grant,
    Grants,
    Key,
    KeyLife,
    ModelRule,
    Origin,
    PolicySet,
    Scope,
    Tenant,
    Visibility,
)
from gateway.model.names import FileHandle, GroupName, KeyId, Md5, ModelId, PackageId, Pattern, TenantId
from gateway.model.pins import Pin, Quarantine, QuarantineCause
from gateway.model.rulings import EndMark, Ruling

DIGEST = bytes(range(32))
ACME, CARS, KEY_ID = TenantId("acme"), ModelId("acme/cars/1"), KeyId("key_0000000000aB")
BLOB = Md5("0123456789abcdef" * 2)

KEY = Key(
    key_id=KEY_ID,
    tenant=ACME,
    name="ci Ü",
    scopes=DEFAULT_SCOPES,
    networks=("10.0.0.0/8", "::1/128"),
    created_at=1.5,
    not_before=2.0,
    expires_at=1.8e9,
    revoked_at=3.0,
    pepper_id="p1",
    generation=7,
    source="policies:acme",
)
CHANGED_KEY = replace(
    KEY,
    life=KeyLife(
        disabled_at=4.0,
        revoked_for="leaked",
        replaces=KeyId("key_0000000000aC"),
        replaced_by=KeyId("key_0000000000aD"),
        is_decoy=True,
    ),
)
ADMIN_KEY = Key(
    key_id=KEY_ID,
    tenant=None,
    name="",
    scopes=frozenset({Scope.AUDIT_READ, Scope.KEYS_MANAGE}),
    networks=(),
    created_at=-1.0,
    pepper_id="p1",
)
TENANT = Tenant(
    tenant_id=ACME, name="Acme", is_suspended=True, created_at=1.5, degraded_seconds=60.0, generation=300
)
GRANT = Grant(
    grant_id="g1",
    actions=frozenset({"read", "discover", "infer"}),
    models=(Pattern("globex/*"), Pattern("a")),
    groups=(GroupName("vision"),),
    packages=(PackageId("pkg1"),),
    source="policies:acme",
)
GRANTS = Grants(
    tenant_id=ACME, grants=(GRANT, Grant(grant_id="g2", actions=frozenset({"read"}))), generation=9
)
RULE = ModelRule(
    pattern=Pattern("acme/*"),
    owner=ACME,
    visibility=Visibility.PUBLIC,
    groups=(GroupName("b"), GroupName("a")),
    generation=2,
)
BARE_RULE = ModelRule(pattern=Pattern("acme/x"))
ALIAS = Alias(alias=ModelId("best"), canonical=CARS, generation=70_000)
PIN = Pin(md5=BLOB, sha256="cd" * 32, size=1 << 33, pinned_at=7.5, generation=3, source="worker:n:1")
HELD_PIN = Pin(
    md5=BLOB,
    sha256=None,
    size=15,
    pinned_at=7.5,
    quarantine=Quarantine(cause=QuarantineCause.NOT_ITS_PIN, since=8.5, found_sha256="ef" * 32),
)
RULING = Ruling(key_id=KEY_ID, model=CARS, reason=Reason.PERMITTED, until=160.5, asked=7, generation=8)
STANDING = Ruling(key_id=KEY_ID, model=None, reason=Reason.USAGE_PAUSED, until=1.0, asked=0)
ORIGIN = Origin(
    model=CARS, package=PackageId("pkgA1"), handle=FileHandle("labels.txt"), is_ours=True, generation=7
)
ATTESTATION = Attestation(
    model=CARS, digests=frozenset({Md5("f" * 32), Md5("0" * 32), BLOB}), generation=7, source="provider"
)
POLICY = PolicySet(
    schema="entity Tenant;",
    policies=(("a.cedar", "permit (principal, action, resource);"),),
    digest="d1",
    generation=5,
)

RECORDS = {
    "a tenant's key": (
        KEY,
        lambda key: encode_key(key, DIGEST),
        lambda raw: decode_key(raw, DIGEST),
        (
            "9f010107ad706f6c69636965733a61636d65ac303030303030303030306142a461636d65a5636920c39c0792aa"
            "31302e302e302e302f38a73a3a312f313238cb3ff8000000000000cb4000000000000000cb41dad27480000000"
            "cb4008000000000000a27031c4080001020304050607"
        ),
    ),
    "an admin key": (
        ADMIN_KEY,
        lambda key: encode_key(key, DIGEST),
        lambda raw: decode_key(raw, DIGEST),
        (
            "9f010100a3636c69ac303030303030303030306142c0a01890cbbff0000000000000c0c0c0a27031c408000102"
            "0304050607"
        ),
    ),
    "a tenant": (
        TENANT,
        encode,
        lambda raw: decode_tenant(raw, ACME),
        "990201cd012ca3636c69a461636d65a441636d65c3cb3ff8000000000000cb404e000000000000",
    ),
    "grants": (
        GRANTS,
        encode,
        lambda raw: decode_grants(raw, ACME),
        (
            "95030109a461636d659296a2673193a8646973636f766572a5696e666572a47265616492a8676c6f6265782f2a"
            "a16191a6766973696f6e91a4706b6731ad706f6c69636965733a61636d6596a2673291a472656164909090a363"
            "6c69"
        ),
    ),
    "a rule": (
        RULE,
        encode,
        lambda raw: decode_rule(raw, RULE.pattern),
        "98040102a3636c69a661636d652f2aa461636d65a67075626c696392a162a161",
    ),
    "a rule that says nothing": (
        BARE_RULE,
        encode,
        lambda raw: decode_rule(raw, BARE_RULE.pattern),
        "98040100a3636c69a661636d652f78c0c090",
    ),
    "an alias": (
        ALIAS,
        encode,
        lambda raw: decode_alias(raw, ALIAS.alias),
        "960501ce00011170a3636c69a462657374ab61636d652f636172732f31",
    ),
    "a pin": (
        PIN,
        encode,
        lambda raw: decode_pin(raw, BLOB),
        (
            "9b080103aa776f726b65723a6e3a31c4100123456789abcdef0123456789abcdefc420cdcdcdcdcdcdcdcdcdcd"
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcf0000000200000000cb401e000000000000c0c0c0"
        ),
    ),
    "a pin in quarantine": (
        HELD_PIN,
        encode,
        lambda raw: decode_pin(raw, BLOB),
        (
            "9b080100a3636c69c4100123456789abcdef0123456789abcdefc00fcb401e000000000000ab6e6f742d697473"
            "2d70696ecb4021000000000000c420efefefefefefefefefefefefefefefefefefefefefefefefefefefefefef"
            "efef"
        ),
    ),
    "a ruling": (
        RULING,
        encode,
        lambda raw: decode_ruling(raw, KEY_ID, CARS),
        (
            "98090108b06b65795f303030303030303030306142ab61636d652f636172732f31a97065726d6974746564cb40"
            "6410000000000007"
        ),
    ),
    "a standing": (
        STANDING,
        encode,
        lambda raw: decode_ruling(raw, KEY_ID, None),
        ("98090100b06b65795f303030303030303030306142c0ac75736167652d706175736564cb3ff000000000000000"),
    ),
    "an ending": (
        12,
        lambda generation: encode(EndMark(generation=generation)),
        decode_ending,
        "930a010c",
    ),
    "an origin": (
        ORIGIN,
        encode,
        lambda raw: decode_origin(raw, CARS, ORIGIN.package, ORIGIN.handle),
        "980b0107a3636c69ab61636d652f636172732f31a5706b674131aa6c6162656c732e747874c3",
    ),
    "an attestation": (
        ATTESTATION,
        encode,
        lambda raw: decode_attestation(raw, CARS),
        (
            "960c0107a870726f7669646572ab61636d652f636172732f31c430000000000000000000000000000000000123"
            "456789abcdef0123456789abcdefffffffffffffffffffffffffffffffff"
        ),
    ),
}
"""By kind: a fact, its encoder, its decoder and the bytes of its record in hex."""


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_has_the_bytes_that_it_always_had(kind):
    fact, encode, decode, written = RECORDS[kind]
    assert encode(fact).hex() == written
    assert decode(bytes.fromhex(written)) == fact


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_with_a_field_less_or_more_or_of_another_layout_or_kind_is_unreadable(kind):
    _, _, decode, written = RECORDS[kind]
    row = msgspec.msgpack.decode(bytes.fromhex(written))
    newer, other = [row[0], 2, *row[2:]], [13, *row[1:]]
    named = {str(number): value for number, value in enumerate(row)}
    for broken in (row[:-1], [*row, None], newer, [row[0], 0, *row[2:]], other, row[1:], [], named, [row]):
        with pytest.raises(UnreadableRecordError):
            decode(msgspec.msgpack.encode(broken))


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("number", [-1, 1.0, "1", None, True, b"1", []])
def test_a_generation_that_is_no_count_is_unreadable(kind, number):
    _, _, decode, written = RECORDS[kind]
    row = msgspec.msgpack.decode(bytes.fromhex(written))
    with pytest.raises(UnreadableRecordError):
        decode(msgspec.msgpack.encode([*row[:2], number, *row[3:]]))


CHANGED_KEY_BYTES = (
    "dc0010010207ad706f6c69636965733a61636d65ac303030303030303030306142a461636d65a5636920c39c07"
    "92aa31302e302e302e302f38a73a3a312f313238cb3ff8000000000000cb4000000000000000cb41dad2748000"
    "0000cb4008000000000000a2703195cb4010000000000000a66c65616b6564b06b65795f303030303030303030"
    "306143b06b65795f303030303030303030306144c3c4080001020304050607"
)


def test_a_key_that_something_happened_to_has_a_layout_of_its_own():
    assert encode_key(CHANGED_KEY, DIGEST).hex() == CHANGED_KEY_BYTES
    assert decode_key(bytes.fromhex(CHANGED_KEY_BYTES), DIGEST) == CHANGED_KEY


HOSTED = replace(TENANT, image_hosts=("images.example.com", "http://10.example:8080"))
HOSTED_BYTES = (
    "9a0202cd012ca3636c69a461636d65a441636d65c3cb3ff8000000000000cb404e00000000000092b2696d616765732e6578"
    "616d706c652e636f6db6687474703a2f2f31302e6578616d706c653a38303830"
)


def test_a_tenant_with_hosts_of_images_has_a_second_layout_and_one_without_the_first():
    assert encode(HOSTED).hex() == HOSTED_BYTES
    assert decode_tenant(bytes.fromhex(HOSTED_BYTES), ACME) == HOSTED
    assert encode(replace(HOSTED, image_hosts=())) == encode(TENANT)


@pytest.mark.parametrize(
    "hosts",
    [
        *([], None, "images.example.com", ["*"], [""], [7], ["https://images.example.com"], {"a": 1}),
        *(
            ["a.example:443"],
            ["A.example"],
            ["a.example/x"],
            ["user@a.example"],
            [f"h{n}" for n in range(65)],
        ),
    ],
)
def test_a_tenant_with_hosts_of_images_that_do_not_parse_is_unreadable(hosts):
    row = msgspec.msgpack.decode(bytes.fromhex(HOSTED_BYTES))
    with pytest.raises(UnreadableRecordError):
        decode_tenant(msgspec.msgpack.encode([*row[:-1], hosts]), ACME)


@pytest.mark.parametrize("layout", [0, 1, 3, 4, 2.0, "2", None, True])
def test_hosts_of_images_in_another_layout_are_unreadable(layout):
    row = msgspec.msgpack.decode(bytes.fromhex(HOSTED_BYTES))
    with pytest.raises(UnreadableRecordError):
        decode_tenant(msgspec.msgpack.encode([row[0], layout, *row[2:]]), ACME)


@pytest.mark.parametrize("change", [lambda row: row[:-1], lambda row: [*row, "cli"]])
def test_a_grant_with_a_field_less_or_more_is_unreadable(change):
    row = msgspec.msgpack.decode(encode(GRANTS))
    row[4][1] = change(row[4][1])
    with pytest.raises(UnreadableRecordError):
        decode_grants(msgspec.msgpack.encode(row), ACME)


def test_a_time_that_another_writer_wrote_as_a_whole_number_is_read():
    row = msgspec.msgpack.decode(encode(TENANT))
    row[7] = 2
    assert decode_tenant(msgspec.msgpack.encode(row), ACME).created_at == 2.0


@pytest.mark.parametrize("raw", [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x81\x81\x01\x01\x01"])
@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_nests_without_end_or_lies_about_its_size_is_unreadable(kind, raw):
    with pytest.raises(UnreadableRecordError):
        RECORDS[kind][2](raw)


HEAD = "96060105a3636c69a26431c420938cefc0ef62280b41ce7d9f69b94a7f877d3bd50c81d3a1ef09f65bc13084e5"
TEXT = (
    "940701ae656e746974792054656e616e743b9192a7612e6365646172d9257065726d697420287072696e636970"
    "616c2c20616374696f6e2c207265736f75726365293b"
)


def decode_texts(raw: bytes) -> PolicySet:
    """Texts under a head that names them, so that only their own form can be wrong."""
    return decode_policy(
        raw, replace(decode_policy_head(bytes.fromhex(HEAD)), text_digest=sha256(raw).digest())
    )


DECODERS = {kind: (decode, written) for kind, (_, _, decode, written) in RECORDS.items()} | {
    "a head": (decode_policy_head, HEAD),
    "texts": (decode_texts, TEXT),
}
NAN, BASE64 = float("nan"), "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="

HOSTILE = [
    ("a tenant's key", 3, ""), ("a tenant's key", 4, 123456789012), ("a tenant's key", 5, b"acme"),
    ("a tenant's key", 6, None), ("a tenant's key", 7, True), ("a tenant's key", 7, 1.0),
    ("a tenant's key", 7, 1024), ("a tenant's key", 7, 384), ("a tenant's key", 7, ["read"]),
    ("a tenant's key", 8, [1]),
    ("a tenant's key", 8, "::1"), ("a tenant's key", 9, NAN), ("a tenant's key", 9, None),
    ("a tenant's key", 10, NAN), ("a tenant's key", 11, NAN), ("a tenant's key", 12, NAN),
    ("a tenant's key", 12, True), ("a tenant's key", 13, ""),
    ("a tenant", 3, ""), ("a tenant", 5, None), ("a tenant", 6, 1), ("a tenant", 7, NAN),
    ("a tenant", 8, NAN), ("grants", 4, [["", ["read"], [], [], [], "cli"]]),
    ("grants", 4, [["g", ["read"], [], [], [], ""]]),
    ("grants", 4, [["g", "read", [], [], [], "cli"]]), ("grants", 4, [["g", ["read"], [1], [], [], "cli"]]),
    ("grants", 4, [{"grant_id": "g"}]), ("grants", 4, [7]), ("grants", 4, None),
    ("a rule", 3, ""), ("a rule", 5, 7), ("a rule", 6, "secret"), ("a rule", 7, None),
    ("an alias", 3, ""), ("an alias", 5, None),
    ("a pin", 3, ""), ("a pin", 4, BLOB), ("a pin", 4, "x" * 16), ("a pin", 4, None), ("a pin", 5, "x" * 32),
    ("a pin", 6, -1), ("a pin", 6, 1.5), ("a pin", 7, NAN), ("a pin", 8, "not-its-pin"), ("a pin", 9, 8.5),
    ("a pin in quarantine", 8, "whatever"), ("a pin in quarantine", 9, NAN), ("a pin in quarantine", 10, "x"),
    ("an origin", 3, ""), ("an origin", 7, 1), ("an origin", 7, None),
    ("an attestation", 3, ""), ("an attestation", 5, ""), ("an attestation", 5, None),
    ("an attestation", 5, [BLOB]), ("an attestation", 5, bytes(16 * (MAX_ATTESTED + 1))),
    ("a head", 1, 2), ("a head", 2, -1), ("a head", 3, ""), ("a head", 4, ""), ("a head", 5, b"x" * 31),
    ("a head", 5, BASE64),
    ("texts", 1, 2), ("texts", 2, None), ("texts", 3, [["a"]]), ("texts", 3, [["a", "b", "c"]]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "place", "value"), HOSTILE)
def test_a_field_that_is_not_of_its_type_is_unreadable(kind, place, value):
    decode, written = DECODERS[kind]
    row = msgspec.msgpack.decode(bytes.fromhex(written))
    row[place] = value
    with pytest.raises(UnreadableRecordError):
        decode(msgspec.msgpack.encode(row))


@pytest.mark.parametrize("kind", ["a head", "texts"])
@pytest.mark.parametrize(
    "change", [lambda row: row[:-1], lambda row: [*row, "cli"], lambda row: [8, *row[1:]]]
)
def test_a_record_of_a_policy_set_that_is_not_exactly_one_is_unreadable(kind, change):
    decode, written = DECODERS[kind]
    with pytest.raises(UnreadableRecordError):
        decode(msgspec.msgpack.encode(change(msgspec.msgpack.decode(bytes.fromhex(written)))))


def test_as_many_digests_as_a_model_may_have_are_read():
    row = msgspec.msgpack.decode(bytes.fromhex(RECORDS["an attestation"][3]))
    row[5] = b"".join(number.to_bytes(16, "big") for number in range(MAX_ATTESTED))
    assert len(decode_attestation(msgspec.msgpack.encode(row), CARS).digests) == MAX_ATTESTED


def test_grants_share_what_is_the_same_in_all():
    first, second = decode_grants(encode(replace(GRANTS, grants=(GRANT, GRANT))), ACME).grants
    assert first.actions is second.actions
    assert first.source is second.source


def test_the_two_records_of_a_policy_set_have_the_bytes_that_they_always_had():
    head, text_digest, text = encode_policy(POLICY)
    assert head.hex() == HEAD
    assert text.hex() == TEXT
    assert text_digest.hex() == HEAD[-64:]
    assert decode_policy(bytes.fromhex(TEXT), decode_policy_head(bytes.fromhex(HEAD))) == POLICY


ALLOWED = replace(TENANT, allows=("custom-python", "external-request"))
ALLOWED_BYTES = (
    "9b0203cd012ca3636c69a461636d65a441636d65c3cb3ff8000000000000cb404e0000000000009092ad637573746f6d"
    "2d707974686f6eb065787465726e616c2d72657175657374"
)


def test_a_tenant_whose_workflows_may_do_something_has_a_third_layout():
    assert encode(ALLOWED).hex() == ALLOWED_BYTES
    assert decode_tenant(bytes.fromhex(ALLOWED_BYTES), ACME) == ALLOWED
    both = replace(ALLOWED, image_hosts=HOSTED.image_hosts)
    assert decode_tenant(encode(both), ACME) == both
    assert encode(replace(both, allows=())) == encode(HOSTED)


@pytest.mark.parametrize(
    "allows",
    [
        *([], None, "custom-python", [7], [""], ["read"], ["custom_python"], {"custom-python": 1}),
        *(["custom-python", "custom-python"], ["external-request", "custom-python"]),
    ],
)
def test_a_tenant_that_is_allowed_what_is_no_action_of_workflows_is_unreadable(allows):
    row = msgspec.msgpack.decode(bytes.fromhex(ALLOWED_BYTES))
    with pytest.raises(UnreadableRecordError):
        decode_tenant(msgspec.msgpack.encode([*row[:-1], allows]), ACME)


@pytest.mark.parametrize("layout", [0, 1, 2, 4, 3.0, "3", None, True])
def test_what_workflows_may_do_in_another_layout_is_unreadable(layout):
    row = msgspec.msgpack.decode(bytes.fromhex(ALLOWED_BYTES))
    with pytest.raises(UnreadableRecordError):
        decode_tenant(msgspec.msgpack.encode([row[0], layout, *row[2:]]), ACME)
