from __future__ import annotations

import hashlib
import math

import pytest
from msgspec.structs import replace

from gateway.identity.new_keys import (
    KeyOrder,
    KeyState,
    adopt_key,
    import_key,
    issue_key,
    key_state,
    parse_networks,
    parse_scopes,
)
from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.tokens import TokenShape, parse_token
from gateway.model.errors import BadNameError
from gateway.model.facts import DEFAULT_SCOPES, KeyKind, Role, Scope
from gateway.model.names import TenantId, parse_key_id
from gateway.model.roles import DEFAULT_ROLE_SCOPES, ROLE_SCOPES

NOW = 1_800_000_000.0
PEPPERS = Peppers(current=Pepper(id="p2", secret=b"2" * 32), previous=(Pepper(id="p1", secret=b"1" * 32),))
ORDER = KeyOrder(now=NOW, kind=KeyKind.TENANT, tenant=TenantId("acme"), name="ci")


def sha256(text):
    return hashlib.sha256(text.encode()).digest()


def test_an_issued_key_is_stored_under_the_current_peppers_digest_of_its_token():
    new = issue_key(ORDER, environment="live", peppers=PEPPERS)
    assert parse_token(new.token) is TokenShape.OURS
    assert new.digest == PEPPERS.current.digest(sha256(new.token))
    assert new.key.pepper_id == "p2"
    assert parse_key_id(new.key.key_id)
    assert (new.key.tenant, new.key.name, new.key.created_at, new.key.scopes) == (
        "acme",
        "ci",
        NOW,
        DEFAULT_SCOPES,
    )


def test_neither_the_record_nor_its_print_holds_the_token():
    new = issue_key(ORDER, environment="live", peppers=PEPPERS)
    assert new.token[8:] not in repr(new) + repr(new.key)
    assert new.digest.hex() not in repr(new)
    assert repr(new.digest) not in repr(new)


def test_key_ids_differ():
    assert len({issue_key(ORDER, environment="live", peppers=PEPPERS).key.key_id for _ in range(100)}) == 100


def test_a_key_that_was_issued_imported_or_adopted_is_one_and_the_same():
    token = issue_key(ORDER, environment="live", peppers=PEPPERS).token
    imported = import_key(ORDER, sha256_hex=sha256(token).hex(), peppers=PEPPERS)
    adopted = adopt_key(ORDER, raw_key=token, peppers=PEPPERS)
    assert imported.digest == adopted.digest == PEPPERS.digest(sha256(token))
    assert imported.token is adopted.token is None


@pytest.mark.parametrize("text", ["", "ab" * 31, "AB" * 32, "ab" * 33, "zz" * 32, "ab" * 32 + "\n"])
def test_only_a_sha_256_is_imported(text):
    with pytest.raises(BadNameError):
        import_key(ORDER, sha256_hex=text, peppers=PEPPERS)


@pytest.mark.parametrize("raw_key", ["k" * 16, "!~\"'=" * 4, "k" * 4096])
def test_an_opaque_key_is_adopted_as_it_is(raw_key):
    assert adopt_key(ORDER, raw_key=raw_key, peppers=PEPPERS).digest == PEPPERS.digest(sha256(raw_key))


@pytest.mark.parametrize(
    "raw_key",
    [
        *(
            "",
            "local",
            "k" * 15,
            "k" * 4097,
            "k" * 16 + "\n",
            "k" * 8 + " " + "k" * 8,
            "k" * 8 + "," + "k" * 8,
        ),
        *("\u00e9" * 16, "cg_live_0000000000000000000000002q7yec", "cg_somethingelseentirely"),
    ],
)
def test_what_no_request_could_carry_is_not_adopted_and_not_quoted(raw_key):
    with pytest.raises(BadNameError) as caught:
        adopt_key(ORDER, raw_key=raw_key, peppers=PEPPERS)
    assert len(raw_key) < 8 or raw_key not in str(caught.value)


def test_an_admin_key_administers_and_reads_no_content():
    order = KeyOrder(now=NOW, kind=KeyKind.ADMIN, tenant=None)
    assert issue_key(order, environment="live", peppers=PEPPERS).key.scopes == DEFAULT_ROLE_SCOPES[Role.OWNER]
    asking = {Scope.TOKENS_INTROSPECT, Scope.DECISIONS_ASK}
    assert replace(order, scopes=ROLE_SCOPES[Role.OWNER]).scopes == (DEFAULT_ROLE_SCOPES[Role.OWNER] | asking)
    for scope in (Scope.DISCOVER, Scope.READ, Scope.INFER):
        with pytest.raises(BadNameError, match="no content"):
            replace(order, scopes=frozenset({Scope.AUDIT_READ, scope}))


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": None},
        {"kind": KeyKind.ADMIN},
        {"name": "n" * 101},
        {"name": "a\nb"},
        {"name": "a\x1b[31mb"},
        {"name": "a\u202eb"},
        {"scopes": frozenset()},
        {"networks": ("10.0.0.1/8",)},
        {"networks": ("10.0.0.1",)},
        {"expires_at": NOW},
        {"expires_at": NOW - 1},
        {"expires_at": NOW + 5, "not_before": NOW + 5},
        {"expires_at": math.nan},
        {"not_before": math.inf},
        {"now": math.nan},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(change):
    with pytest.raises(BadNameError):
        replace(ORDER, **change)


def test_an_order_that_makes_sense_becomes_the_key():
    order = replace(
        ORDER,
        name="Prüfung 1",
        scopes=frozenset({Scope.READ}),
        networks=("10.0.0.0/8",),
        not_before=NOW + 1,
        expires_at=NOW + 2,
    )
    key = issue_key(order, environment="live", peppers=PEPPERS).key
    assert (key.name, key.scopes, key.networks) == (order.name, order.scopes, order.networks)
    assert (key.not_before, key.expires_at) == (NOW + 1, NOW + 2)


def test_scopes_are_read_by_name():
    assert parse_scopes(["read", "audit:read", "read"], KeyKind.TENANT) == {Scope.READ, Scope.AUDIT_READ}


@pytest.mark.parametrize("texts", [[], ["write"], ["READ"], ["read,infer"], [""]])
def test_what_is_no_scope_is_refused_and_says_what_is(texts):
    with pytest.raises(BadNameError, match="audit:read"):
        parse_scopes(texts, KeyKind.TENANT)


def test_networks_are_normalised_sorted_and_each_there_once():
    texts = ["192.0.2.7", "10.0.0.0/255.0.0.0", "2001:DB8:0::/32", "10.0.0.0/8", "::ffff:198.51.100.0/120"]
    assert parse_networks(texts) == ("10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32")


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/33", "host.example", "10.0.0", "fe80::1%eth0", "1", "10.0.0.0/8 "]
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(BadNameError):
        parse_networks([text])


def test_host_bits_are_refused_and_the_network_is_named():
    with pytest.raises(BadNameError, match=r"host bits set: the network is 10\.0\.0\.0/8"):
        parse_networks(["10.1.2.3/8"])


def test_a_key_is_bound_to_a_bounded_number_of_networks():
    with pytest.raises(BadNameError, match="at most 64"):
        parse_networks([f"10.0.{number}.0/24" for number in range(65)])


@pytest.mark.parametrize(
    ("bounds", "now", "expected"),
    [
        ({}, NOW, KeyState.LIVE),
        ({"not_before": NOW}, NOW, KeyState.LIVE),
        ({"not_before": NOW}, math.nextafter(NOW, 0), KeyState.NOT_YET_VALID),
        ({"expires_at": NOW}, NOW, KeyState.EXPIRED),
        ({"expires_at": NOW}, math.nextafter(NOW, 0), KeyState.LIVE),
        ({"revoked_at": NOW}, NOW - 100, KeyState.REVOKED),
        ({"revoked_at": 1.0, "expires_at": 2.0, "not_before": NOW + 9}, NOW, KeyState.REVOKED),
        ({"expires_at": NOW + 2, "not_before": NOW + 1}, NOW, KeyState.NOT_YET_VALID),
        ({}, math.nan, KeyState.NOT_YET_VALID),
        ({}, math.inf, KeyState.NOT_YET_VALID),
        ({"expires_at": NOW}, -math.inf, KeyState.NOT_YET_VALID),
        ({"expires_at": math.nan}, NOW, KeyState.EXPIRED),
        ({"not_before": math.nan}, NOW, KeyState.NOT_YET_VALID),
    ],
)
def test_a_key_is_what_its_bounds_make_it_and_every_doubt_fails_closed(bounds, now, expected):
    key = replace(issue_key(ORDER, environment="live", peppers=PEPPERS).key, **bounds)
    assert key_state(key, now) is expected
