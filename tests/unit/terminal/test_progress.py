from __future__ import annotations

import io

import pytest
from rich.console import Console

from gateway.terminal import progress as module
from gateway.terminal.progress import counting, find_bytes_read, verifying


def test_the_kernel_counts_what_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    before = find_bytes_read()
    assert before is not None
    (tmp_path / "file").read_bytes()
    assert find_bytes_read() >= before + 100_000


def test_a_short_read_has_no_bar(tmp_path, capsys):
    with verifying([tmp_path]):
        pass
    assert capsys.readouterr().err == ""


def test_what_is_wrong_with_a_path_is_not_the_bars_to_say(tmp_path):
    with verifying([tmp_path / "missing"]):
        pass


def shown(monkeypatch, *, is_terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=200, soft_wrap=True)
    monkeypatch.setattr(module, "people", console)
    with counting("exporting") as bar:
        bar.expect(10)
        for _ in range(4):
            bar.advance()
        bar.advance(3)
    return out.getvalue()


def test_people_see_how_far_a_transfer_is(monkeypatch):
    assert "7/10" in shown(monkeypatch, is_terminal=True)


def test_a_pipe_gets_nothing_of_it(monkeypatch):
    assert shown(monkeypatch, is_terminal=False) == ""


def test_a_transfer_that_fails_still_fails(monkeypatch):
    with pytest.raises(KeyError), counting("importing", 3):
        raise KeyError
