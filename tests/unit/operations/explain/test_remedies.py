"""What `explain` says would help does help: each kind of denial is explained, corrected, and then allowed.

Every case makes one situation, with a tenant, a model and a key of its own. The explanation has to name the
cause and the kinds of remedies. Then one remedy of every step is applied, by the command that it names or,
where somebody has to act by hand, by that act; and the same question has to be allowed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shlex
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.cli.main import run
from gateway.configuration.sources import load_settings
from gateway.demo.world import SETTINGS_FILE, demo_settings
from gateway.directory.edits.rulings import introduce_key, rule
from gateway.directory.records import names
from gateway.identity.platform_keys import platform_key
from gateway.model.access import Credential
from gateway.model.errors import Reason
from gateway.model.rulings import Ruling
from gateway.operations.session import open_session
from gateway.operations.setup import set_up

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE, OTHER, HANDLE = "p1", "p2", "w.onnx"
RIGHTS = ["grant", "own", "publish"]
SHARED = b"the same bytes in two owners' models"


@dataclass
class Site:
    """An installation of its own, with a policy folder that may be written to."""

    folder: Path
    capsys: Any
    monkeypatch: Any

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def settings(self):
        return load_settings({"CACHEGATE_CONFIG": str(self.folder / SETTINGS_FILE)})

    def run(self, *arguments: str, status: int | None = 0) -> str:
        self.monkeypatch.setenv("CACHEGATE_CONFIG", str(self.folder / SETTINGS_FILE))
        self.capsys.readouterr()
        found = run(arguments)
        printed = self.capsys.readouterr()
        assert status in {None, found}, f"{arguments}: {found}\n{printed.out}\n{printed.err}"
        return str(printed.out)

    def json(self, *arguments: str, status: int | None = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status))

    def new_key(self, tenant: str, *options: str) -> str:
        return str(self.json("keys", "create", "--tenant", tenant, *options)["key_id"])

    def in_session(self, work: Callable[[Any], Any]) -> Any:
        async def inside():
            async with open_session(self.settings) as session:
                return await work(session)

        return asyncio.run(inside())

    def change(self, operation: Callable[[Any], Any]) -> None:
        self.in_session(lambda session: session.perform("test", operation))

    def add_rule(self, name: str, text: str) -> None:
        """A rule, without cases: the folder has no tests."""
        (self.policies / f"{name}.cedar").write_text(
            f'// Why it is there.\n@id("{name}")\n@note("n")\n{text}'
        )
        self.run("policy", "apply", str(self.policies), "--yes")

    def drop_rule(self, name: str) -> None:
        (self.policies / f"{name}.cedar").unlink()
        self.run("policy", "apply", str(self.policies), "--yes")


@dataclass
class Case:
    """One question in one situation. `by_hand` is what has to be done where no command can do it."""

    name: str
    key_id: str = ""
    model: str = ""
    package: str | None = PACKAGE
    file: str | None = HANDLE
    action: str = "read"
    address: str | None = None
    tenant: str = ""
    by_hand: Callable[[], None] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def explained(self, site: Site) -> Any:
        arguments = ["explain", "--key-id", self.key_id, "--model", self.model, "--action", self.action]
        for option, value in (("package", self.package), ("file", self.file), ("address", self.address)):
            arguments += [] if value is None else [f"--{option}", value]
        return site.json(*arguments, status=None)


@pytest.fixture(scope="module")
def _home():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    settings = demo_settings(folder)
    shutil.copytree(settings.policies, folder / "policies", ignore=shutil.ignore_patterns("tests"))
    text = (folder / SETTINGS_FILE).read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("policies"))
    (folder / SETTINGS_FILE).write_text(f'{text}\npolicies = "{folder / "policies"}"\n')
    settings = dataclasses.replace(settings, policies=folder / "policies")
    asyncio.run(set_up(settings))
    with EmbeddedValkey(settings.state).running():  # commands join it, which is quicker than one for each
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def site(_home, capsys, monkeypatch):
    made = Site(_home, capsys, monkeypatch)
    if "lender" not in made.run("tenants", "list"):
        made.run("tenants", "create", "lender")
        made.run("models", "own", "lender", "lender/*")
    return made


@pytest.fixture
def case(site, request):
    """A borrower with a key, and a model of the lender's that is on disk.

    Names are derived from the test's.
    """
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())[-40:].strip(
        "-"
    )
    tenant, model = f"b-{name}", f"lender/{name}/1"
    site.run("tenants", "create", tenant)
    files = {HANDLE: f"weights of {name}".encode()}
    write_sample_cache(
        site.settings.cache_root, [SampleModel(model_id=model, packages={PACKAGE: files, OTHER: files})]
    )
    return Case(name=name, tenant=tenant, model=model, key_id=site.new_key(tenant))


def mend(site, case, told, way):
    """Apply one remedy of every step: the first, or the one of this kind."""
    for step in told["remedies"]:
        remedy = next((one for one in step if one["kind"] == way), step[0])
        if remedy["command"]:
            words = shlex.split(remedy["command"])
            assert words[0] == "cachegate"
            if words[1:3] == ["keys", "create"]:
                case.key_id = site.json(*words[1:])["key_id"]
            else:
                site.run(*words[1:])
        else:
            assert case.by_hand is not None, remedy
            case.by_hand()


def verify(site, case, *, cause, reason, steps, ways=("",)):
    """The explanation names the remedies, and they help. The caller tries `ways` one after another."""
    told = case.explained(site)
    assert (told["served"], told["cause"], told["reason"]) == (False, cause, reason), told
    assert [[remedy["kind"] for remedy in step] for step in told["remedies"]] == steps, told["remedies"]
    assert len(told["needed"]) == sum(map(len, steps))
    for way in ways:
        mend(site, case, told, way)
    again = case.explained(site)
    assert again["served"] is True, again
    assert again["remedies"] == []
    return told


@pytest.mark.parametrize("way", RIGHTS)
def test_without_any_right(site, case, way):
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[RIGHTS], ways=[way])


@pytest.mark.parametrize("way", RIGHTS)
def test_with_a_right_to_another_action(site, case, way):
    site.run("grants", "add", "--tenant", case.tenant, "--models", case.model, "--actions", "discover")
    case.action = "infer"
    verify(site, case, cause="not-granted", reason="missing-action", steps=[RIGHTS], ways=[way])


def test_with_a_grant_on_another_package_only(site, case):
    site.run("grants", "add", "--tenant", case.tenant, "--models", case.model, "--packages", OTHER)
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[RIGHTS])


def test_of_the_model_with_a_grant_on_a_package_only(site, case):
    site.run("grants", "add", "--tenant", case.tenant, "--models", case.model, "--packages", PACKAGE)
    case.package = case.file = None
    verify(site, case, cause="not-granted", reason="missing-action", steps=[RIGHTS])


def test_with_a_name_that_a_shell_would_read(site, case):
    case.model = "lender/it's $(touch gone); `x`/1"
    files = {HANDLE: b"weights"}
    write_sample_cache(
        site.settings.cache_root, [SampleModel(model_id=case.model, packages={PACKAGE: files})]
    )
    for way in RIGHTS:
        told = case.explained(site)
        remedy = next(one for one in told["remedies"][0] if one["kind"] == way)
        assert any(case.model in word for word in shlex.split(remedy["command"]))
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[RIGHTS])


def test_without_the_scope(site, case):
    site.run("grants", "add", "--tenant", case.tenant, "--models", case.model)
    case.key_id = site.new_key(case.tenant, "--scopes", "discover")
    verify(site, case, cause="missing-scope", reason="missing-scope", steps=[["scope"]])


def test_without_the_scope_which_hides_it_too(site, case):
    site.run("grants", "add", "--tenant", case.tenant, "--models", case.model)
    case.key_id = site.new_key(case.tenant, "--scopes", "infer")
    verify(site, case, cause="missing-scope", reason="not-permitted", steps=[["scope"]])


def test_without_the_scope_and_without_a_right(site, case):
    case.key_id = site.new_key(case.tenant, "--scopes", "discover")
    verify(site, case, cause="missing-scope", reason="not-permitted", steps=[["scope"], RIGHTS])


def alias(site, case, owner):
    """Another name of the case's model, below a prefix that this tenant owns."""
    site.run("models", "own", owner, f"{case.name}-names/*")
    site.run("models", "alias", f"{case.name}-names/one", case.model)
    model, case.model = case.model, f"{case.name}-names/one"
    return model


def test_by_an_alias_of_ones_own_to_what_is_not_permitted(site, case):
    alias(site, case, case.tenant)
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[RIGHTS])


def test_by_an_alias_of_anothers_to_what_is_ones_own(site, case):
    model = alias(site, case, "lender")
    site.run("models", "own", "--force", case.tenant, model)
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[["grant"]])


def test_by_an_alias_of_anothers_to_what_is_not_permitted(site, case):
    alias(site, case, "lender")
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[["grant"]])


def forbid(name, model):
    return f'forbid (principal, action, resource in ModelGroup::"pattern:{model}");\n'


def test_with_a_forbid_on_ones_own(site, case):
    site.run("models", "own", "--force", case.tenant, case.model)
    site.add_rule(case.name, forbid(case.name, case.model))
    case.by_hand = lambda: site.drop_rule(case.name)
    told = verify(site, case, cause="forbidden", reason="not-permitted", steps=[["rule-change"]])
    [rule_said] = told["forbidden_by"]
    assert (rule_said["policy"], rule_said["effect"], rule_said["line"]) == (case.name, "forbid", 2)
    assert rule_said["file"] == f"{case.name}.cedar"
    assert (rule_said["notes"], rule_said["comment"]) == (["note: n"], "Why it is there.")
    assert case.name in told["meaning"]
    assert case.tenant not in " ".join(told["needed"])  # it is owned already


def test_with_a_forbid_of_one_action_only(site, case):
    site.run("models", "own", "--force", case.tenant, case.model)
    text = forbid(case.name, case.model).replace("action,", 'action == Action::"read",')
    site.add_rule(case.name, text)
    case.by_hand = lambda: site.drop_rule(case.name)
    verify(site, case, cause="forbidden", reason="missing-action", steps=[["rule-change"]])


def test_with_a_forbid_and_without_a_right_and_a_scope(site, case):
    site.add_rule(case.name, forbid(case.name, case.model))
    case.key_id = site.new_key(case.tenant, "--scopes", "discover")
    case.by_hand = lambda: site.drop_rule(case.name)
    steps = [["scope"], RIGHTS, ["rule-change"]]
    verify(site, case, cause="forbidden", reason="not-permitted", steps=steps)


def test_with_two_forbids(site, case):
    site.run("models", "own", "--force", case.tenant, case.model)
    site.add_rule(f"{case.name}-1", forbid(case.name, case.model))
    site.add_rule(f"{case.name}-2", forbid(case.name, case.model))
    rules = [f"{case.name}-1", f"{case.name}-2"]
    case.by_hand = lambda: site.drop_rule(rules.pop(0))
    told = verify(site, case, cause="forbidden", reason="not-permitted", steps=[["rule-change"]] * 2)
    assert [one["policy"] for one in told["forbidden_by"]] == [f"{case.name}-1", f"{case.name}-2"]


def test_with_a_forbid_that_a_right_of_another_kind_satisfies(site, case):
    # Only what is public may be read: publishing helps, and removing the rule is not suggested.
    text = forbid(case.name, case.model).replace(";", " unless { resource.isPublic };")
    site.add_rule(case.name, text)
    verify(site, case, cause="not-granted", reason="not-permitted", steps=[["publish"]])
    site.drop_rule(case.name)


def test_with_forbids_of_which_one_way_satisfies_one(site, case):
    site.add_rule(f"{case.name}-1", forbid(case.name, case.model))
    text = forbid(case.name, case.model).replace(";", " unless { resource.isPublic };")
    site.add_rule(f"{case.name}-2", text)
    case.by_hand = lambda: site.drop_rule(f"{case.name}-1")
    steps = [["publish"], ["rule-change"]]
    verify(site, case, cause="forbidden", reason="not-permitted", steps=steps)
    site.drop_rule(f"{case.name}-2")


def test_with_a_rule_that_fails(site, case):
    site.run("models", "own", "--force", case.tenant, case.model)
    text = forbid(case.name, case.model).replace(";", " when { 9223372036854775807 + 1 > 0 };")
    site.add_rule(case.name, text)
    case.by_hand = lambda: site.drop_rule(case.name)
    told = verify(site, case, cause="policy-error", reason="policy-error", steps=[["rule-repair"]])
    [said] = told["policies"]
    assert (said["policy"], said["file"], said["line"]) == (case.name, f"{case.name}.cedar", 2)
    assert "overflow" in said["error"]
    assert f"{case.name}.cedar:2" in told["needed"][0]


def test_with_a_record_that_does_not_parse(site, case):
    site.run("models", "own", "--force", case.tenant, case.model)

    def put(value):
        async def work(session):
            async def plan(_snapshot, batch):
                batch.facts[names.grants_fact(case.tenant)] = value

            await session.store.transact(plan)

        site.in_session(work)

    put(b"\xff no record")
    case.by_hand = lambda: put(None)
    verify(site, case, cause="unreadable-fact", reason="unreadable-fact", steps=[["record-repair"]])


def test_with_an_admin_key(site, case):
    case.key_id = site.json("keys", "create", "--admin")["key_id"]
    verify(site, case, cause="admin-key", reason="not-permitted", steps=[["tenant-key"]])


class TestKeys:
    @pytest.fixture(autouse=True)
    def granted(self, site, case):
        site.run("grants", "add", "--tenant", case.tenant, "--models", case.model)
        assert case.explained(site)["served"] is True

    def test_that_are_revoked(self, site, case):
        site.run("keys", "revoke", case.key_id)
        verify(site, case, cause="key", reason="revoked-key", steps=[["key"]])

    def test_that_have_ended(self, site, case):
        async def work(session):
            async def operation(changes):
                digest = await changes.find_key_digest(case.key_id)
                key = await changes.find_key_by_digest(digest)
                await changes.put_key(replace(key, expires_at=session.clock.now() - 1), digest)

            await session.perform("test", operation)

        site.in_session(work)
        verify(site, case, cause="key", reason="expired-key", steps=[["key"]])

    def test_that_have_not_begun(self, site, case):
        case.key_id = site.new_key(case.tenant, "--not-before", "1h")
        steps = [["wait", "key"]]
        verify(site, case, cause="key", reason="not-yet-valid", steps=steps, ways=["key"])

    @pytest.mark.parametrize("way", ["network", "key"])
    def test_that_are_used_from_elsewhere(self, site, case, way):
        case.key_id = site.new_key(case.tenant, "--networks", "10.0.0.0/8")
        assert case.explained(site)["served"] is True  # there is no client address
        case.address = "192.0.2.7"
        case.by_hand = lambda: setattr(case, "address", "10.1.2.3")
        steps = [["network", "key"]]
        verify(site, case, cause="key", reason="outside-networks", steps=steps, ways=[way])

    def test_of_a_suspended_tenant(self, site, case):
        site.run("tenants", "suspend", case.tenant)
        verify(site, case, cause="key", reason="suspended-tenant", steps=[["tenant"]])

    def test_of_a_tenant_that_its_document_suspends(self, site, case):
        document = site.policies / "tenants" / f"{case.tenant}.toml"
        text = f'[tenant]\nid = "{case.tenant}2"\n[[grants]]\nmodels = ["{case.model}"]\nactions = ["read"]\n'
        document = document.with_name(f"{case.tenant}2.toml")
        document.write_text(text)
        site.run("policy", "apply", str(site.policies), "--yes")
        case.key_id = site.new_key(f"{case.tenant}2")
        document.write_text(text.replace("[[grants]]", "suspended = true\n[[grants]]"))
        site.run("policy", "apply", str(site.policies), "--yes")
        told = verify(site, case, cause="key", reason="suspended-tenant", steps=[["tenant"]])
        assert f"policies:{case.tenant}2" in told["needed"][0]
        document.unlink()

    def test_that_are_revoked_and_lack_the_scope(self, site, case):
        case.key_id = site.new_key(case.tenant, "--scopes", "discover")
        site.run("keys", "revoke", case.key_id)
        verify(site, case, cause="key", reason="revoked-key", steps=[["scope"]])


class TestTheDisk:
    @pytest.fixture(autouse=True)
    def granted(self, site, case):
        site.run("grants", "add", "--tenant", case.tenant, "--models", case.model)

    def path(self, site, case, package=PACKAGE):
        [found] = [
            path
            for path in (site.settings.cache_root / "models-cache").glob(f"v2-*/{package}/{HANDLE}")
            if case.name in str(path)
        ]
        return found

    def test_holds_no_such_model(self, site, case):
        missing = SampleModel(model_id="zz/9/quite/another", packages={PACKAGE: {HANDLE: b"weights"}})
        site.run("grants", "add", "--tenant", case.tenant, "--models", "zz/*")
        case.model = missing.model_id
        case.by_hand = lambda: write_sample_cache(site.settings.cache_root, [missing])
        told = verify(site, case, cause="allowed", reason="permitted", steps=[["disk"]])
        assert told["disk"]["reason"] == "absent"

    def test_holds_a_model_whose_name_is_nearly_the_same(self, site, case):
        right, case.model = case.model, case.model.replace("/1", "/11")
        site.run("grants", "add", "--tenant", case.tenant, "--models", case.model)
        case.by_hand = lambda: setattr(case, "model", right)
        steps = [["disk", "model-name"]]
        told = verify(site, case, cause="allowed", reason="permitted", steps=steps, ways=["model-name"])
        assert right in told["remedies"][0][1]["text"]

    def test_holds_something_else_in_its_place(self, site, case):
        path = self.path(site, case)
        target = path.readlink()
        path.unlink()
        path.symlink_to("/etc/hostname")

        def restore():
            path.unlink()
            path.symlink_to(target)

        case.by_hand = restore
        told = verify(site, case, cause="allowed", reason="permitted", steps=[["disk"]])
        assert told["disk"]["reason"] == "unservable"

    def test_holds_a_blob_in_quarantine(self, site, case):
        blob = self.path(site, case).readlink()
        content = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(b"something else")
        site.run("cache", "verify", status=1)
        blob.write_bytes(content)
        told = verify(site, case, cause="allowed", reason="permitted", steps=[["blob"]])
        assert told["disk"]["reason"] == "quarantined"

    def test_holds_a_link_that_nobody_attested(self, site, case, monkeypatch):
        monkeypatch.setenv("CACHEGATE_SHARED_LINKS", "attested")
        other = f"{case.name}-other/1"
        files = {HANDLE: SHARED}
        case.model = f"{case.model}/shared"
        site.run("grants", "add", "--tenant", case.tenant, "--models", case.model)
        site.run("models", "own", case.tenant, other)
        models = [SampleModel(model_id=one, packages={PACKAGE: files}) for one in (case.model, other)]
        write_sample_cache(site.settings.cache_root, models)
        told = verify(site, case, cause="allowed", reason="permitted", steps=[["attestation"]])
        assert told["disk"]["reason"] == "unattested"


class TestThePlatform:
    """A key of the platform: the platform's answer is a fact that ends, and is asked for anew."""

    @pytest.fixture(autouse=True)
    def known(self, site, case, monkeypatch):
        monkeypatch.setenv("CACHEGATE_AUTHORITY", "platform")
        monkeypatch.setenv("CACHEGATE_UPSTREAM", "http://127.0.0.1:9")
        self.say(site, case, Reason.PERMITTED)
        assert case.explained(site)["served"] is True

    def say(self, site, case, reason, *, seconds=600.0):
        async def work(session):
            now = session.clock.now()
            secret = f"platform-key-of-{case.name}"
            key, digest = platform_key(Credential(secret=secret), session.peppers, now)
            case.key_id = key.key_id
            ruling = Ruling(
                key_id=key.key_id,
                model=case.model,
                reason=reason,
                until=now + seconds,
                asked=await session.store.generation(),
            )
            if reason is Reason.PERMITTED:
                await session.perform(
                    "test",
                    lambda changes: introduce_key(changes, key=key, digest=digest, ruling=ruling, now=now),
                )
            else:
                await session.perform("test", lambda changes: rule(changes, ruling=ruling, now=now))

        site.in_session(work)

    @pytest.mark.parametrize(
        "reason", [Reason.UPSTREAM_REFUSED, Reason.PAYMENT_REQUIRED, Reason.USAGE_PAUSED]
    )
    def test_denies_it(self, site, case, reason):
        self.say(site, case, reason)
        case.by_hand = lambda: self.say(site, case, Reason.PERMITTED)
        verify(site, case, cause="platform", reason=reason.value, steps=[["platform"]])

    def test_denies_what_is_public(self, site, case):
        site.run("models", "publish", case.model)
        self.say(site, case, Reason.UPSTREAM_REFUSED)
        case.by_hand = lambda: self.say(site, case, Reason.PERMITTED)
        verify(site, case, cause="platform", reason="upstream-refused", steps=[["platform"]])

    def test_has_to_be_asked_first(self, site, case):
        other = f"{case.model}/unasked"
        write_sample_cache(
            site.settings.cache_root, [SampleModel(model_id=other, packages={PACKAGE: {HANDLE: b"w"}})]
        )
        case.model = other
        case.by_hand = lambda: self.say(site, case, Reason.PERMITTED)
        verify(site, case, cause="platform", reason="upstream-undecided", steps=[["platform"]])

    def test_denies_it_and_a_rule_forbids_it_too(self, site, case):
        self.say(site, case, Reason.UPSTREAM_REFUSED)
        site.add_rule(case.name, forbid(case.name, case.model))
        acts = [lambda: self.say(site, case, Reason.PERMITTED), lambda: site.drop_rule(case.name)]
        case.by_hand = lambda: acts.pop(0)()  # noqa: PLW0108 -- another one at each call
        told = verify(
            site, case, cause="platform", reason="upstream-refused", steps=[["platform"], ["rule-change"]]
        )
        assert [one["policy"] for one in told["forbidden_by"]] == [case.name]

    def test_is_not_asked_here(self, site, case, monkeypatch):
        monkeypatch.setenv("CACHEGATE_AUTHORITY", "local")
        case.by_hand = lambda: monkeypatch.setenv("CACHEGATE_AUTHORITY", "platform")
        verify(site, case, cause="key", reason="unknown-key", steps=[["platform"]])
