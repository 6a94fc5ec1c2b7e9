"""An attacker who may write to the audit folder but has no signing key: no forgery is reported as proven.

One change of any kind is made to a folder as gateways and commands leave it. Either `verify` reports damage,
or every record that was proven is still proven or counted as not proven, and no other record is proven.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import AuditLog, Ending, Limits, Verdict, verify
from gateway.audit.folder import group_segments
from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Change, Rejection
from tests import samples
from tests.examples import examples

KEY = Ed25519PrivateKey.generate()
REQUEST = samples.wire_request(headers=((b"user-agent", b"curl"),), client="192.0.2.1", route="/v1/models")


class _Clock:
    def __init__(self):
        self.time = 1_790_000_000.0

    def now(self):
        self.time += 0.001
        return self.time


CLOCK = _Clock()


def _log(folder):
    limits = Limits(segment_bytes=4000, head_records=5)
    return AuditLog(folder=folder, node="n", signing_key=KEY, clock=CLOCK, limits=limits)


def _write(log, count):
    for _ in range(count):
        log.reject(Rejection(request=REQUEST, reason=Reason.NO_CREDENTIAL, claimed_key_id="key_a"))


def _command(folder):
    log = _log(folder)
    log.change(Change(actor="cli:x", action="y", received_at=1.0)).close(generation=1, result="done")
    log.close()
    CLOCK.time += 3


def _kill(log):
    log._writer._segment.close()
    os.close(log._writer._live._descriptor)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of a folder with a chain of each kind; the last one is being written."""
    folder = tmp_path_factory.mktemp("written") / "audit"
    _command(folder)
    killed = _log(folder)
    _write(killed, 8)
    _kill(killed)
    CLOCK.time += 5
    given_up = _log(folder)
    _write(given_up, 2)
    with max(folder.glob("*-0*.jsonl")).open("ab") as file:
        file.write(b"x")
    with pytest.raises(Unavailable):
        _write(given_up, 1)
    CLOCK.time += 5
    _write(given_up, 2)
    _command(folder)
    _write(given_up, 9)  # so that some follow the last head
    report = verify(folder)
    assert report.verdict is Verdict.NOT_ALL_PROVEN
    assert {one.ending for one in report.chains} == {
        Ending.CLOSED,
        Ending.RECOVERED,
        Ending.ABANDONED,
        Ending.OPEN,
    }
    assert report.chains[-1].unproven or report.chains[-2].unproven
    return Written({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})


class Written:
    """Files by name; what Hypothesis prints of them is short."""

    def __init__(self, files):
        self.files = files

    def __repr__(self):
        return f"Written({len(self.files)} files)"


def _laid_out(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _records(folder):
    """The records that are called proven, and those that are not, as bytes; None when it is damaged."""
    report = verify(folder, trusted_keys=[KEY.public_key()])
    if not report.is_intact:
        return None
    proven, others = set(), set()
    segments = group_segments(folder.iterdir())
    for chain in report.chains:
        for _, path in segments[chain.chain]:
            for line in path.read_bytes().split(b"\n")[:-1]:
                (proven if json.loads(line)["seq"] <= chain.proven_seq else others).add(line)
    assert len(others) == report.unproven
    return proven, others


def _resealed(covered):
    return covered[:-1] + b',"hash":"%b"}\n' % hashlib.sha256(covered).hexdigest().encode()


def _parsed(line):
    """A line's record; of half a line, one that stands for it."""
    try:
        return json.loads(line)
    except ValueError:
        return {"hash": ""}


def _forged(line, **members):
    """A record of one's own making with a right hash, after the manner of this one."""
    record = {**_parsed(line), **members}
    record.pop("hash")
    record.pop("signature", None)
    return _resealed(json.dumps(record, separators=(",", ":")).encode())


def _delete(lines, at, to, _):
    del lines[at : max(at, to) + 1]


def _cut_lines(lines, at, _to, _):
    del lines[at:]


def _repeat(lines, at, to, _):
    lines.insert(to, lines[at])


def _swap(lines, at, to, _):
    lines[at], lines[to] = lines[to], lines[at]


def _edit(lines, at, to, more):
    line = bytearray(lines[at])
    line[more % len(line)] ^= 1 + to % 255
    lines[at] = bytes(line)


def _edit_and_reseal(lines, at, _to, more):
    old, new = [(b'"n"', b'"m"'), (b"GET", b"PUT"), (b'"live":[', b'"live":["n",')][more % 3]
    lines[at] = _resealed(lines[at][:-77].replace(old, new, 1) + b"}")


def _forge(lines, at, to, more):
    """A record of one's own, rightly linked to the one in front of it; and all behind it linked anew."""
    previous = _parsed(lines[to - 1]) if to else {"seq": 0, "hash": "0" * 64}
    if "seq" not in _parsed(lines[at]) or "seq" not in previous:
        return
    lines.insert(to, _forged(lines[at], seq=previous["seq"] + 1, prev=previous["hash"]))
    for place in range(to + 1, len(lines) if more % 2 else 0):
        previous = _parsed(lines[place - 1])
        if not lines[place].endswith(b"\n"):
            return
        lines[place] = _forged(lines[place], seq=previous["seq"] + 1, prev=previous["hash"])


def _forge_tail(lines, _at, _to, more):
    last = _parsed(lines[-1])
    for _ in range((1, 2, 1000, 1001)[more % 4] if "seq" in last else 0):
        lines.append(_forged(lines[-1], kind="open", seq=last["seq"] + 1, prev=last["hash"], reason="x"))
        last = _parsed(lines[-1])


def _add_bytes(lines, at, _to, more):
    lines.append((b"x", b"\n", b"{}\n", lines[at][:-1], lines[at][: more % len(lines[at])])[more % 5])


OF_LINES = [_delete, _cut_lines, _repeat, _swap, _edit, _edit_and_reseal, _forge, _forge_tail, _add_bytes]


def _cut_bytes(files, name, _other, more):
    files[name] = files[name][: more % len(files[name])]


def _empty(files, name, _other, _more):
    files[name] = b""


def _delete_file(files, name, _other, _more):
    del files[name]


def _swap_files(files, name, other, _more):
    files[name], files[other] = files[other], files[name]


def _copy_file(files, name, other, _more):
    files[other] = files[name]


def _move_line(files, name, other, more):
    lines, others = files[name].splitlines(keepends=True), files[other].splitlines(keepends=True)
    if name != other:
        others.insert(more % (len(others) + 1), lines.pop(more % len(lines)))
        files[name], files[other] = b"".join(lines), b"".join(others)


def _forge_chain(files, name, _other, more):
    chain = f"n.{more % 2**48:012x}-{more % 2**32:08x}"
    line = files[name].splitlines(keepends=True)[0]
    content = [_forged(line, chain=chain, seq=1, prev="0" * 64, kind="open", reason="x")]
    files[f"{chain}-{1 + more % 3:06d}.jsonl"] = b"".join(content[: more % 2])


def _add_segment(files, name, other, more):
    """One more segment of a chain: empty, or with what another file holds."""
    if name != "heads.jsonl":
        stem, _, number = name.removesuffix(".jsonl").rpartition("-")
        files.setdefault(f"{stem}-{int(number) + 1:06d}.jsonl", files[other] if more % 2 else b"")


def _rename(files, name, _other, more):
    stem, _, number = name.removesuffix(".jsonl").rpartition("-")
    if name != "heads.jsonl":
        files[f"{stem}-{int(number) + 1 + more % 2:06d}.jsonl"] = files.pop(name)


OF_FILES = [
    *(_cut_bytes, _empty, _delete_file, _swap_files, _copy_file),
    *(_move_line, _forge_chain, _add_segment, _rename),
]
NUMBERS = st.integers(0, 2**64)
CHANGES = st.tuples(st.sampled_from([*OF_LINES, *OF_FILES]), NUMBERS, NUMBERS, NUMBERS, NUMBERS)


def tampered(files, change):
    """The files after one change by somebody without the key."""
    kind, file, at, to, more = change
    files = dict(files)
    names = sorted(one for one in files if one.endswith(".jsonl"))
    name = names[file % len(names)]
    if kind in OF_FILES:
        kind(files, name, names[at % len(names)], more)
    else:
        lines = files[name].splitlines(keepends=True)
        kind(lines, at % len(lines), to % len(lines), more)
        files[name] = b"".join(lines)
    return files


@settings(max_examples=examples(400), deadline=None)
@given(change=CHANGES)
def test_one_change_is_damage_or_leaves_nothing_proven_that_was_not(written, change):
    files = tampered(written.files, change)
    with tempfile.TemporaryDirectory() as temporary:
        folder, original = Path(temporary) / "tampered", Path(temporary) / "original"
        folder.mkdir()
        original.mkdir()
        _laid_out(written.files, original)
        _laid_out(files, folder)
        before, after = _records(original), _records(folder)
    assert before is not None
    if after is None:
        return
    assert after[0] <= before[0]
    assert before[0] - after[0] <= after[1]


@settings(max_examples=examples(150), deadline=None)
@given(change=CHANGES)
def test_nor_does_the_next_start_make_anything_proven(written, change):
    files = tampered(written.files, change)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tampered"
        folder.mkdir()
        (folder / "live").mkdir()
        _laid_out(files, folder)
        for chain in group_segments(folder.iterdir()):
            (folder / "live" / chain).touch()  # as if all their processes had been killed
        before = _records(folder)
        log = _log(folder)
        own = log._writer._links.chain
        _write(log, 1)
        log.close()
        after = _records(folder)
        shutil.rmtree(folder / "live")
    if after is None:
        return
    assert before is not None  # damage stays damage
    proven = {line for line in after[0] if json.loads(line)["chain"] != own}
    assert proven <= before[0]
    assert before[0] - proven <= after[1]
    assert before[1] <= after[1]
