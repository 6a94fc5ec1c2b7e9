"""What every command prints, for people and for scripts: `outputs.txt` has each command and all its output.

The test runs the commands of that file in order, on one fresh installation, and compares all of it. A line
`$ ...` is a command, with `{key}` for the key id that was printed last and `{dir}` for the test's folder.
After it come the lines of standard output, those of standard error with `! ` before them, and the exit status
if it is not 0. What differs from run to run (ids, times, durations) is replaced before the comparison.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.settings import CHECKOUT_POLICIES

EXPECTED = Path(__file__).with_name("outputs.txt")
KEY = re.compile(r"key_(?!z{12})[0-9A-Za-z]{12}")
SHARED = b"weights that two tenants loaded\n" * 1000
MODELS = [
    SampleModel(
        model_id="acme/cars/1",
        packages={"p1": {"w.onnx": SHARED, "own.txt": b"own", "notes.txt": b"notes"}},
        unhashed=frozenset({"notes.txt"}),
    ),
    SampleModel(model_id="beta/cars/1", packages={"p1": {"w.onnx": SHARED}}),
]
VARYING = (
    (re.compile(r"cg_[a-z]+_\w+"), "cg_token"),
    (KEY, "key_000000000000"),
    (re.compile(r"\bten_[0-9A-Za-z]{12}\b"), "ten_000000000000"),
    (re.compile(r"\bcli:[\w.-]+"), "cli:user"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "record-id"),
    (re.compile(r"\d{8}T\d{6}Z?[-.0-9a-z]*"), "chain-start"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "2030-01-31T12:00:00Z"),
    (re.compile(r'"(milliseconds|seconds|bytes_per_second)":[\d.]+'), r'"\1":0.0'),
    (re.compile(r"after [\d.]+ ms"), "after 0.0 ms"),
    (re.compile(r"in [\d.]+ s, [\d.]+ \w+/s"), "in 0.0 s, 0 B/s"),
    (re.compile(r"(public key|\"signers\":\[)( ?\"?)[0-9a-f]+"), r"\1\2fingerprint"),
    (re.compile(r'"age_seconds":\d+'), '"age_seconds":0'),
    (re.compile(r"\b\d+ h \d\d min"), "0 h 00 min"),
    (re.compile(r" {2,}"), "  "),
    (re.compile(r" +$", re.MULTILINE), ""),
)

RULES = """
@id("wide")
permit (principal is ApiKey, action, resource in ModelGroup::"pattern:acme/*");

@id("untested")
forbid (principal is ApiKey, action, resource in ModelGroup::"pattern:acme/held/*");
"""
CASES = """
[tenants.acme]
own = ["acme/*"]

[tenants.beta]

[[cases]]
name = "another tenant reads it"
tenant = "beta"
action = "read"
model = "acme/x"
expect = "allow"
"""
DOCUMENT = """
[tenant]
id = "delta"

[models]
own = ["delta/*"]
"""
CONFLICTING = """
[tenant]
id = "beta"

[models]
own = ["acme/*"]
"""


def write_policies(folder):
    """Four folders: one that may be applied, and a complaint of each kind."""
    for name, rules, cases, document in (
        ("good", RULES.partition('\n@id("untested')[0], CASES, DOCUMENT),
        ("gap", RULES, CASES, DOCUMENT),
        ("failing", RULES, CASES.replace("allow", "deny"), DOCUMENT),
        ("conflicting", RULES.partition('\n@id("untested')[0], CASES, CONFLICTING),
        ("broken", "permit (", CASES, "[tenant"),
    ):
        for part in ("tenants", "tests"):
            (folder / name / part).mkdir(parents=True)
        shutil.copy(CHECKOUT_POLICIES / "schema.cedarschema", folder / name)
        (folder / name / "rules.cedar").write_text(rules)
        (folder / name / "tests" / "rules.toml").write_text(cases)
        (folder / name / "tenants" / "delta.toml").write_text(document)


def test_every_command_prints_what_it_printed(installation_here, tmp_path):
    folder = installation_here.folder
    write_sample_cache(installation_here.cache_root, MODELS)
    write_policies(folder)
    history = installation_here.in_session(lambda session: session.store.history())
    key, found = "", []
    for line in EXPECTED.read_text().splitlines():
        if not line.startswith("$ "):
            continue
        command = line.removeprefix("$ ").replace("{key}", key).replace("{dir}", str(folder))
        done = installation_here.run(*shlex.split(command), status=None)
        if printed := KEY.findall(done.stdout + done.stderr):
            key = printed[-1]
        out = done.stdout + "".join(f"! {one}\n" for one in done.stderr.splitlines())
        out = out.replace(str(folder), "DIR").replace(history, "HISTORY")
        for pattern, instead in VARYING:
            out = pattern.sub(instead, out)
        found.append(f"{line}\n{out}" + (f"? {done.returncode}\n" if done.returncode else ""))
    written = tmp_path / EXPECTED.name
    written.write_text("\n".join(found))
    assert written.read_text() == EXPECTED.read_text(), f"{written} has what is printed now"
