"""Findings are attached to the refusal, for the operator only."""

from __future__ import annotations

import subprocess
import sys

from gateway.model.errors import Reason, Unavailable
from gateway.resource.unservable import finding_of, printable, unservable


def test_the_finding_is_not_in_what_a_client_could_be_told():
    refusal = unservable("weights.onnx: a link")
    assert refusal.reason == Reason.UNSERVABLE
    assert str(refusal) == "unservable"
    assert finding_of(refusal) == "weights.onnx: a link"


def test_an_error_without_a_finding_speaks_for_itself():
    assert finding_of(Unavailable("cache", "EIO")) == "cache: EIO"


def test_a_name_from_disk_is_one_line_of_ascii_whatever_it_holds():
    assert printable("a\n\x1b[31mż\udcff") == "a\\n\\x1b[31m\\u017c\\udcff"


def test_a_name_can_be_printed_when_there_are_no_descriptors_left():
    script = (
        "import os, resource\n"
        "from gateway.resource.unservable import printable\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "print(printable('a\\n'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "a\\n\n", done.stderr
