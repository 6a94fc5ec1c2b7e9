"""The documents agree with the code: each table is compared with it, and what they show is run.

Every check of words, links and names holds for every page: README.md, SECURITY.md, CHANGELOG.md and docs/.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import typer
from markdown.extensions.toc import slugify

from gateway.admin.face import AdminFace
from gateway.assembly.pipeline import Pipeline
from gateway.cli import commands
from gateway.cli.main import app
from gateway.configuration.settings import Settings, variable
from gateway.configuration.sources import OTHER_VARIABLES
from gateway.faces import audit, authzen, check, content, download, engine, identity, proxy, tokens
from gateway.faces.audit_events import EventsFace
from gateway.faces.hooks import AUTHORITY_PATH
from gateway.faces.ops import ops_app
from gateway.faces.usage import UsageFace
from gateway.identity.tokens import TOKEN_PATTERN
from gateway.middleware.health import HEALTH_PATH
from gateway.model.errors import Reason
from gateway.problems import PROBLEMS
from gateway.request_times import FACES, NONE, OTHER, face_of
from gateway.server.status import FleetStatus
from gateway.server.supervisor import Supervisor
from gateway.telemetry import COUNTERS
from tests.ports import free_port
from tests.shown_blocks import blocks_of, difference, lines_of

ROOT = Path(__file__).parents[2]
PAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
DOCUMENTS = ("README.md", "SECURITY.md", "CHANGELOG.md", *PAGES)
MAX_README_LINES = 250
CONTRIBUTING = "docs/contributing.md"


def read(path: str) -> str:
    return (ROOT / path).read_text()


SECURITY = read("SECURITY.md")


def section(document: str, title: str) -> str:
    """The text under a heading, up to the next one of its own level or a higher one."""
    level = len(title.partition(" ")[0])
    _, found, rest = document.partition(f"\n{title}\n")
    assert found, f"there is no heading {title!r}"
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without heading rows."""
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("| ")]
    headings = {before for before, line in pairwise(lines) if line.startswith("|---")}
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in table if line not in headings]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Pages


def test_the_readme_can_be_read_in_one_go():
    assert len(read("README.md").splitlines()) <= MAX_README_LINES


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.endswith(".md"):
            reached.add(page)
            waiting += [file for file, _ in _links(page)]
    assert set(DOCUMENTS) <= reached


def test_every_page_is_in_the_navigation_of_the_site():
    named = set(re.findall(r"[\w/-]+\.md", read("mkdocs.yml").partition("nav:")[2]))
    in_site = {path.removeprefix("docs/") for path in DOCUMENTS} - {"README.md"} | {"index.md"}
    assert named == in_site


def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "site/search/search_index.json").read_text())
    assert {one["location"].partition("#")[0] for one in found["docs"]} >= {"index.html", "tour.html"}
    outside = [
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "site").rglob("*.html")
        if re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=.?https?://", path.read_text())
    ]
    assert not outside, "a reader of the site asks no other host for anything"


# Settings


def test_every_setting_is_documented_with_its_default_and_meaning():
    documented = [row for row in rows(read("docs/reference/settings.md")) if len(row) == 3]
    assert documented == [
        [f"`{variable(one.name)}`", one.metadata["shown"], one.metadata["meaning"]]
        for one in fields(Settings)
    ]


def test_every_other_variable_of_ours_is_documented():
    documented = [row for row in rows(read("docs/reference/settings.md")) if len(row) == 2]
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
    assert rows(read("docs/reference/reasons.md")) == [
        [f"`{reason.value}`", str(statuses[reason]), reason.explanation] for reason in Reason
    ]


async def _nobody_asks():
    raise AssertionError("the routes are looked at, not called")


def test_every_route_is_documented_with_its_methods_and_no_other_is():
    documented = {
        code(route)[0]: methods.split(", ")
        for route, methods, *_ in rows(section(read("docs/reference/routes.md"), "## All routes"))
    }
    anything = MagicMock()  # the routes are read, not called
    built = (
        *(*content.routes(), *identity.routes(), *engine.routes(anything), *download.routes()),
        *(*proxy.routes(anything, anything), *tokens.routes(anything)),
        *(*check.routes(anything), *authzen.routes(anything), *audit.routes(anything)),
        *EventsFace(anything, anything, anything, anything).routes(),
        *UsageFace("node", anything, anything, anything).routes(),
    )
    declared = [route.declaration for route in built]
    expected = {one.template: list(one.methods) for one in declared}
    expected |= {one.template: list(one.methods) for one in tokens.public_routes(anything)}
    expected |= {one.template: list(one.methods) for one in authzen.public_routes("https://gateway.example")}
    for face in (
        AdminFace(anything, anything, anything, anything, is_own=is_own) for is_own in (False, True)
    ):
        administered = [route.declaration for route in face.routes()]
        expected |= {one.template: list(one.methods) for one in (*administered, *face.public_routes())}
    expected |= {HEALTH_PATH.decode(): ["GET", "HEAD"], AUTHORITY_PATH.decode(): ["POST"]}
    expected |= {route.path: sorted(route.methods) for route in ops_app(_nobody_asks).routes}
    assert documented == expected


def test_every_metric_is_documented_with_its_labels_and_meaning():
    documented = {code(name)[0]: (code(labels), meaning) for name, labels, meaning in _metric_rows()}
    assert {name: documented.get(name) for name in COUNTERS} == {
        name: (list(metric.labels), metric.meaning) for name, metric in COUNTERS.items()
    }


def test_every_route_is_of_a_face_and_every_face_is_documented():
    routes = [
        code(route)[0] for route, *_ in rows(section(read("docs/reference/routes.md"), "## All routes"))
    ]
    of_listener = {route.path for route in ops_app(_nobody_asks).routes}
    assert not [one for one in routes if face_of(one) == OTHER and one not in of_listener]
    documented = [code(face)[0] for face, _ in rows(section(read("docs/reference/metrics.md"), "## Faces"))]
    assert sorted(documented) == sorted({NONE, OTHER, *(face for _, face in FACES)})


def test_every_metric_of_a_scrape_is_documented_and_no_other_is():
    scraped = set(re.findall(r"^# TYPE (\S+)", _scrape(), re.MULTILINE))
    assert scraped == {code(name)[0] for name, *_ in _metric_rows()}


def _metric_rows() -> list[list[str]]:
    return rows(section(read("docs/reference/metrics.md"), "## All metrics"))


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
    documented = rows(section(read("docs/reference/metrics.md"), "## Readiness"))
    assert [code(name)[0] for name, _ in documented] == _checks()


def test_every_check_that_the_table_of_failures_names_is_there():
    named = re.findall(r"ready false \(`([a-z]+)`\)", read("docs/reference/failures.md"))
    assert named
    assert set(named) <= set(_checks())


def test_the_scan_pattern_is_the_one_that_finds_our_keys():
    published = re.search(r"<!-- token-pattern -->\n```text\n(.*)\n```", read("docs/operators/keys.md"))
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
    for row in rows(read("docs/reference/commands.md")):
        if row[0].startswith("`cachegate"):
            name = re.sub(r" [\[A-Z].*", "", code(row[0])[0])
            documented[name] = {option for option in code(row[1]) if option.startswith("-")}
    assert documented == _commands()


OTHER_OPTIONS = {
    "--fail-with-body",  # curl
    "--app-dir", "--no-access-log", "--no-proxy-headers",  # uvicorn
    "--user", "--read-only", "--cap-drop", "--rm",  # podman, compose
    "--from-file", "--from-env-file", "--image", "--restart",  # kubectl
    "--no-same-owner", "--skip-old-files",  # tar
    "--include", "--max-depth",  # rclone
    "--require-hashes", "--requirement", "--dest", "--no-index", "--find-links",  # pip
}  # fmt: skip
OPTION = re.compile(r'"(--[a-z][a-z0-9-]+)"')


@pytest.mark.parametrize("path", DOCUMENTS)
def test_no_document_names_a_command_or_an_option_that_is_not_there(path):
    known = _commands()
    options = set().union(*known.values(), OTHER_OPTIONS)
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


LINK = re.compile(r"\]\(([^)\s]+)\)")


def _links(page: str) -> list[tuple[str, str]]:
    """Each link of a page that leads to a file of ours: its path below the top folder, and its anchor."""
    found = []
    for target in LINK.findall(read(page)):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            path = os.path.normpath(ROOT / page / ".." / file) if file else ROOT / page
            found.append((Path(path).relative_to(ROOT).as_posix(), anchor))
    return found


def _anchors(page: str) -> set[str]:
    """What a link can name in a page: what is an anchor both in the Markdown as it lies and in the site."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    headings = [heading.replace("`", "") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    lying = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return lying & {slugify(heading, "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_link_leads_somewhere(path):
    for file, anchor in _links(path):
        assert (ROOT / file).is_file(), file
        assert not anchor or anchor in _anchors(file), f"{file}#{anchor}"


@cache
def _tests_in(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names.add(node.name)
    return names


def _held_by() -> list[tuple[str, str, str]]:
    """Each line of the table of tests, test by test: what it holds, the file, the test."""
    table = rows(section(SECURITY, "## Tests"))
    return [(held, code(file)[0], name) for held, file, names in table for name in code(names)]


def _named_tests() -> list[tuple[str, str]]:
    """Each test that the page names: in its table, and as `path::name` in its text."""
    inline = [tuple(one.split("::")) for one in re.findall(r"`([\w/.]+::test_\w+)`", SECURITY)]
    return [*((file, name) for _, file, name in _held_by()), *inline]


@pytest.mark.parametrize("named", _named_tests(), ids="::".join)
def test_every_test_that_is_named_as_holding_a_guarantee_exists(named):
    path, name = named
    assert (ROOT / path).is_file()
    assert name in _tests_in(ROOT / path)


def test_every_file_of_tests_that_a_page_names_exists():
    for page in DOCUMENTS:
        for path in re.findall(r"(?<![\w/])tests/[\w/]+\.\w+", read(page)):
            assert (ROOT / path).is_file(), f"{page}: {path}"


@pytest.mark.parametrize("number", range(1, 11))
def test_every_guarantee_says_how_it_is_held_and_what_is_not_covered_and_names_two_tests(number):
    [title] = re.findall(rf"^### I{number} .*$", SECURITY, re.MULTILINE)
    text = section(SECURITY, title)
    for word in ("**Guaranteed.**", "**How it is held.**", "**Not covered.**"):
        assert text.count(word) == 1, word
    assert len({name for held, _, name in _held_by() if held == f"I{number}"}) >= 2


# What pages show is run

TOUR = ("docs/tour.md", "docs/operators/policy.md", "docs/concepts/delivery.md")
"""The pages of the tour, in the order in which a reader goes through them, in one folder and one shell."""

RUN_SECONDS = 900
"""For what hangs: a page starts dozens of processes, and a busy machine takes its time for each."""

SERVING = "until curl -fs http://127.0.0.1:9090/readyz"
"""The end of the tour's set-up: with what comes before it, the blocks of every other page begin."""

DIVIDER = "=-=-= end of a block =-=-="


def _run_tour(folder: Path, scripts: list[str]) -> list[str]:
    """Run all blocks in one shell, as a reader would; the output of each."""
    port, ops_port, admin_port = str(free_port()), str(free_port()), str(free_port())
    body = f"\necho '{DIVIDER}'\n".join(scripts)
    body = body.replace("8080", port).replace("9090", ops_port).replace("9091", admin_port)
    script = f'exec 2>&1\ntrap \'[ -z "$SERVE" ] || {{ kill "$SERVE" 2>&- && wait "$SERVE"; }}\' EXIT\n{body}'
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "SOURCE": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "CACHEGATE_ADMIN_PORT": admin_port,
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    said = done.stdout.replace(port, "8080").replace(ops_port, "9090").replace(admin_port, "9091")
    return said.split(f"{DIVIDER}\n")


@pytest.fixture
def tour_folder():
    """A folder whose path is about as long as the reader's, so that tables are as wide."""
    with tempfile.TemporaryDirectory(prefix="tour-", dir="/tmp") as folder:
        yield Path(folder)


def _blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that are run, as shell, each with the output that is shown."""
    return blocks_of(read(page), "tour", "run")


def _set_up() -> list[tuple[str, str]]:
    """What comes first in the tour, until the gateway serves."""
    blocks = _blocks(TOUR[0])
    [end] = [number for number, (script, _) in enumerate(blocks) if SERVING in script]
    return blocks[: end + 1]


def _complaints(blocks: list[tuple[str, str]], folder: Path) -> dict[str, str]:
    """Each block whose output differs from what is shown, with the difference."""
    outputs = _run_tour(folder, [script for script, _ in blocks])
    assert len(outputs) == len(blocks), outputs[-1]
    complaints = {}
    for (script, documented), output in zip(blocks, outputs, strict=True):
        differing = difference(lines_of(documented, "/tmp/tour"), lines_of(output, str(folder)))
        if differing:
            complaints[script] = "\n".join((*differing, output))
    return complaints


EXAMPLES = [page for page in DOCUMENTS if page not in TOUR and "<!-- run -->" in read(page)]


def test_blocks_are_marked_for_the_way_in_which_they_are_run():
    for page in DOCUMENTS:
        marks = set(re.findall(r"<!-- (tour|run) -->", read(page)))
        assert marks <= ({"tour"} if page in TOUR else {"run"}), page
        assert len(_blocks(page)) == len(re.findall(r"<!-- (?:tour|run) -->", read(page))), page


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 60)
def test_the_tour_shows_what_a_reader_will_see(tour_folder):
    assert shutil.which("curl"), "the tour uses curl: apt-get install curl"
    blocks = [block for page in TOUR for block in _blocks(page)]
    assert len(blocks) >= 15
    complaints = _complaints(blocks, tour_folder)
    assert not complaints, "\n\n".join(f"{script}{what}" for script, what in complaints.items())


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 60)
@pytest.mark.parametrize("page", EXAMPLES)
def test_a_page_shows_what_a_reader_will_see(page, tour_folder):
    complaints = _complaints([*_set_up(), *_blocks(page)], tour_folder)
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
    assert (difference(lines_of(documented, "-"), lines_of(ANSWER, "-")) == []) is is_so


def test_every_package_is_in_the_table_of_the_code_and_no_other_is():
    documented = [code(name)[0] for name, _ in rows(section(read(CONTRIBUTING), "## Packages"))]
    there = [
        path.name
        for path in (ROOT / "gateway").iterdir()
        if path.name != "packaged_policies" and ((path / "__init__.py").exists() or path.suffix == ".py")
    ]
    assert sorted(documented) == sorted(set(there) - {"__init__.py", "__main__.py"})


def test_every_folder_of_tests_is_in_the_table_of_the_tests():
    documented = [code(name)[0] for name, _ in rows(section(read(CONTRIBUTING), "## Tests"))]
    there = {path.parent.relative_to(ROOT / "tests").parts[0] for path in _files_of_tests()}
    assert sorted(documented) == sorted(there)


def test_every_name_of_the_code_that_a_recipe_gives_is_there():
    source = "\n".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    named = {
        one for one in code(section(read(CONTRIBUTING), "## How to add")) if re.fullmatch(r"[A-Z]\w+", one)
    }
    defined = set(re.findall(r"^(?:class )?([A-Z]\w+)(?=[(:]| =)", source, re.MULTILINE))
    assert named
    assert named <= defined


MODULE = re.compile(r"\bgateway[./][\w./]+")
IMPORT = re.compile(r"^\s*from (gateway[\w.]*) import ([\w, ]+)$", re.MULTILINE)
ASGI_APP = "gateway.asgi:app"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path not in {CONTRIBUTING, "CHANGELOG.md"}])
def test_a_page_names_a_module_only_to_import_from_it_and_what_it_imports_is_there(path):
    text = read(path).replace(ASGI_APP, "")
    imports = IMPORT.findall(text)
    assert set(MODULE.findall(text)) == {module for module, _ in imports}
    for module, names in imports:
        source = ROOT / module.replace(".", "/")
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        body = ast.parse(source.read_text()).body
        defined = {getattr(node, "name", None) for node in body}
        if source.name == "__init__.py":  # what a package offers stands elsewhere
            defined |= {one.name for node in body if isinstance(node, ast.ImportFrom) for one in node.names}
        assert {name.strip() for name in names.split(",")} <= defined


def _files_of_tests() -> list[Path]:
    """Files in folders below tests/, whatever they hold: code, and cases as data."""
    found = [path for end in ("py", "toml") for path in (ROOT / "tests").glob(f"*/**/*.{end}")]
    return [path for path in found if "__pycache__" not in path.parts]


def test_the_example_of_a_deployment_serves_with_options_that_are_documented():
    unit = (ROOT / "deploy/systemd/cachegate.service").read_text()
    container = (ROOT / "deploy/container/Containerfile").read_text()
    started = set(re.findall(r"ExecStart=\S+/cachegate (.*)", unit))
    started.add(" ".join(json.loads(re.findall(r"^CMD (\[.*\])$", container, re.MULTILINE)[-1])))
    for line in started:
        command, *words = line.split()
        assert {word for word in words if word.startswith("--")} <= _commands()[f"cachegate {command}"]
