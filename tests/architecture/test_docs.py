"""The documents agree with the code: each table is compared with it, and the tour is run."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import fields
from difflib import ndiff
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import typer

from gateway.assembly.pipeline import Pipeline
from gateway.cli import commands
from gateway.cli.main import app
from gateway.configuration.settings import Settings, variable
from gateway.configuration.sources import OTHER_VARIABLES
from gateway.faces import content, download, engine, identity, proxy
from gateway.faces.hooks import AUTHORITY_PATH
from gateway.faces.ops import ops_app
from gateway.identity.tokens import TOKEN_PATTERN
from gateway.middleware.health import HEALTH_PATH
from gateway.model.errors import Reason
from gateway.problems import PROBLEMS
from gateway.server.status import FleetStatus
from gateway.server.supervisor import Supervisor
from gateway.telemetry import HELP, METRICS

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "SECURITY.md", "CHANGELOG.md")
README = (ROOT / "README.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()


def section(document: str, title: str) -> str:
    """The text under a heading, up to the next one of its own level."""
    level = title.partition(" ")[0]
    _, found, rest = document.partition(f"\n{title}\n")
    assert found, f"there is no heading {title!r}"
    return re.split(rf"^{level} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without heading rows."""
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("| ")]
    headings = {before for before, line in pairwise(lines) if line.startswith("|---")}
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in table if line not in headings]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Settings


def test_every_setting_is_documented_with_its_default_and_meaning():
    documented = [row for row in rows(section(README, "## Settings")) if len(row) == 3]
    assert documented == [
        [f"`{variable(one.name)}`", one.metadata["shown"], one.metadata["meaning"]]
        for one in fields(Settings)
    ]


def test_every_other_variable_of_ours_is_documented():
    documented = [row for row in rows(section(README, "## Settings")) if len(row) == 2]
    assert documented == [[f"`{name}`", meaning] for name, meaning in OTHER_VARIABLES.items()]


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *(str(p.relative_to(ROOT)) for p in (ROOT / "deploy").rglob("*") if p.is_file())]
)
def test_no_document_names_a_variable_that_is_not_ours(path):
    known = {variable(one.name) for one in fields(Settings)} | set(OTHER_VARIABLES)
    assert set(re.findall(r"\bCACHEGATE_[A-Z_]*[A-Z]\b", (ROOT / path).read_text())) <= known


# Reasons, routes, metrics, keys


def test_every_reason_is_documented_with_its_status_and_explanation():
    statuses = {reason: PROBLEMS[reason].status for reason in PROBLEMS} | {Reason.PERMITTED: 200}
    assert rows(section(README, "## Reasons")) == [
        [f"`{reason.value}`", str(statuses[reason]), reason.explanation] for reason in Reason
    ]


async def _nobody_asks():
    raise AssertionError("the routes are looked at, not called")


def test_every_route_is_documented_with_its_methods_and_no_other_is():
    documented = {
        code(route)[0]: methods.split(", ")
        for route, methods, *_ in rows(section(README, "## Faces and routes"))
    }
    anything = MagicMock()  # the routes are read, not called
    built = (
        *(*content.routes(), *identity.routes(), *engine.routes(anything), *download.routes()),
        *proxy.routes(anything, anything),
    )
    declared = [route.declaration for route in built]
    expected = {one.template: list(one.methods) for one in declared}
    expected |= {HEALTH_PATH.decode(): ["GET", "HEAD"], AUTHORITY_PATH.decode(): ["POST"]}
    expected |= {route.path: sorted(route.methods) for route in ops_app(_nobody_asks).routes}
    assert documented == expected


def test_every_metric_is_documented_with_its_labels_and_meaning():
    documented = {code(name)[0]: (code(labels), meaning) for name, labels, meaning in _metric_rows()}
    assert {name: documented.get(name) for name in METRICS} == {
        name: (list(labels), HELP[name]) for name, labels in METRICS.items()
    }


def test_every_metric_of_a_scrape_is_documented_and_no_other_is():
    scraped = set(re.findall(r"^# TYPE (\S+)", _scrape(), re.MULTILINE))
    assert scraped == {code(name)[0] for name, *_ in _metric_rows()}


def _metric_rows() -> list[list[str]]:
    return [row for row in rows(section(README, "## Operations")) if len(row) == 3]


def _scrape() -> str:
    """What the ops listener tells Prometheus, asked for as an ASGI server would."""
    body = bytearray()

    async def ask():
        return FleetStatus(expected=1, answering=1, ready={}, counters={})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        body.extend(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b""}
    asyncio.run(ops_app(ask)(scope, receive, send))
    return body.decode()


def _checks() -> list[str]:
    """Each check of readiness by name: those of a worker, and then the parent's own."""
    anything = MagicMock()  # the names are read, not the values
    return [*Pipeline.report(anything)["ready"], *asyncio.run(Supervisor.status(anything)).ready]


def test_every_check_of_readiness_is_documented_and_no_other_is():
    documented = [row for row in rows(section(README, "## Operations")) if len(row) == 2]
    assert [code(name)[0] for name, _ in documented] == _checks()


def test_every_check_that_the_table_of_failures_names_is_there():
    named = re.findall(r"ready false \(`([a-z]+)`\)", section(README, "## When something breaks"))
    assert named
    assert set(named) <= set(_checks())


def test_the_scan_pattern_is_the_one_that_finds_our_keys():
    published = re.search(r"<!-- token-pattern -->\n```text\n(.*)\n```", README)
    assert published is not None
    assert published[1] == TOKEN_PATTERN


@pytest.mark.parametrize("path", DOCUMENTS)
def test_no_document_holds_a_whole_key(path):
    assert not re.findall(TOKEN_PATTERN, (ROOT / path).read_text())


# Commands


def _commands() -> dict[str, set[str]]:
    """Every command of the app with its options."""
    assert commands  # importing it is what registers them
    found: dict[str, set[str]] = {}

    def walk(command, path: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))
        if not hasattr(command, "commands"):
            options = [one.opts for one in command.params if one.param_type_name == "option"]
            found[" ".join(path)] = {name for names in options for name in names}

    walk(typer.main.get_command(app), ("cachegate",))
    return found


def test_every_command_is_documented_with_all_its_options_and_no_other_is():
    documented = {}
    for row in rows(section(README, "## Commands")):
        if row[0].startswith("`cachegate"):
            name = re.sub(r" [\[A-Z].*", "", code(row[0])[0])
            documented[name] = {option for option in code(row[1]) if option.startswith("-")}
    assert documented == _commands()


CURL_OPTIONS = {"--fail-with-body"}
OPTION = re.compile(r'"(--[a-z][a-z0-9-]+)"')


@pytest.mark.parametrize("path", DOCUMENTS)
def test_no_document_names_a_command_or_an_option_that_is_not_there(path):
    known = _commands()
    options = set().union(*known.values(), CURL_OPTIONS)
    groups = {" ".join(name.split()[:count]) for name in known for count in (1, 2, 3)}
    text = (ROOT / path).read_text()
    used = {match.rstrip("-") for match in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)}
    benchmarks = {
        option for path in (ROOT / "tests/bench").glob("*.py") for option in OPTION.findall(path.read_text())
    }
    assert used <= options | benchmarks
    for line in re.findall(r"(?:`|^|\$\()(cachegate [a-z][a-z-]*(?: [a-z][a-z-]*)?)", text, re.MULTILINE):
        assert line in groups or " ".join(line.split()[:2]) in known, line


# Links and tests that are named


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_link_leads_somewhere(path):
    text = (ROOT / path).read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        assert not file or (ROOT / file).exists(), target
        assert file or anchor in anchors, target


def _tests_in(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names.add(node.name)
    return names


def _named_tests(text: str) -> list[tuple[str, str]]:
    """Each `path::name` in code. A bare `::name` is of the file that was named before it."""
    found, path = [], ""
    for one in re.findall(r"`([\w/.]*::test_\w+)`", text):
        file, _, name = one.partition("::")
        path = file or path
        found.append((path, name))
    return found


@pytest.mark.parametrize("named", _named_tests(SECURITY), ids="::".join)
def test_every_test_that_is_named_as_holding_a_guarantee_exists(named):
    path, name = named
    assert (ROOT / path).is_file()
    assert name in _tests_in(ROOT / path)


@pytest.mark.parametrize("number", range(1, 11))
def test_every_guarantee_names_at_least_two_tests(number):
    [title] = re.findall(rf"^### I{number} .*$", SECURITY, re.MULTILINE)
    text = section(SECURITY, title).split("\n## ")[0]
    assert "Now:" in text
    assert len(set(_named_tests(text))) >= 2


# The tour

BLOCK = re.compile(r"<!-- tour -->\n```sh\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
DIVIDER = "=-=-= end of a block =-=-="

VARYING = (
    (r"cg_[a-z]{2,8}_\w+…?", "<token>"),
    (r"\bkey_[0-9A-Za-z]{12}\b", "<key>"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<record>"),
    (r"\b[\w.-]+\.[0-9a-f]{12}-[0-9a-f]{8}\b", "<chain>"),
    (r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-01\b", "<trace>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"^date: .*", "date: <date>"),
    (r"\b[0-9.]+ ms\b", "<ms>"),
    (r"\bpublic key [0-9a-f]{32}\b", "public key <fingerprint>"),
    (r"\bcli:[\w.-]+", "cli:<user>"),
    (r"\bline \d+", "line <n>"),
    (r"\bof the node [\w.-]+ in\b", "of the node <node> in"),
    (r" +\(not proven\)$", ""),  # until the next signed head, which comes within ten seconds
    (r"^proven +(yes|no): .*", "proven <yes or no>"),
    (r"\bgeneration +\d+", "generation <n>"),  # the canary and pins raise it meanwhile
    (r"\s+", " "),
    (r"^<chain>( \d+){3} ", "<chain> <n> "),
    (r"\d+ records (in \d+ chains)", r"<n> records \1"),
)
"""What differs each time: ids, times, what was due meanwhile, where it runs and who runs it.

All else is compared, and nothing may be there that is not documented.
"""


def _lines(text: str, folder: str) -> list[str]:
    """The lines of an output with what varies taken out; empty ones left out."""
    text = text.replace(folder, "/tmp/tour").replace("}{", "}\n{").replace("\r", "")
    found = []
    for line in text.splitlines():
        masked = line
        for pattern, word in VARYING:
            masked = re.sub(pattern, word, masked)
        found.append(masked.strip())
    return [line for line in found if line]


def _difference(documented: list[str], real: list[str]) -> list[str]:
    """What is documented and does not come, and what comes and is not documented: headers, lines, fields."""
    return [line for line in ndiff(documented, real) if line[0] in "-+"]


def _free_ports() -> tuple[str, str]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1]), str(other.getsockname()[1])


def _run_tour(folder: Path, scripts: list[str]) -> list[str]:
    """Run all blocks in one shell, as a reader would; the output of each."""
    port, ops_port = _free_ports()
    body = f"\necho '{DIVIDER}'\n".join(scripts).replace("8080", port).replace("9090", ops_port)
    script = f'exec 2>&1\ntrap \'[ -z "$SERVE" ] || {{ kill "$SERVE" 2>&- && wait "$SERVE"; }}\' EXIT\n{body}'
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "SOURCE": str(ROOT),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    return [
        text.replace(port, "8080").replace(ops_port, "9090") for text in done.stdout.split(f"{DIVIDER}\n")
    ]


@pytest.fixture
def tour_folder():
    """A folder whose path is about as long as the reader's, so that tables are as wide."""
    with tempfile.TemporaryDirectory(prefix="tour-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_tour_shows_what_a_reader_will_see(tour_folder):
    assert shutil.which("curl"), "the tour uses curl: apt-get install curl"
    blocks = BLOCK.findall(README)
    assert len(blocks) >= 15
    outputs = _run_tour(tour_folder, [script for script, _ in blocks])
    assert len(outputs) == len(blocks), outputs[-1]
    complaints = defaultdict(str)
    for (script, documented), output in zip(blocks, outputs, strict=True):
        difference = _difference(_lines(documented, "/tmp/tour"), _lines(output, str(tour_folder)))
        if difference:
            complaints[script] = "\n".join((*difference, output))
    assert not complaints, "\n\n".join(f"{script}{what}" for script, what in complaints.items())


ANSWER = 'HTTP/1.1 200 OK\r\ndate: now\r\netag: "a"\r\n\r\n{"id":1,"link":"/v1"}\n'


@pytest.mark.parametrize(
    ("documented", "is_so"),
    [
        (ANSWER, True),
        (ANSWER.replace("now", "then"), True),
        (ANSWER.replace("200 OK", "404 Not Found"), False),
        (ANSWER.replace("link", "url"), False),
        (ANSWER.replace('etag: "a"\r\n', ""), False),
        (ANSWER.replace('etag: "a"', 'etag: "b"'), False),
        (ANSWER.replace("etag:", "vary: a\r\netag:"), False),
        ("\n".join(reversed(ANSWER.splitlines())), False),
    ],
    ids=[
        "the same",
        "another date",
        "another status",
        "another field",
        "a header less",
        "another value",
        "a header more",
        "another order",
    ],
)
def test_comparing_the_tour_notices_whatever_differs(documented, is_so):
    assert (_difference(_lines(documented, "-"), _lines(ANSWER, "-")) == []) is is_so


def test_every_folder_of_tests_is_in_the_tree_of_the_code():
    [shown] = re.findall(r"^tests/ +(.*)$", section(README, "## The code"), re.MULTILINE)
    named = set(re.findall(r"(\w+)/", shown.replace("gateway/", "")))
    assert named == {path.parent.relative_to(ROOT / "tests").parts[0] for path in _files_of_tests()}


def _files_of_tests() -> list[Path]:
    """Files in folders below tests/, whatever they hold: code, and cases as data."""
    found = [path for end in ("py", "toml") for path in (ROOT / "tests").glob(f"*/**/*.{end}")]
    return [path for path in found if "__pycache__" not in path.parts]


def test_the_example_of_a_deployment_serves_what_the_readme_says():
    unit = (ROOT / "deploy/systemd/cachegate.service").read_text()
    container = (ROOT / "deploy/container/Containerfile").read_text()
    started = set(re.findall(r"ExecStart=\S+/cachegate (.*)", unit))
    started.add(" ".join(json.loads(re.findall(r"^CMD (\[.*\])$", container, re.MULTILINE)[-1])))
    for line in started:
        command, *words = line.split()
        assert {word for word in words if word.startswith("--")} <= _commands()[f"cachegate {command}"]
