"""The OpenAPI documents of the administration against the running gateway, by schemathesis, with all checks.

It is run as the program that users run. What it is to expect stands in schemathesis.toml beside this file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.admin.face import ADMIN_PATH, OPERATIONS, OWN_OPERATIONS, OWN_PATH
from gateway.admin.openapi import document_of
from gateway.model.access import ADMINISTRATIVE
from gateway.problems import PROBLEMS
from tests.administration import Administrator

PROGRAM = Path(sys.executable).with_name("st")
SETTINGS = Path(__file__).with_name("schemathesis.toml")
ENDS_A_KEY = ("keys.revoke", "keys.rotate", "keys.close", "keys.disable", "keys.change")
"""With ids that other operations tell, these may end the very key that is used: each gets one of its own."""


@dataclass
class Site:
    installation: Any
    gateway: Any
    owner: Administrator

    def key(self, **order):
        return self.owner.made("/keys", order)["token"]

    def new_tenant(self, name):
        """One that no request before it can have suspended, with a key and a grant."""
        self.owner.made("/tenants", {"id": name})
        self.key(tenant=name)
        self.owner.made("/grants", {"tenant": name, "model": "shared/*"})
        return name


@pytest.fixture(scope="module")
def site(new_installation):
    installation = new_installation(
        "openapi",
        CACHEGATE_LEASE_MILLISECONDS="5000",
        CACHEGATE_CANARY_SECONDS="0",
        CACHEGATE_AUDIT_REFUSALS_PER_SECOND="10000",
    )
    gateway = installation.serve(workers=2)
    try:
        owner = Administrator(gateway.admin, installation.admin_key)
        for tenant in ("acme", "globex"):
            owner.made("/tenants", {"id": tenant})
            owner.made("/keys", {"tenant": tenant})
        owner.made("/grants", {"tenant": "globex", "model": "acme/cars/*"})
        owner.made("/grants", {"tenant": "acme", "model": "globex/cars/*"})
        owner.made("/model-rules", {"pattern": "acme/*", "owner": "acme"})
        owner.made("/aliases", {"alias": "best", "model": "acme/cars/1"})
        owner.made("/groups/vision/add", {"patterns": ["acme/cars/*"]})
        yield Site(installation, gateway, owner)
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()
    installation.verify_audit()


def verify(wire, path, key, folder, *more, examples):
    url = f"http://{wire.host}:{wire.port}"
    done = subprocess.run(
        [
            *(PROGRAM, "--config-file", SETTINGS, "run", f"{url}{path}/openapi.json", "--url", url),
            *("--header", f"Authorization: Bearer {key}", "--checks", "all", "--seed", "1", "--no-color"),
            *("--max-examples", str(examples), "--suppress-health-check", "all", *more),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    [passed] = re.findall(r"(\d+) generated, \1 passed", done.stdout)
    return int(passed)


PHASES = ("--phases", "examples,coverage,fuzzing")
OTHERS = [part for one in ENDS_A_KEY for part in ("--exclude-operation-id", one)]


@pytest.mark.slow  # some 700 requests, and the start of a program that imports for seconds
def test_the_admin_api_is_what_its_document_says(site, tmp_path):
    wire, key = site.gateway.admin, site.installation.admin_key
    assert verify(wire, ADMIN_PATH, key, tmp_path, *PHASES, *OTHERS, examples=1) > 500


@pytest.mark.slow
def test_what_may_end_the_callers_own_key_is_what_its_document_says(site, tmp_path):
    only = [part for one in ENDS_A_KEY for part in ("--include-operation-id", one)]
    assert verify(site.gateway.admin, ADMIN_PATH, site.key(), tmp_path, *PHASES, *only, examples=1) > 10


def test_the_tenants_own_routes_are_what_their_document_says(site, tmp_path):
    key = site.key(tenant=site.new_tenant("own"), role="tenant-admin")
    assert verify(site.gateway.wire, OWN_PATH, key, tmp_path, *PHASES, *OTHERS, examples=1) > 50


@pytest.mark.slow
@pytest.mark.timeout(900)  # thousands of requests, some of which have a policy set checked
def test_it_is_so_for_many_more_requests_and_for_sequences_of_them(site, tmp_path):
    everything = ("--phases", "examples,coverage,fuzzing,stateful")
    wire, key = site.gateway.admin, site.installation.admin_key
    assert verify(wire, ADMIN_PATH, key, tmp_path, *everything, *OTHERS, examples=50) > 2500
    own = site.key(tenant=site.new_tenant("own-again"), role="tenant-admin")
    assert verify(site.gateway.wire, OWN_PATH, own, tmp_path, *everything, *OTHERS, examples=50) > 250


@pytest.mark.parametrize(
    ("operations", "path"), [(OPERATIONS, ADMIN_PATH), (OWN_OPERATIONS, OWN_PATH)], ids=["admin", "own"]
)
class TestTheDocument:
    def test_it_names_every_operation_by_its_action_and_no_other(self, operations, path):
        document = document_of(operations, path=path)
        found = [one for methods in document["paths"].values() for one in methods.values()]
        assert sorted(one["operationId"] for one in found) == sorted(one.action.value for one in operations)
        assert {one["x-cachegate-action"] for one in found} <= {action.value for action in ADMINISTRATIVE}

    def test_every_operation_names_all_its_refusals(self, operations, path):
        document = document_of(operations, path=path)
        for one in operations:
            answers = document["paths"][path + one.path][one.method.lower()]["responses"]
            for reason in one.refusals:
                assert PROBLEMS[reason].kind in answers[str(PROBLEMS[reason].status)]["description"]

    def test_every_schema_that_it_names_is_there_and_used(self, operations, path):
        document = document_of(operations, path=path)
        named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
        assert named <= document["components"]["schemas"].keys()


def test_every_action_that_administers_is_an_operation():
    assert {one.action for one in OPERATIONS} == ADMINISTRATIVE
    assert len({(one.method, one.path) for one in OPERATIONS}) == len(OPERATIONS)


def test_the_document_is_the_one_that_is_told(site):
    told = site.owner.get("/openapi.json")
    assert told.body == msgspec.json.encode(document_of(OPERATIONS, path=ADMIN_PATH)) + b"\n"
    nobody = replace(site.owner, key=None)
    assert nobody.get("/openapi.json").body == told.body
