"""An entry of the engine's auto-resolution cache."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from gateway.engine.credential_hash import credential_hash
from gateway.engine.resolutions import (
    MAX_RESOLUTION_BYTES,
    honoured_until,
    is_resolution_name,
    parse_resolution,
)
from gateway.model.errors import Reason, Refusal

ENTRY = {  # as the engine wrote it, for an alias
    "model_id": "a-cars",
    "cache_model_id": "acme/cars/1",
    "canonical_model_id": "acme/cars/1",
    "cache_attribution_version": 2,
    "credential_hash": "a72655860d0c6611dcf8d57265a1bd35b4d95e89000b5a531dc651e10311e4d9",
    "model_package_id": "pkgA1",
    "resolved_files": ["/home/x/shared-blobs/43c59ff7a28e3c1f2e40a4508263bdda"],
    "model_architecture": "resnet",
    "task_type": "classification",
    "backend_type": "onnx",
    "created_at": "2026-11-20T11:10:12.176704",
    "trusted_source": True,
}


def _parse(zone=UTC, **changes):
    fields = {name: value for name, value in {**ENTRY, **changes}.items() if value is not ...}
    return parse_resolution(json.dumps(fields).encode(), zone)


def test_an_entry_says_which_key_may_use_which_package_unasked():
    entry = _parse()
    assert (entry.model, entry.canonical_model, entry.package) == ("a-cars", "acme/cars/1", "pkgA1")
    assert entry.credential_hash == credential_hash("key-a")


def test_the_hash_of_a_key_is_not_printed():
    assert ENTRY["credential_hash"] not in repr(_parse())


def test_an_entry_s_time_is_that_of_the_machine_that_wrote_it():
    written = datetime(2026, 11, 20, 11, 10, 12, 176704, tzinfo=UTC).timestamp()
    assert _parse().created_at == written
    assert _parse(timezone(timedelta(hours=2))).created_at == written - 7200
    assert _parse(ZoneInfo("Europe/Warsaw")).created_at == written - 3600


def test_a_time_that_names_its_zone_is_taken_by_it():
    entry = _parse(timezone(timedelta(hours=2)), created_at="2026-11-20T11:10:12+00:00")
    assert entry.created_at == datetime(2026, 11, 20, 11, 10, 12, tzinfo=UTC).timestamp()


def test_an_entry_is_honoured_for_as_long_as_its_clients_are_set_to():
    entry = _parse()
    assert honoured_until(entry) == entry.created_at + 24 * 3600
    assert honoured_until(entry, 30) == entry.created_at + 1800
    assert honoured_until(entry, 0) == entry.created_at


def test_an_entry_of_an_older_engine_may_lack_what_that_did_not_write():
    entry = _parse(canonical_model_id=..., credential_hash=...)
    assert entry.credential_hash is entry.canonical_model is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": ...},
        {"model_id": 1},
        {"model_id": "../x"},
        {"model_package_id": "a/b"},
        {"model_package_id": ...},
        {"resolved_files": ...},
        {"resolved_files": "x"},
        {"resolved_files": [1]},
        {"task_type": ...},
        {"credential_hash": "A" * 64},
        {"credential_hash": 1},
        {"canonical_model_id": ""},
        {"created_at": ...},
        {"created_at": 1763636000},
        {"created_at": "yesterday"},
        {"created_at": "2026-13-01T00:00:00"},
        {"created_at": "NaN"},
    ],
)
def test_what_is_not_as_the_engine_writes_it_is_refused(changes):
    with pytest.raises(Refusal) as refusal:
        _parse(**changes)
    assert refusal.value.reason is Reason.UNSERVABLE


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (MAX_RESOLUTION_BYTES + 1)]
)
def test_what_is_no_entry_is_refused(raw):
    with pytest.raises(Refusal) as refusal:
        parse_resolution(raw, UTC)
    assert refusal.value.reason is Reason.UNSERVABLE


def test_only_what_the_engine_would_read_is_an_entry_by_name():
    name = "5db8a6140d5295ddc3f960a790e4ae2bfdaea375c02af8a5c4d12edef1e14e13.json"
    assert is_resolution_name(name)
    for other in (f".{name}.lock", f".{name}.x.tmp", name.upper(), name[1:], f"{name}\n"):
        assert not is_resolution_name(other)
