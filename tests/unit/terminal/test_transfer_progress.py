from __future__ import annotations

import io

import pytest
from rich.console import Console

from gateway.terminal import transfer_progress
from gateway.terminal.transfer_progress import transfer_progress as progress


def shown(monkeypatch, *, is_terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=200, soft_wrap=True)
    monkeypatch.setattr(transfer_progress, "people", console)
    with progress("exporting") as advance:
        advance.expect(10)
        for _ in range(4):
            advance.by()
        advance.by(3)
    return out.getvalue()


def test_people_see_how_far_a_transfer_is(monkeypatch):
    assert "7/10" in shown(monkeypatch, is_terminal=True)


def test_a_pipe_gets_nothing_of_it(monkeypatch):
    assert shown(monkeypatch, is_terminal=False) == ""


def test_a_transfer_that_fails_still_fails(monkeypatch):
    with pytest.raises(KeyError), progress("importing", 3):
        raise KeyError
