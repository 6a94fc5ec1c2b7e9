"""What the delivery benchmark sends and compares, without measuring anything."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from hashlib import md5, sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gateway

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """One of the modules beside this file: they import each other from their own folder."""
    sys.path.insert(0, str(HERE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(HERE))


client_requests, contender, numbers_table = (
    load(name) for name in ("client_requests", "contender", "numbers_table")
)
stages, workloads, wrk = (load(name) for name in ("stages", "workload", "wrk"))


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blobs")

    def item(tenant: int, model: int, file: str) -> Any:
        path = f"/v1/models/tenant{tenant:02}/model-{model}/1/-/p{tenant}{model}/{file}"
        blob = folder / md5(path.encode(), usedforsecurity=False).hexdigest()
        blob.write_bytes(path.encode().ljust(10_000, b"x"))
        return workloads.Item.of(path, blob)

    files = ("class_names.txt", "weights.onnx")
    tenants = tuple(
        workloads.Tenant(
            f"tenant{number:02}",
            (f"key-{number}-a", f"key-{number}-b"),
            tuple(item(number, model, file) for model in range(5) for file in files),
        )
        for number in range(20)
    )
    items = [item for tenant in tenants for item in tenant.files]
    return workloads.Workload(
        tenants=tenants,
        token="key-large",
        large=items[0],
        parts=(),
        unknown_tokens=tuple(f"unknown-{number}" for number in range(40)),
        links={item.path: f"{item.link_path}?se=1&sig={number}" for number, item in enumerate(items)},
        part_links={},
        etags={item.path: f'"{item.md5}"' for item in items},
    )


def sets_of(workload):
    return client_requests.request_sets(workload)


def test_no_request_is_sent_twice_in_a_row_nor_by_one_key_alone(workload):
    for sent in sets_of(workload).values():
        raws = [request.raw for request in sent.requests]
        assert all(one != other for one, other in pairwise(raws))
        assert len(set(raws)) == len(raws)
        assert len(raws) >= 40


@pytest.mark.parametrize("name", ["varied", "blob", "listing", "models", "hidden", "absent", "no_route"])
def test_each_key_uses_all_four_clients(workload, name):
    agents: dict[str | None, set[tuple[str | None, bool]]] = {}
    for request in sets_of(workload)[name].requests:
        is_traced = request.header("traceparent") is not None
        agents.setdefault(request.header("authorization"), set()).add(
            (request.header("user-agent"), is_traced)
        )
    assert len(agents) == 40
    assert {len(one) for one in agents.values()} == {4}


def test_every_traced_request_has_a_trace_of_its_own_and_a_client_behind_the_proxy(workload):
    requests = sets_of(workload)["traced"].requests
    traces = [request.refreshed().header("traceparent") for request in (*requests, *requests)]
    assert len(set(traces)) == len(traces)
    assert len({request.header("x-forwarded-for") for request in requests}) > 100


def test_what_is_hidden_is_there_and_somebody_elses(workload):
    owners = {item.path: tenant.tokens for tenant in workload.tenants for item in tenant.files}
    for request in sets_of(workload)["hidden"].requests:
        assert request.header("authorization").removeprefix("Bearer ") not in owners[request.target]


def test_the_script_for_wrk_holds_every_request(workload):
    for sent in sets_of(workload).values():
        lines = wrk.lua_requests(sent).splitlines()
        assert len(lines) == len(sent.requests)
        kinds = [int(line.partition("= ")[2].partition(",")[0]) for line in lines]
        expected = ["{trace}" in one.raw or 2 * ("{name}" in one.raw) for one in sent.requests]
        assert kinds == expected


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("varied", 200, b"y" * 10_000),
        ("varied", 206, b"x" * 10_000),
        ("range", 200, b"x" * 10_000),
        ("range", 206, b"y" * 1_000),
        ("conditional", 200, b"x" * 10_000),
        ("head", 200, b""),
        ("listing", 200, b"{}" * 50),
        ("hidden", 403, b"x" * 100),
        ("hidden", 200, b"x" * 10_000),
        ("no_key", 404, b"x" * 100),
    ],
)
def test_a_wrong_answer_is_not_measured(workload, name, status, body):
    sent = sets_of(workload)[name]
    assert sent.expected.fault(sent.requests[0], contender.Answer(status, (), body)) is not None


def test_the_right_file_is_measured(workload):
    sent = sets_of(workload)["varied"]
    item = replace(sent.requests[0].item, sha256=sha256(b"z" * 10_000).hexdigest())
    assert (
        sent.expected.fault(replace(sent.requests[0], item=item), contender.Answer(200, (), b"z" * 10_000))
        is None
    )


def test_every_module_that_the_stages_name_is_there():
    root = Path(gateway.__file__).parent
    named = {one.partition(":")[0] for modules in stages.STAGES.values() for one in modules}
    assert {one for one in named if not (root / one).exists()} == set()


def test_a_function_belongs_to_the_innermost_stage_that_names_it():
    root = str(Path(gateway.__file__).parent)
    helper = (f"{root}/model/names.py", "parse")
    audit, protocol = (f"{root}/audit/log.py", "Log.add"), (f"{root}/server/protocol.py", "Protocol.on_url")
    assert stages.stage_of([helper, audit, protocol]) == "record and outcome"
    assert stages.stage_of([("/usr/lib/python3/json.py", "dumps"), protocol]) == "read and parse"
    assert stages.stage_of([helper]) == stages.REST


def test_the_page_of_numbers_takes_the_tables_of_a_run_and_names_every_figure():
    names = [f"`{name}`" for name in numbers_table.WANTED]
    row = {"name": "varied_vs_nginx_auth_request", "value": 0.9, "min": 0.8, "max": 1.0, "what": ""}
    page = numbers_table.replaced(numbers_table.PAGE.read_text(), numbers_table.tables([row]))
    assert "| `varied_vs_nginx_auth_request` | 0.90 | 0.80 to 1.00 | " in page
    assert all(name in page for name in names)
    assert numbers_table.replaced(page, "") == numbers_table.replaced(numbers_table.PAGE.read_text(), "")
    assert page.count(numbers_table.BEGIN) == page.count(numbers_table.END) == 1
