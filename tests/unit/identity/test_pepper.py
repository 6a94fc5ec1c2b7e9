from __future__ import annotations

import hashlib
import hmac
import os
import stat

import pytest

from gateway.identity.pepper import Pepper, Peppers, create_pepper, load_peppers
from gateway.model.errors import Conflict, Misconfigured

KEY = hashlib.sha256(b"a key").digest()
OLD = Pepper(id="p1", secret=b"1" * 32)
NEW = Pepper(id="p2", secret=b"2" * 32)


def test_a_key_is_stored_under_the_keyed_hash_of_its_hash():
    assert OLD.digest(KEY) == hmac.new(b"1" * 32, KEY, "sha256").digest()


def test_the_current_pepper_comes_first_and_the_older_ones_still_verify():
    peppers = Peppers(current=NEW, previous=(OLD,))
    assert peppers.digest(KEY) == NEW.digest(KEY)
    assert peppers.digests(KEY) == (NEW.digest(KEY), OLD.digest(KEY))
    assert Peppers(current=NEW).digests(KEY) == (NEW.digest(KEY),)


def test_fingerprints_tell_peppers_apart_and_are_no_digest_of_the_secret():
    fingerprints = Peppers(current=NEW, previous=(OLD,)).fingerprints()
    assert fingerprints == {"p1": OLD.fingerprint, "p2": NEW.fingerprint}
    assert OLD.fingerprint != NEW.fingerprint
    assert OLD.fingerprint == Pepper(id="p9", secret=b"1" * 32).fingerprint
    assert OLD.fingerprint != hashlib.sha256(OLD.secret).hexdigest()


def test_a_fingerprint_stays_what_it_is_across_versions():
    assert OLD.fingerprint == "1ee03d9613313fcf8006d6100f80836453826812b8378239682039fc39645261"


def test_no_secret_is_printed():
    shown = repr(Peppers(current=NEW, previous=(OLD,))) + str(NEW)
    assert "1111" not in shown
    assert "2222" not in shown


@pytest.mark.parametrize("secret", [b"", b"1" * 31, b"1" * 33])
def test_a_pepper_has_exactly_the_size_of_the_hash(secret):
    with pytest.raises(Misconfigured):
        Pepper(id="p1", secret=secret)


def test_what_was_created_is_loaded_newest_first(tmp_path):
    folder = tmp_path / "peppers"
    made = [create_pepper(folder) for _ in range(11)]
    loaded = load_peppers(folder)
    assert [pepper.id for pepper in made] == [f"p{number}" for number in range(1, 12)]
    assert loaded.current.id == "p11"
    assert [pepper.id for pepper in loaded.previous] == [f"p{number}" for number in range(10, 0, -1)]
    assert loaded.fingerprints() == {pepper.id: pepper.fingerprint for pepper in made}


def test_a_new_pepper_is_its_owners_alone_whatever_the_umask(tmp_path):
    folder = tmp_path / "peppers"
    before = os.umask(0)
    try:
        create_pepper(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()] == [
        ("p1.pepper", 0o600)
    ]


def test_a_pepper_is_never_overwritten(tmp_path, monkeypatch):
    first = create_pepper(tmp_path)
    # A second command that listed the folder before the first one wrote its file.
    monkeypatch.setattr("gateway.identity.pepper._pepper_numbers", lambda folder: [])
    with pytest.raises(Conflict):
        create_pepper(tmp_path)
    monkeypatch.undo()
    assert load_peppers(tmp_path).fingerprints() == {"p1": first.fingerprint}
    assert [path.name for path in tmp_path.iterdir()] == ["p1.pepper"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_pepper_that_others_can_reach_stops_the_start_and_says_what_to_do(tmp_path, mode):
    create_pepper(tmp_path)
    (tmp_path / "p1.pepper").chmod(mode)
    with pytest.raises(Misconfigured, match=r"chmod 600 .*p1\.pepper"):
        load_peppers(tmp_path)


def test_a_read_only_pepper_is_fine(tmp_path):
    create_pepper(tmp_path)
    (tmp_path / "p1.pepper").chmod(0o400)
    assert load_peppers(tmp_path).current.id == "p1"


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"ab" * 31, b"AB" * 32, b"ab" * 32 + b"\n\n", b"ab" * 33, b"zz" * 32, b"ab" * 4096]
)
def test_a_pepper_file_holds_one_line_of_hex_and_its_content_is_never_quoted(tmp_path, text):
    path = tmp_path / "p1.pepper"
    path.touch(mode=0o600)
    path.write_bytes(text)
    with pytest.raises(Misconfigured) as caught:
        load_peppers(tmp_path)
    assert caught.value.where == str(path)
    assert len(text) < 60 or text[:20].decode() not in str(caught.value)


@pytest.mark.parametrize("exists", [True, False])
def test_no_pepper_stops_the_start(tmp_path, exists):
    folder = tmp_path / "peppers"
    if exists:
        folder.mkdir()
        (folder / "p0.pepper").touch()
        (folder / ".p1.unfinished").touch()
        (folder / "p1.pepper.bak").touch()
    with pytest.raises(Misconfigured, match="cachegate init"):
        load_peppers(folder)


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_stops_the_start_and_does_not_hang_it(tmp_path):
    os.mkfifo(tmp_path / "p1.pepper", 0o600)
    with pytest.raises(Misconfigured, match="regular file"):
        load_peppers(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path):
    with pytest.raises(Misconfigured):
        create_pepper(tmp_path / "absent" / "peppers")
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured):
        create_pepper(tmp_path / "file")
    with pytest.raises(Misconfigured):
        load_peppers(tmp_path / "file")
