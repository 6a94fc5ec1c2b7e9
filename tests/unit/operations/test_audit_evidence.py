"""Time stamps of a real authority (openssl), another signing key, and proofs, as commands make them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from gateway.assembly.signing import EARLIER_NAME, load_own_keys, load_signing_key, replace_signing_key
from gateway.audit import verify
from gateway.audit.anchors import ANCHORS_NAME
from gateway.audit.head import fingerprint
from gateway.audit.key_changes import KEY_CHANGES_NAME
from gateway.audit.proof import check_proof
from gateway.configuration.sources import load_settings
from gateway.model.errors import BadNameError, Misconfigured, Unavailable, UnknownName
from gateway.operations.audit_evidence import anchor_heads, check_stamps, make_proof, rotate_key

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = """
[ req ]
distinguished_name = name
[ name ]
[ root ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[ stamper ]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = critical, timeStamping
[ tsa ]
default_tsa = here
[ here ]
serial = {folder}/serial
signer_cert = {folder}/stamper.pem
signer_key = {folder}/stamper.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
"""


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """A time-stamp authority: a root, a certificate for stamps, and `openssl ts` behind HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.configuration = folder / "openssl.cnf"
        self.configuration.write_text(CONFIGURATION.format(folder=folder))
        (folder / "serial").write_text("01\n")
        self.roots = folder / "root.pem"
        shared = ("-config", self.configuration, "-nodes", "-newkey", "rsa:2048")
        openssl(
            "req", "-x509", *shared, "-extensions", "root", "-days", "3", "-subj", "/CN=root",
            "-keyout", folder / "root.key", "-out", self.roots,
        )  # fmt: skip
        openssl(
            "req",
            *shared,
            "-subj",
            "/CN=stamper",
            "-keyout",
            folder / "stamper.key",
            "-out",
            folder / "s.csr",
        )
        openssl(
            "x509", "-req", "-in", folder / "s.csr", "-CA", self.roots, "-CAkey", folder / "root.key",
            "-set_serial", "2", "-days", "2", "-extfile", self.configuration, "-extensions", "stamper",
            "-out", folder / "stamper.pem",
        )  # fmt: skip

    def stamp(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        openssl(
            "ts", "-reply", "-config", self.configuration, "-queryfile", self.folder / "query",
            "-out", self.folder / "reply",
        )  # fmt: skip
        return (self.folder / "reply").read_bytes()


@contextmanager
def served(answer):
    """A server on a port of its own that answers each body with what `answer` makes of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answer(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-type", "application/timestamp-reply")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "tsa")


@pytest.fixture
def settings(installation):
    return load_settings(installation.variables())


def records(settings, kind):
    return [
        json.loads(line)
        for path in settings.audit_folder.glob("*-0*.jsonl")
        for line in path.read_bytes().splitlines()
        if f'"kind":"{kind}"'.encode() in line
    ]


def test_heads_are_stamped_and_the_stamp_is_recorded_and_holds(settings, authority):
    with served(lambda query: (200, authority.stamp(query))) as url:
        done = anchor_heads(settings, url, authority.roots)
    [checked] = check_stamps(settings.audit_folder, authority.roots)
    assert (checked.why, checked.stamped_at) == (None, done.stamped_at)
    [record] = records(settings, "anchor")
    assert (record["id"], record["listed_bytes"]) == (done.record_id, done.listed_bytes)
    assert verify(settings.audit_folder).is_intact
    assert check_stamps(settings.audit_folder, authority.roots)[0].why is None  # with heads that came since


def test_a_log_that_was_written_anew_has_no_longer_what_was_stamped(settings, authority, tmp_path):
    with served(lambda query: (200, authority.stamp(query))) as url:
        anchor_heads(settings, url, authority.roots)
    copy = tmp_path / "copy"
    shutil.copytree(settings.audit_folder, copy)
    heads = copy / "heads.jsonl"
    heads.write_bytes(b"".join(heads.read_bytes().splitlines(keepends=True)[1:]))
    [checked] = check_stamps(copy, authority.roots)
    assert "written anew" in checked.why
    assert checked.stamped_at is not None


def test_a_stamp_that_was_changed_or_is_of_another_authority_does_not_hold(settings, authority, tmp_path):
    with served(lambda query: (200, authority.stamp(query))) as url:
        anchor_heads(settings, url, authority.roots)
    other = Authority(tmp_path / "other")
    [checked] = check_stamps(settings.audit_folder, other.roots)
    assert "does not verify" in checked.why
    path = settings.audit_folder / ANCHORS_NAME
    anchor = json.loads(path.read_bytes())
    for changed in (
        {"stamp": anchor["stamp"][:-40] + "A" * 36 + anchor["stamp"][-4:]},
        {"stamp": ""},
        {"listed_hash": "ab" * 32},
    ):
        path.write_bytes(json.dumps({**anchor, **changed}).encode() + b"\n")
        [checked] = check_stamps(settings.audit_folder, authority.roots)
        assert checked.why is not None
    path.write_bytes(b"x\n")
    assert "not a stamp" in check_stamps(settings.audit_folder, authority.roots)[0].why


@pytest.mark.parametrize(
    "answer", [(200, b""), (200, b"x" * 100), (200, b"x" * (1 << 20)), (500, b""), (302, b"")]
)
def test_an_authority_that_gives_no_stamp_is_named_and_nothing_is_kept(settings, authority, answer):
    with served(lambda _: answer) as url, pytest.raises(Unavailable, match="gave no stamp"):
        anchor_heads(settings, url, authority.roots)
    assert not (settings.audit_folder / ANCHORS_NAME).exists()


def test_a_stamp_that_was_made_for_another_question_is_none(settings, authority):
    kept = []

    def replay(query):
        kept.append(authority.stamp(query))
        return 200, kept[0]

    with served(replay) as url:
        anchor_heads(settings, url, authority.roots)
        with pytest.raises(Unavailable, match="gave no stamp"):
            anchor_heads(settings, url, authority.roots)


def test_files_that_are_missing_or_no_certificates_are_named(settings, authority, tmp_path):
    (tmp_path / "no.pem").write_bytes(b"x")
    for path in (tmp_path / "none.pem", tmp_path / "no.pem"):
        with pytest.raises(Misconfigured, match=path.name):
            check_stamps(settings.audit_folder, path)
    with pytest.raises(Misconfigured, match=ANCHORS_NAME):
        check_stamps(settings.audit_folder, authority.roots)


def test_after_a_rotation_the_old_key_is_gone_and_everything_verifies(settings):
    path = settings.signing_key_file
    before = load_signing_key(path)
    first = rotate_key(settings)
    second = rotate_key(settings)
    assert (first.old, first.new) == (fingerprint(before.public_key()), second.old)
    assert [fingerprint(key) for key in load_own_keys(path)] == [first.old, second.old, second.new]
    rotate_key(settings)
    for trusted in ([before.public_key()], load_own_keys(path)):
        report = verify(settings.audit_folder, trusted_keys=trusted)
        assert report.is_intact
        assert report.foreign_signers == ()
    [change, *_] = [one for one in records(settings, "change") if one["action"] == "audit.rotate-key"]
    assert change["actor"].startswith("cli:")
    assert {path.name for path in path.parent.glob("*audit*")} == {"audit.pem", EARLIER_NAME}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_rotation_that_cannot_be_stated_leaves_the_old_key(settings, monkeypatch):
    path = settings.signing_key_file
    before = load_signing_key(path).private_bytes_raw()
    (settings.audit_folder / KEY_CHANGES_NAME).mkdir()
    with pytest.raises(Misconfigured, match="cannot be replaced"):
        replace_signing_key(path, settings.audit_folder, "2026-09-21T14:13:20.250000Z")
    assert load_signing_key(path).private_bytes_raw() == before
    (settings.audit_folder / KEY_CHANGES_NAME).rmdir()
    rotate_key(settings)


def test_a_proof_is_made_and_what_has_none_is_named(settings):
    record = records(settings, "change")[0]
    proof = make_proof(settings.audit_folder, record["id"])
    keys = {fingerprint(key): key for key in load_own_keys(settings.signing_key_file)}
    assert check_proof(proof, keys).values == record
    with pytest.raises(UnknownName):
        make_proof(settings.audit_folder, record["id"][:-4] + "0000")
    with pytest.raises(BadNameError):
        make_proof(settings.audit_folder, "x")
