"""Packed segments: whatever somebody puts there, reading is bounded and says what is wrong."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys

import pytest
import zstandard

from gateway.audit import Damage, read_events
from gateway.audit.packed import FRAME_BYTES, DamagedSegmentError, content_size, pack, unpacked
from gateway.audit.reading import lines_backward, opened, readable_lines, size_of

CONTENT = b"".join(b'{"line":%d,"digest":"%s"}\n' % (n, os.urandom(32).hex().encode()) for n in range(3000))


def packed(content=CONTENT):
    target = io.BytesIO()
    pack(io.BytesIO(content), len(content), target, lambda _piece: None)
    return target.getvalue()


def read(raw):
    return unpacked(io.BytesIO(raw), len(raw)).read()


def test_what_is_packed_is_read_back():
    for content in (CONTENT, b"x", CONTENT[:4096]):
        raw = packed(content)
        assert read(raw) == content
        assert content_size(io.BytesIO(raw), len(raw)) == len(content)


def test_a_truncated_one_is_damaged_wherever_it_is_cut():
    raw = packed()
    for length in {*range(24), *range(24, len(raw), 997), *range(len(raw) - 60, len(raw))}:
        with pytest.raises(DamagedSegmentError):
            read(raw[:length])


def test_a_changed_byte_is_damage():
    raw = packed()
    for at in range(4, len(raw), len(raw) // 97):
        changed = bytearray(raw)
        changed[at] ^= 0x10
        try:
            assert read(bytes(changed)) == CONTENT  # a bit of a frame's header that means nothing
        except DamagedSegmentError:
            continue


def _without_length(content):
    return zstandard.ZstdCompressor(write_content_size=False).compress(content)


def _two_frames(content):
    return packed(content[: len(content) // 2]) + packed(content[len(content) // 2 :])


def _wide(content):
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True, write_content_size=True)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content * 100)


def single(content=CONTENT):
    """As releases wrote it that knew no table."""
    return zstandard.ZstdCompressor(write_checksum=True, write_content_size=True).compress(content)


def _tabled(*frames, table):
    """Frames with any table."""
    listed = [(8, 0), *zip(map(len, frames), table, strict=True)]
    lengths = b"".join(struct.pack("<II", *one) for one in listed) + struct.pack(
        "<IBI", len(listed), 0, 0x8F92EAB1
    )
    return packed(b"")[:8] + b"".join(frames) + struct.pack("<II", 0x184D2A5E, len(lengths)) + lengths


BOMB = zstandard.ZstdCompressor().compress(bytes(64 << 20))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_without_length(CONTENT), id="states no length"),
        pytest.param(_two_frames(CONTENT), id="two frames"),
        pytest.param(packed() + b"\0", id="something behind the frame"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not zstd at all, but long enough", id="something else"),
        pytest.param(zstandard.ZstdCompressor().compress(bytes(64 << 20)), id="a bomb"),
        pytest.param(_wide(CONTENT), id="a window of 128 MiB"),
        pytest.param(_tabled(BOMB, table=[1000]), id="a bomb behind an honest table"),
        pytest.param(_tabled(BOMB, table=[64 << 20]), id="a bomb with its table"),
        pytest.param(packed() + packed(), id="two of them"),
        pytest.param(_tabled(single(b"abc"), table=[2]), id="a table that says less than the frame"),
        pytest.param(_tabled(single(b"ab"), single(b"c"), table=[2, 1]), id="a short frame inside"),
    ],
)
def test_what_no_honest_writer_makes_is_damaged(raw):
    with pytest.raises(DamagedSegmentError):
        read(raw)


def test_one_frame_for_all_is_read_as_before(tmp_path):
    raw = single()
    assert read(raw) == CONTENT
    assert content_size(io.BytesIO(raw), len(raw)) == len(CONTENT)
    path = tmp_path / "segment.jsonl.zst"
    path.write_bytes(raw)
    assert [line for _, line in lines_backward(path)] == CONTENT.splitlines(keepends=True)[::-1]
    for length in {*range(24), *range(24, len(raw) - 4, 997), len(raw) - 5}:  # the last four: a checksum
        with pytest.raises(DamagedSegmentError):
            read(raw[:length])


def test_any_offset_is_reached_by_unpacking_one_frame():
    content = os.urandom(FRAME_BYTES * 3 + 17)
    raw = packed(content)
    reading = []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            reading.append(size)
            return super().read(size)

    file = unpacked(Counted(raw), len(raw))
    for offset in (FRAME_BYTES * 2 + 5, 0, FRAME_BYTES - 3, len(content) - 1, len(content), FRAME_BYTES):
        reading.clear()
        file.seek(offset)
        assert file.read(10) == content[offset : offset + 10]
        assert sum(reading) <= 2 * (FRAME_BYTES + 2048)


def test_offsets_are_those_of_the_content(tmp_path):
    path = tmp_path / "segment.jsonl"
    path.with_name("segment.jsonl.zst").write_bytes(packed())
    with opened(path, 1000) as file:  # by its plain name, as by a reader that listed it before
        assert file.read() == CONTENT[1000:]
    assert size_of(path) == len(CONTENT)
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(CONTENT)
    backward = list(lines_backward(path))
    assert backward == list(lines_backward(plain))[: len(backward)]
    assert len(backward) == 3000


class TestInAFolder:
    @pytest.fixture
    def place(self, audit):
        """A closed chain, and the path of its second segment once it is packed."""
        log = audit.open(segment_bytes=8000, head_records=10)
        audit.write(log, 60)
        log.close()
        path = audit.segments[1]
        raw = packed(path.read_bytes())
        path.unlink()
        path = path.with_name(path.name + ".zst")
        path.write_bytes(raw)
        assert audit.verify().is_intact
        return path

    def damage(self, audit, path):
        report = audit.verify()
        assert not report.is_intact
        [fault] = [chain.fault for chain in report.chains]
        assert (fault.damage, fault.file) == (Damage.MALFORMED, path.name)
        return fault

    def test_a_truncated_one_is_found_and_named(self, audit, place):
        whole = list(read_events(audit.folder))
        place.write_bytes(place.read_bytes()[:-50])
        self.damage(audit, place)
        found = list(read_events(audit.folder))  # all the others are still found
        assert 0 < len(found) < len(whole)

    @pytest.mark.parametrize("content", [b"\n" * (64 << 20), b"0" * (64 << 20)], ids=["lines", "one line"])
    def test_a_bomb_is_found_and_named(self, audit, place, content):
        place.write_bytes(zstandard.ZstdCompressor().compress(content))
        assert place.stat().st_size < 8192
        assert "claim" in self.damage(audit, place).why
        assert list(read_events(audit.folder))

    def test_a_long_line_takes_no_more_memory_than_a_record_may(self, audit, place):
        # Just below the ratio that is believed: 90 MB without a line end, from 1 MB.
        noise = os.urandom(900_000)
        place.write_bytes(packed(noise.replace(b"\n", b"") + bytes(80 << 20)))
        script = (
            "import resource, sys, pathlib\n"
            "from gateway.audit import verify, read_events\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "assert not verify(pathlib.Path(sys.argv[1])).is_intact\n"
            "assert list(read_events(pathlib.Path(sys.argv[1])))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, audit.folder], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) < 30_000  # kB

    def _fifo(self, path):
        os.mkfifo(path)

    def _folder(self, path):
        path.mkdir()

    def _device(self, path):
        path.symlink_to("/dev/zero")

    @pytest.mark.parametrize("suffix", ["", ".zst"])
    @pytest.mark.parametrize("plant", ["_fifo", "_folder", "_device"])
    def test_what_is_no_file_is_not_read(self, audit, place, plant, suffix):
        """A FIFO would block the reader for ever, a device would never end."""
        planted = place.with_name(place.name.replace("-000002", "-000009").removesuffix(".zst") + suffix)
        getattr(self, plant)(planted)
        report = audit.verify()
        assert not report.is_intact
        assert list(read_events(audit.folder))
        assert list(readable_lines(planted)) == []
