from __future__ import annotations

from gateway.terminal.reading_progress import find_bytes_read, reading_progress


def test_the_kernel_counts_what_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    before = find_bytes_read()
    assert before is not None
    (tmp_path / "file").read_bytes()
    assert find_bytes_read() >= before + 100_000


def test_a_short_read_has_no_bar(tmp_path, capsys):
    with reading_progress([tmp_path]):
        pass
    assert capsys.readouterr().err == ""


def test_what_is_wrong_with_a_path_is_not_the_bars_to_say(tmp_path):
    with reading_progress([tmp_path / "missing"]):
        pass
