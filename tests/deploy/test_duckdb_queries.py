"""The queries for DuckDB, each over a log whose findings are known: it finds those, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest

from gateway.audit.events import read_events
from tests.known_log import DECOY, GONE, PROBER, STOLEN, THIEF, WAITING, write_known_log

QUERIES = Path(__file__).parents[2] / "docs/examples/duckdb"
TABLE = "records"
FINDINGS = {
    "stolen-keys": [(STOLEN, "acme", "203.0.113.0/24", 60, 20)],
    "scanned-names": [(PROBER, "globex", "10.9.9.9", 40)],
    "mass-reads": [(STOLEN, "acme", 20, 60, [THIEF])],
    "new-networks": [(STOLEN, "acme", "203.0.113.0/24", 60)],
    "after-revocation": [(GONE, "acme", "revoked-key", "10.1.2.30", 3)],
    "denied-then-allowed": [(WAITING, "globex", "acme/cars/1")],
    "decoy-keys": [(DECOY, "198.51.100.7")],
    "changes-outside-hours": [("cli:eve", "policy.apply", '["grants.cedar"]', "done")],
    "gaps-and-unproven": [("gap", 12, "no space left on device"), ("unproven", 3, "recovered")],
    "bytes-by-tenant": [
        ("acme", 76_000, 76),
        ("acme", 17_000, 17),
        *[("acme", 16_000, 16)] * 3,
        ("globex", 1000, 1),
    ],
}
COLUMNS = {
    "stolen-keys": ("key_id", "tenant", "network", "reads", "models"),
    "scanned-names": ("key_id", "tenant", "client", "names"),
    "mass-reads": ("key_id", "tenant", "models", "reads", "clients"),
    "new-networks": ("key_id", "tenant", "network", "requests"),
    "after-revocation": ("key_id", "tenant", "reason", "client", "times"),
    "denied-then-allowed": ("key_id", "tenant", "model"),
    "decoy-keys": ("key_id", "client"),
    "changes-outside-hours": ("actor", "action", "subject", "result"),
    "gaps-and-unproven": ("what", "records", "why"),
    "bytes-by-tenant": ("tenant", "bytes", "answers"),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    write_known_log(folder / "audit")
    lines = [event.line for event in read_events(folder / "audit")]
    (folder / "audit.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "empty").mkdir()
    (folder / "empty/audit.jsonl").write_bytes(lines[0] + b"\n")
    before = Path.cwd()
    os.chdir(folder)
    with duckdb.connect() as connection:
        connection.execute((QUERIES / f"{TABLE}.sql").read_text())
        yield connection
    os.chdir(before)


@pytest.mark.parametrize("name", sorted(FINDINGS))
def test_a_query_finds_what_is_there_and_nothing_else(database, name):
    done = database.execute((QUERIES / f"{name}.sql").read_text())
    columns = [one[0] for one in done.description]
    places = [columns.index(column) for column in COLUMNS[name]]
    assert [tuple(row[place] for place in places) for row in done.fetchall()] == FINDINGS[name]


def test_every_query_is_tested():
    assert {path.stem for path in QUERIES.glob("*.sql")} == {*FINDINGS, TABLE}


@pytest.mark.parametrize("name", sorted(FINDINGS))
def test_a_query_runs_over_a_log_in_which_nothing_happened(tmp_path, monkeypatch, name, database):
    monkeypatch.chdir("empty")
    with duckdb.connect() as connection:
        connection.execute((QUERIES / f"{TABLE}.sql").read_text())
        assert connection.execute((QUERIES / f"{name}.sql").read_text()).fetchall() == []
