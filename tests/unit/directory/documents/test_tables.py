from __future__ import annotations

import pytest

from gateway.directory.documents.tables import MAX_DOCUMENT_BYTES, DocumentTables
from gateway.model.errors import BadNameError


def tables(folder, text: str) -> DocumentTables:
    path = folder / "some.toml"
    path.write_text(text, encoding="utf-8")
    return DocumentTables(path)


def parse_short(text: str) -> str:
    if len(text) > 3:
        raise BadNameError("too long")
    return text.upper()


def test_a_look_leaves_out_what_is_wrong_and_goes_on(tmp_path):
    found = tables(tmp_path, '[t]\nnames = ["a", 3, "b", "a",\n"toolong", "c"]\n')
    assert found.names(found.content["t"], "t", "names", parse_short) == ("A", "B", "C")
    assert [problem.where.rpartition(":")[2] for problem in found.problems] == ["2", "2", "3"]


def test_what_is_not_written_is_no_complaint(tmp_path):
    found = tables(tmp_path, "")
    assert found.table({}, "", "t") == {}
    assert found.names({}, "t", "names", parse_short) == ()
    assert found.text({}, "t", "name", "default") == "default"
    assert found.flag({}, "t", "on") is False
    assert found.problems == []


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_number_is_no_flag(tmp_path, number):
    found = tables(tmp_path, f"[t]\non = {number}\n")
    assert found.flag(found.content["t"], "t", "on") is False
    assert len(found.problems) == 1


def test_a_file_that_is_not_there_is_a_complaint_and_not_an_exception(tmp_path):
    found = DocumentTables(tmp_path / "gone.toml")
    assert found.content == {}
    assert "cannot be read" in found.problems[0].why


def test_a_file_that_is_larger_than_any_document_is_a_complaint_and_not_read(tmp_path):
    text = 'a = "' + "x" * (MAX_DOCUMENT_BYTES - 6) + '"'
    assert tables(tmp_path, text).problems == []
    found = tables(tmp_path, text + "\n")
    assert found.content == {}
    assert f"at most {MAX_DOCUMENT_BYTES} bytes" in found.problems[0].why


@pytest.mark.parametrize(
    ("written", "seconds"), [("0", 0.0), ("7", 7.0), ("0.5", 0.5), ("10.0", 10.0), ("1_0", 10.0)]
)
def test_seconds_are_a_number_within_bounds(tmp_path, written, seconds):
    found = tables(tmp_path, f"[t]\nlimit = {written}\n")
    assert found.seconds(found.content["t"], "t", "limit", 10.0) == seconds
    assert found.problems == []


@pytest.mark.parametrize("written", ["10.1", "-0.1", "nan", "inf", "true", '"5"', "[5]"])
def test_seconds_that_are_none_or_too_many_are_a_complaint_and_nought(tmp_path, written):
    found = tables(tmp_path, f"[t]\nlimit = {written}\n")
    assert found.seconds(found.content["t"], "t", "limit", 10.0) == 0.0
    assert len(found.problems) == 1
