"""The worst input of each parser takes a bounded number of steps. How long they take is not tested.

A step is a call, of a function of ours or of the interpreter's. Some hundred thousand of them are 20 ms: as
long as no request, and no file that a tenant or a writer of the volume can make, may hold the event loop.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ON_THE_LOOP = 50_000  # calls: half of 20 ms, or less

MOST_STEPS = {
    "query": 8_000,
    "headers": 2_500,
    "path": 2_000,
    "range": 25_000,
    "hook": 8_000,
    "evaluations": 20_000,
    "stat": 100,
    "arranged_grants": 45_000,
    # Not on the loop: in a thread, or by a command.
    "metadata": 60_000,
    "grants": 250_000,
    "tenant_file": 1_500_000,
}
"""About a third more than there are: another loop over the input shows, another line does not."""


def load_worst():
    """`worst.py` beside this file: it is no package."""
    spec = importlib.util.spec_from_file_location("worst", Path(__file__).with_name("worst.py"))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORST = load_worst()
PARSERS = {make.__name__: make for make in WORST.PARSERS}


def steps(read):
    """How many calls one reading takes."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    read()  # what is worked out once for all is not the input's
    former = sys.getprofile()
    sys.setprofile(note)
    try:
        read()
    finally:
        sys.setprofile(former)
    return count


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "manifests"])
def test_the_worst_input_of_a_parser_takes_no_more_steps_than_are_known(name):
    parser = PARSERS[name]()
    taken = {what: steps(read) for what, read in parser.inputs.items()}
    assert max(taken.values()) <= MOST_STEPS[parser.name], taken
    if not parser.is_aside:
        assert MOST_STEPS[parser.name] <= ON_THE_LOOP


def test_a_manifest_of_bad_handles_takes_a_few_steps_for_each():
    """How a good one is read is for the tests of manifests."""
    read = PARSERS["manifests"]().inputs["handles of 2,000 segments"]
    assert steps(read) <= 30 * 1_000


def test_security_says_what_each_parser_is_bounded_by():
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    for make in PARSERS.values():
        parser = make()
        assert f"| `{parser.name}` | {parser.fed_by} | {parser.bound} |" in text
