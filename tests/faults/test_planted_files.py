"""Files that another user wrote, or could have written, where ours are expected: they are refused.

Commands that only read go on with a warning, and leave no files in another user's folders.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.cli.main import run
from gateway.configuration.settings import CHECKOUT_POLICIES
from tests.conftest import Installation, as_user

SERVICE, STRANGER = 65534, 61234
PLANTED = '@id("planted") permit (principal, action, resource in ModelGroup::"pattern:evil/*");\n'
STARTS = (
    ("init",),
    ("serve", "--port", "0", "--ops-port", "0", "--admin-port", "0"),
    ("keys", "create", "--admin"),
    ("policy", "apply", "--yes"),
)
"""What takes effect."""
CHANGES = (
    *STARTS,
    ("tenants", "create", "acme"),
    ("tenants", "list"),
    ("keys", "list"),
    ("grants", "list"),
    ("models", "list"),
    ("policy", "diff"),
    ("directory", "show"),
    ("directory", "accept", "--yes"),
    ("directory", "export", "facts.jsonl"),
    ("explain", "--key-id", "key_000000000000", "--model", "acme/cars/1"),
    ("cache", "status"),
    ("cache", "verify"),
    ("connect", "--tenant", "acme"),
)
"""What works on the facts, and with them in the state folder: its embedded server, locks and records."""


@contextmanager
def a_place():
    """A folder that every user can access, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="cg-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def place():
    with a_place() as path:
        yield path


@pytest.fixture
def fresh(place):
    """An installation before `init`."""
    (place / "cache").mkdir()
    return Installation(place)


def of_a_service(place):
    """An installation that runs as a user of its own."""
    (place / "cache").mkdir(exist_ok=True)
    made = Installation(place).init()
    give_to(SERVICE, made.state)
    return made


@pytest.fixture
def service(place):
    return of_a_service(place)


@pytest.fixture(scope="module")
def untouched_service():
    """One for all that must leave it as it is."""
    with a_place() as path:
        yield of_a_service(path)


def give_to(user, folder):
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, user, user)


def tree(folder):
    """All that is in a folder: whose, of which mode, how large and since when."""
    paths = (folder, *sorted(folder.rglob("*")))
    return {path: (*(s := path.lstat())[:6], s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path in paths}


@pytest.fixture
def in_process(service, monkeypatch):
    """Run a command of the installation in this process, as the current user.

    Each is run once as root before: the service's user may not be able to read the interpreter's files, where
    a module is imported only when it is needed.
    """
    for name, value in service.variables().items():
        if name.startswith("CACHEGATE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(service.folder)
    give_to(0, service.state)
    for arguments in (("tenants", "create", "warm"), ("audit", "verify"), ("audit", "search"), ("doctor",)):
        run(arguments)
    run(("policy", "check"))
    give_to(SERVICE, service.state)
    return run


def verify_refused(done, *words):
    """Check for one clear line: what, whose file, what to do."""
    assert done.returncode == 2, done.stderr
    text = " ".join(done.stderr.split())
    assert text.startswith("cachegate: ")
    assert "Traceback" not in text
    for word in words:
        assert word in text


# Another user's state folder


@pytest.mark.root
@pytest.mark.parametrize("arguments", CHANGES, ids=" ".join)
def test_in_a_service_users_folder_root_writes_nothing_and_is_told_as_whom_to_run_it(
    untouched_service, arguments
):
    before = tree(untouched_service.state)
    verify_refused(
        untouched_service.run(*arguments, status=None),
        str(untouched_service.state),
        "sudo -u nobody env CACHEGATE_STATE=",
    )
    assert tree(untouched_service.state) == before


@pytest.mark.root
def test_that_is_said_before_the_facts_are_asked_for(service):
    service.environment["CACHEGATE_REDIS_URL"] = "redis://127.0.0.1:1"
    verify_refused(service.run("keys", "list", status=None), "sudo -u nobody")


@pytest.mark.root
@pytest.mark.parametrize(
    "arguments",
    [("audit", "verify"), ("audit", "tail"), ("audit", "search"), ("policy", "check"), ("policy", "test")],
    ids=" ".join,
)
def test_commands_that_only_look_work_for_root_and_leave_nothing(untouched_service, arguments):
    before = tree(untouched_service.state)
    done = untouched_service.run(*arguments)
    assert ("warning:" in done.stderr) is (arguments[0] == "audit")
    assert tree(untouched_service.state) == before


@pytest.mark.root
def test_a_record_is_explained_to_root_without_asking_again(untouched_service):
    before = tree(untouched_service.state)
    record = next(one["id"] for one in untouched_service.records() if one["kind"] == "change")
    assert record in str(untouched_service.json("explain", "--record", record)["record"])
    assert tree(untouched_service.state) == before


@pytest.mark.root
def test_doctor_starts_nothing_there_and_says_as_whom_to_run_it(untouched_service):
    before = tree(untouched_service.state)
    found = {one["name"]: one for one in untouched_service.json("doctor", status=1)["checks"]}
    for name in ("state folder", "redis"):
        assert found[name]["status"] == "fail"
        assert "sudo -u nobody" in found[name]["found"]
    assert tree(untouched_service.state) == before


@pytest.mark.root
def test_after_all_that_the_service_still_works(service, in_process):
    for arguments in (("init",), ("keys", "create", "--admin"), ("directory", "show"), ("audit", "verify")):
        service.run(*arguments, status=None)
    with as_user(SERVICE):
        assert in_process(("tenants", "create", "acme")) == 0
        assert in_process(("audit", "verify")) == 0
        assert in_process(("audit", "search")) == 0
    assert {path.lstat().st_uid for path in service.state.rglob("*")} == {SERVICE}


@pytest.mark.root
def test_files_that_root_left_there_earlier_are_named_by_doctor_with_the_remedy(service, in_process, capsys):
    segment = next(service.audit.glob("*-000001.jsonl"))
    os.chown(segment, 0, 0)
    capsys.readouterr()
    with as_user(SERVICE):
        assert in_process(("doctor", "--json")) == 1
    told = capsys.readouterr().out
    assert str(segment) in told
    assert f"chown -R {SERVICE} {service.state}" in told


@pytest.mark.root
def test_roots_own_folder_is_roots(fresh):
    fresh.init()
    fresh.run("tenants", "list")


# Planted secrets


@pytest.mark.root
@pytest.mark.parametrize("arguments", STARTS, ids=" ".join)
def test_a_state_folder_that_was_there_before_us_is_not_ours(fresh, arguments):
    fresh.init()
    give_to(STRANGER, fresh.state)
    before = tree(fresh.state)
    verify_refused(fresh.run(*arguments, status=None), str(fresh.state), f"uid {STRANGER}")
    assert tree(fresh.state) == before


@pytest.mark.root
@pytest.mark.parametrize(
    "name", ["peppers/p1.pepper", "signing/audit.pem", "signing/links.key", "signing/hook.key"]
)
def test_a_secret_that_another_user_owns_stops_the_start_and_doctor_says_the_same(fresh, name):
    fresh.environment |= {
        "CACHEGATE_PUBLIC_URL": "http://gateway.example",
        "CACHEGATE_AUTHORITY": "platform",
        "CACHEGATE_UPSTREAM": "http://127.0.0.1:1",
    }
    fresh.init()
    secret = fresh.state / name
    os.chown(secret, STRANGER, STRANGER)
    done = fresh.run("serve", "--port", "0", "--ops-port", "0", "--admin-port", "0", status=None)
    verify_refused(done, str(secret), f"uid {STRANGER}")
    found = [one["found"] for one in fresh.json("doctor", status=1)["checks"] if one["status"] == "fail"]
    why = " ".join(done.stderr.split()).removeprefix("cachegate: ")
    assert any(why == " ".join(one.split()) for one in found), found


@pytest.mark.root
@pytest.mark.parametrize("name", ["peppers", "signing", "pins", "valkey", "audit"])
def test_a_folder_in_the_state_folder_that_another_user_owns_stops_every_command(
    fresh, name, monkeypatch, capsys
):
    fresh.init()
    for variable, value in fresh.variables().items():
        if variable.startswith("CACHEGATE_"):
            monkeypatch.setenv(variable, value)
    monkeypatch.chdir(fresh.folder)
    planted = fresh.state / name
    planted.mkdir(exist_ok=True)
    os.chown(planted, STRANGER, STRANGER)
    before = tree(fresh.state)
    capsys.readouterr()
    for arguments in CHANGES:
        status = run(arguments)  # in this process: they are many
        done = subprocess.CompletedProcess(arguments, status, stderr=capsys.readouterr().err)
        verify_refused(done, str(planted), f"uid {STRANGER}")
    assert tree(fresh.state) == before
    assert run(("doctor", "--json")) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    found = [one["found"] for one in checks if one["status"] == "fail"]
    assert any(str(planted) in one and f"uid {STRANGER}" in one for one in found), found


@pytest.mark.root
def test_a_signing_key_that_another_user_owns_is_no_trouble_of_the_blob_that_is_to_be_recorded(fresh):
    write_sample_cache(fresh.cache_root, [SampleModel(model_id="a/b/1", packages={"pkgA1": {"w.bin": b"w"}})])
    fresh.init()
    key = fresh.state / "signing" / "audit.pem"
    os.chown(key, STRANGER, STRANGER)
    verify_refused(fresh.run("cache", "verify", status=None), str(key), f"uid {STRANGER}")


@pytest.mark.parametrize("arguments", STARTS, ids=" ".join)
def test_a_state_folder_below_a_folder_that_everybody_may_write_is_not_safe(fresh, arguments):
    fresh.init()
    fresh.folder.chmod(0o777)
    verify_refused(fresh.run(*arguments, status=None), str(fresh.folder), "0777")


def test_a_state_folder_is_not_made_where_everybody_could_have_made_it(fresh):
    fresh.folder.chmod(0o777)
    verify_refused(fresh.run("init", status=None), str(fresh.folder))
    assert not fresh.state.exists()


# The working directory


@pytest.fixture
def planted_rules(fresh):
    """Another user's ./policies with one more permit, where root runs a command."""
    shutil.copytree(CHECKOUT_POLICIES, fresh.folder / "policies")
    (fresh.folder / "policies/planted.cedar").write_text(PLANTED)
    (fresh.folder / "policies/tests/planted.toml").write_text(
        '[tenants.globex]\nown = ["evil/*"]\n[tenants.acme]\n'
        '[[cases]]\nname = "planted"\ntenant = "acme"\naction = "read"\n'
        'model = "evil/cars/1"\npackage = "p"\nexpect = "allow"\npolicies = ["planted"]\n'
    )
    return fresh.folder / "policies"


def rules_in_force(installation):
    async def work(session):
        found = await session.listing.find_policy()
        return None if found is None else found.policies

    return installation.in_session(work)


@pytest.mark.root
@pytest.mark.parametrize(
    "whose", ["all", "folder", "schema.cedarschema", "planted.cedar", "tenants", "tenants/a.toml"]
)
def test_rules_that_another_user_could_have_written_are_not_put_in_force(fresh, planted_rules, whose):
    (planted_rules / "tenants/a.toml").write_text('[tenant]\nid = "a"\n')
    if whose == "all":
        give_to(STRANGER, planted_rules)
    else:
        os.chown(planted_rules / ("." if whose == "folder" else whose), STRANGER, STRANGER)
    verify_refused(fresh.run("init", status=None), f"uid {STRANGER}", "CACHEGATE_POLICIES")
    assert "warning:" in fresh.run("policy", "check").stderr
    give_to(0, planted_rules)
    fresh.init()
    assert "planted.cedar" in dict(rules_in_force(fresh))


@pytest.mark.root
def test_nor_does_apply_put_them_in_force_be_they_named_or_found(fresh, planted_rules):
    fresh.environment["CACHEGATE_POLICIES"] = str(CHECKOUT_POLICIES)
    fresh.init()
    before = rules_in_force(fresh)
    os.chown(planted_rules / "planted.cedar", STRANGER, STRANGER)
    verify_refused(fresh.run("policy", "apply", "policies", "--yes", status=None), f"uid {STRANGER}")
    verify_refused(fresh.run("policy", "diff", "policies", status=None), f"uid {STRANGER}")
    del fresh.environment["CACHEGATE_POLICIES"]
    verify_refused(fresh.run("policy", "apply", "--yes", status=None), f"uid {STRANGER}")
    found = {one["name"]: one for one in fresh.json("doctor", status=1)["checks"]}
    assert f"uid {STRANGER}" in found["policy folder"]["found"]
    assert rules_in_force(fresh) == before


def test_rules_that_everybody_may_write_are_not_put_in_force(fresh, planted_rules):
    (planted_rules / "planted.cedar").chmod(0o666)
    verify_refused(fresh.run("init", status=None), "planted.cedar", "chmod go-w")


def test_a_link_to_rules_that_leads_nowhere_is_not_passed_over(fresh):
    (fresh.folder / "policies").symlink_to("not-mounted")
    verify_refused(fresh.run("init", status=None), "not a folder")


@pytest.mark.root
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_settings_that_another_user_could_have_written_are_not_read(fresh, named, place):
    elsewhere = place / "elsewhere"
    file = fresh.folder / "cachegate.toml"
    file.write_text(f'audit_dir = "{elsewhere}"\n')
    os.chown(file, STRANGER, STRANGER)
    if named:
        fresh.environment["CACHEGATE_CONFIG"] = str(file)
    verify_refused(fresh.run("init", status=None), str(file), f"uid {STRANGER}", "CACHEGATE_CONFIG")
    assert not fresh.state.exists()
    os.chown(file, 0, 0)
    fresh.init()
    os.chown(file, STRANGER, STRANGER)
    for command in (("keys", "list"), ("policy", "diff"), ("directory", "show")):
        verify_refused(fresh.run(*command, status=None), str(file), f"uid {STRANGER}")
    assert "warning:" in fresh.run("audit", "verify").stderr
    doctor = fresh.run("doctor", "--json", status=1)
    assert "warning:" in doctor.stderr
    assert '"settings file","status":"fail"' in doctor.stdout


def test_settings_that_everybody_may_write_are_not_read(fresh):
    file = fresh.folder / "cachegate.toml"
    file.write_text("scan_seconds = 2\n")
    file.chmod(0o646)
    verify_refused(fresh.run("init", status=None), f"chmod go-w {file}")


@pytest.mark.root
def test_in_a_directory_that_is_closed_to_us_there_is_nothing_of_ours(in_process, monkeypatch, tmp_path):
    """`sudo -u service cachegate ...` in root's own directory."""
    (tmp_path / "cachegate.toml").write_text("not for us")
    (tmp_path / "policies").mkdir()
    monkeypatch.chdir(tmp_path)
    with as_user(SERVICE):
        assert in_process(("tenants", "create", "acme")) == 0
        assert in_process(("policy", "check")) == 0


# The TLS files


@pytest.mark.root
@pytest.mark.parametrize("name", ["tls.pem", "tls.key"])
def test_a_certificate_or_key_of_another_user_stops_the_start_and_doctor_says_the_same(fresh, name):
    for file in ("tls.pem", "tls.key"):
        (fresh.folder / file).write_text("pem")
        (fresh.folder / file).chmod(0o600)
    fresh.init()
    fresh.environment |= {
        "CACHEGATE_TLS_CERTIFICATE": str(fresh.folder / "tls.pem"),
        "CACHEGATE_TLS_KEY": str(fresh.folder / "tls.key"),
    }
    os.chown(fresh.folder / name, STRANGER, STRANGER)
    done = fresh.run("serve", "--port", "0", "--ops-port", "0", "--admin-port", "0", status=None)
    verify_refused(done, name, f"uid {STRANGER}")
    found = {one["name"]: one for one in fresh.json("doctor", status=1)["checks"]}
    assert " ".join(found["tls"]["found"].split()) == " ".join(done.stderr.split()).removeprefix(
        "cachegate: "
    )


# Other ways in


@pytest.mark.parametrize("module", ["gateway.asgi", "gateway.inprocess"])
def test_other_servers_and_engines_refuse_as_well(fresh, module):
    fresh.init()
    folder = fresh.folder / "run"
    folder.mkdir()
    folder.chmod(0o1777)
    fresh.environment["CACHEGATE_REDIS_URL"] = f"unix://{folder}/redis.sock"
    start = {
        "gateway.asgi": "import gateway.asgi",
        "gateway.inprocess": (
            "from gateway.configuration.sources import load_settings\n"
            "from gateway.inprocess.process import GuardedProcess\n"
            "GuardedProcess(load_settings()).start()"
        ),
    }[module]
    done = subprocess.run(
        [sys.executable, "-c", start],
        env=fresh.variables(), cwd=fresh.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Distrusted" in done.stderr.splitlines()[-1]
    assert str(folder) in done.stderr


# What is left of a link


def test_everything_may_lie_behind_links_that_are_trusted(fresh):
    real = fresh.folder / "real"
    real.mkdir()
    fresh.state.symlink_to(real / "state")
    (real / "state").mkdir(mode=0o700)
    shutil.copytree(CHECKOUT_POLICIES, real / "policies-1")
    (real / "current").symlink_to("policies-1")
    fresh.environment["CACHEGATE_POLICIES"] = str(real / "current")
    fresh.init()
    fresh.run("tenants", "create", "acme")
    assert stat.S_ISLNK(fresh.state.lstat().st_mode)
