from __future__ import annotations

from gateway.demo.report import print_curl, print_ledger, print_verdict, print_visits
from gateway.demo.tour import TourAnswer, TourStep, Visit


def visit(**more):
    step = TourStep(
        who="acme", path="/v1/models?api_key=cg_demo_secret", expected=400, shows="it", token="cg_demo_x"
    )
    return Visit(step=step, answer=TourAnswer(status=200, headers=(), body=b""), **more)


def test_the_table_shows_what_was_expected_and_what_came_and_no_key(capsys):
    print_visits([visit(complaints=("wrong",))])
    out = capsys.readouterr().out
    assert "400" in out
    assert "200" in out
    assert "WRONG: it" in out
    assert "cg_demo" not in out


def test_a_log_without_the_records_says_so(capsys):
    print_ledger([visit(complaints=())], {})
    assert "none of it" in capsys.readouterr().err


def test_each_complaint_is_a_line_and_none_is_good_news(capsys):
    print_verdict(["this", "that"])
    assert capsys.readouterr().err.splitlines() == ["not as expected: this", "not as expected: that"]
    print_verdict([])
    assert "as expected" in capsys.readouterr().err


def test_the_lines_to_try_name_the_address_and_a_key_that_works(installed, capsys):
    print_curl(installed.world, "127.0.0.1", 4711)
    lines = capsys.readouterr().out.splitlines()
    assert all("http://127.0.0.1:4711/v1/" in line for line in lines)
    assert installed.world.keys["acme"].token in lines[0]
