from __future__ import annotations

import importlib.util
import sys

import pytest

from gateway.adapters import missing_sniffio


@pytest.fixture
def not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "sniffio", raising=False)


def test_a_missing_module_is_looked_for_once(not_imported, monkeypatch):
    searched = []

    class Finder:
        @staticmethod
        def find_spec(name, _path, _target=None):
            if name == "sniffio":
                searched.append(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "meta_path", [Finder])
    missing_sniffio.remember()
    for _ in range(3):
        with pytest.raises(ImportError):
            __import__("sniffio")
    assert not searched
    missing_sniffio.remember()  # again, and nothing changes
    assert sys.modules["sniffio"] is None


def test_a_module_that_is_there_is_left_alone(not_imported, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    missing_sniffio.remember()
    assert "sniffio" not in sys.modules
