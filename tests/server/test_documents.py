"""What the page about the front door shows with an inference server, run as a reader would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from http_client import encoded, picture
from tenants_models import CARS

from tests.shown_blocks import blocks_of, difference, lines_of

pytestmark = pytest.mark.server

PAGE = Path(__file__).parents[2] / "docs/operators/front-door.md"
BLOCKS = blocks_of(PAGE.read_text(), "server")
VARYING = (
    (r'"inference_id":"[0-9a-f-]{36}"', '"inference_id":"<id>"'),
    (r'"time":[0-9.e-]+', '"time":<seconds>'),
    (r"127\.0\.0\.1:\d+", "10.0.0.5:9001"),
    (r'"uuid":"[0-9a-f-]{36}"', '"uuid":"<uuid>"'),
    (r"\b\d+ bytes\b", "<n> bytes"),
)


def masked(text):
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    (folder / "car.png").write_bytes(picture())
    return folder


@pytest.mark.parametrize("script", [script for script, _ in BLOCKS])
def test_a_block_prints_what_the_page_shows(front, folder, script):
    [shown] = {shown for one, shown in BLOCKS if one == script}
    key, image = front.key(), encoded()
    body = {"model_id": CARS, "image": {"type": "base64", "value": image}}
    answer = front.post("/infer/classification", body, key)
    variables = front.installation.variables() | {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "BASE": front.url,
        "KEY": key.token,
        "IMAGE": image,
        "RECORD": answer.record_id,
        "COLUMNS": "120",
    }
    command = ["bash", "-c", f"exec 2>&1; {script}"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    found = difference(lines_of(masked(shown), "/tmp/tour"), lines_of(masked(done.stdout), str(folder)))
    assert not found, "\n".join((*found, done.stdout))
