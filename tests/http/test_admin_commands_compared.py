"""Every command prints the same through a running gateway as on the state folder: to people, and as JSON.

Two installations, of which each command is run: on one beside its state folder, on the other from somewhere
that has its URL and an admin key alone. What differs by nature is named in the order in which it appears:
ids, keys, times and milliseconds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from gateway.cli import commands
from gateway.cli.application import app
from gateway.cli.local_commands import THROUGH_THE_GATEWAY, WHY_LOCAL, why_local
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits.bindings import make_binding
from gateway.directory.edits.changes import change
from gateway.model.issuers import Binding
from gateway.model.names import BindingId, Md5
from gateway.model.pins import Pin, Quarantine, QuarantineCause
from tests.conftest import Installation

if TYPE_CHECKING:
    from collections.abc import Sequence

assert commands.app is app
MD5 = "0123456789abcdef0123456789abcdef"
ISSUER = """\
[issuer]
url = "https://ci.example"
audience = "https://models.example"
jwks = "https://ci.example/keys"
algorithms = ["RS256"]

[[rules]]
name = "main"
tenant = "acme"
scopes = ["read"]
networks = ["10.0.0.0/8"]
[rules.claims]
ref = "main"
"""
TENANT = """\
[tenant]
id = "filed"
name = "Filed"

[models]
own = ["filed/*"]
"""
MINE = '@id("mine")\nforbid (principal, action == Action::"infer", resource);\n'
TABLE: list[tuple[str, ...]] = [
    ("policy", "show"),
    ("policy", "diff", "FOLDER"),
    ("policy", "apply", "FOLDER", "--dry-run"),
    ("policy", "apply", "FOLDER", "--yes"),
    ("policy", "apply", "FOLDER"),
    ("tenants", "list"),
    ("tenants", "create", "acme", "--name", "Acme"),
    ("tenants", "create", "globex", "--no-wait"),
    ("tenants", "create", "acme"),
    ("tenants", "suspend", "acme"),
    ("tenants", "resume", "acme"),
    ("tenants", "resume", "nobody-at-all"),
    ("tenants", "resume", "filed"),
    ("tenants", "degraded", "acme", "60s"),
    ("tenants", "degraded", "filed", "60s"),
    ("tenants", "degraded", "filed", "60s", "--force"),
    ("tenants", "degraded", "acme", "closed", "--no-wait"),
    ("tenants", "image-hosts", "acme", "images.example"),
    ("tenants", "image-hosts", "acme", "none"),
    ("tenants", "allow", "acme", "external-request", "cache-read"),
    ("tenants", "disallow", "acme", "cache-read"),
    ("tenants", "disallow", "acme", "no-action"),
    ("tenants", "show", "acme"),
    ("tenants", "show", "acm"),
    ("models", "own", "acme", "acme/*", "other/1"),
    ("models", "own", "globex", "acme/cars/*"),
    ("models", "own", "globex", "acme/cars/*", "--force"),
    ("models", "own", "acme", "filed/*"),
    ("models", "own", "nobody-at-all", "x/1"),
    ("models", "publish", "other/1", "more/*", "--expires", "2090-01-01T00:00:00Z"),
    ("models", "publish", "late/*", "--not-before", "2080-01-01T00:00:00Z", "--no-wait"),
    ("models", "publish", "late/*", "--expires", "2000-01-01T00:00:00Z"),
    ("models", "unpublish", "more/*"),
    ("models", "group", "vision", "acme/*", "acme/cars/*"),
    ("models", "ungroup", "vision", "acme/cars/*", "acme/cars/2"),
    ("models", "ungroup", "visoin", "acme/*"),
    ("models", "alias", "best", "other/1"),
    ("models", "alias", "better", "best"),
    ("models", "move", "--from", "globex", "--to", "acme", "acme/cars/*"),
    ("models", "move", "--from", "globex", "--to", "acme"),
    ("models", "disown", "acme", "acme/cars/*", "acme/bikes/*"),
    ("models", "list"),
    ("models", "show", "other/1"),
    ("models", "show", "best"),
    ("models", "show", "othr/1"),
    ("models", "unalias", "best"),
    ("models", "unalias", "best"),
    ("grants", "add", "--tenant", "globex", "--models", "acme/*", "other/1", "--groups", "vision", "none"),
    ("grants", "add", "--tenant", "globex", "--models", "acme/*", "--actions", "read", "infer"),
    ("grants", "add", "--tenant", "globex", "--models", "late/1", "--expires", "2090-01-01T00:00:00Z"),
    ("grants", "add", "--tenant", "nobody-at-all", "--models", "acme/*"),
    ("grants", "list"),
    ("grants", "list", "--tenant", "globex"),
    ("grants", "list", "--tenant", "globx"),
    ("models", "show", "acme/1"),
    ("grants", "remove", "--tenant", "globex", "--models", "acme/*", "--actions", "infer"),
    ("grants", "remove", "--tenant", "globex", "--models", "other/1", "othr/1", "--groups", "vision"),
    ("keys", "create", "--tenant", "acme", "--name", "ci", "--expires", "2090-01-01T00:00:00Z"),
    ("keys", "create", "--tenant", "acme", "--networks", "10.0.0.0/8", "--scopes", "read", "--no-wait"),
    ("keys", "create", "--role", "auditor"),
    ("keys", "create", "--tenant", "nobody-at-all"),
    ("keys", "list", "--tenant", "acme", "--state", "live", "--limit", "1"),
    ("keys", "list", "--tenant", "acme", "--after", "KEY"),
    ("keys", "list", "--tenant", "acm"),
    ("keys", "show", "KEY"),
    ("keys", "show", "key_000000000000"),
    ("keys", "change", "KEY", "--name", "renamed", "--any-network", "--no-expiry"),
    ("keys", "change", "KEY", "--scopes", "everything"),
    ("keys", "disable", "KEY"),
    ("keys", "enable", "KEY"),
    ("keys", "identify", "<TOKEN"),
    ("keys", "identify", "<nothing-that-is-known"),
    ("keys", "import", "--tenant", "acme", "--sha256", "ab" * 32),
    ("keys", "import", "--tenant", "acme", "--sha256", "AB"),
    ("keys", "import", "--tenant", "globex", "--stdin", "<a-key-of-another-system"),
    ("keys", "import", "--tenant", "globex", "--stdin", "<a key"),
    ("explain", "--key-id", "KEY", "--model", "acme/1"),
    ("explain", "--key-id", "KEY", "--model", "nothing/1", "--action", "infer"),
    ("explain", "--key-id", "KEY", "--action", "external-request"),
    ("explain", "--key-id", "bnd_000000000001", "--model", "acme/1"),
    ("keys", "rotate", "KEY", "--overlap", "1h"),
    ("keys", "rotations"),
    ("keys", "rotations", "--tenant", "globex"),
    ("keys", "close", "KEY"),
    ("keys", "report", "--tenant", "globex"),
    ("keys", "report", "--tenant", "globx"),
    ("keys", "revoke", "NEW", "--reason", "in a log"),
    ("keys", "revoke", "--found", "-", "--dry-run", "<OTHER"),
    ("keys", "revoke", "--found", "-", "<OTHER"),
    ("keys", "revoke", "--tenant", "globex", "--reason", "over"),
    ("keys", "revoke", "--tenant", "globex", "--no-wait"),
    ("bindings", "list"),
    ("bindings", "list", "--issuer", "ci", "--tenant", "acme"),
    ("bindings", "list", "--issuer", "cj"),
    ("bindings", "show", "bnd_000000000001"),
    ("bindings", "revoke", "bnd_000000000001"),
    ("bindings", "forget", "bnd_000000000001"),
    ("bindings", "forget", "bnd_000000000001"),
    ("cache", "release", MD5),
    ("tenants", "remove", "acme", "--dry-run"),
    ("tenants", "remove", "filed", "--dry-run"),
    ("tenants", "remove", "acme", "--yes"),
    ("tenants", "removed"),
    ("tenants", "restore", "acme"),
    ("keys", "list", "--state", "revoked"),
]
"""Each command with its arguments. Words in capitals stand for what an earlier command made; `<` is input."""

MAKES = {"create", "rotate"}
NAMED_BY_NATURE = (
    (r"cg_live_[0-9A-Za-z]{30}", "TOKEN"),
    (r"key_[0-9A-Za-z]{12}", "KEY-ID"),
    (r"trec_[0-9A-Za-z_-]+|\bten_[0-9A-Za-z]+", "RECORD"),
    (r"rem_[0-9a-f]+", "REMOVAL"),
    (r"\b\d+\.\d+ ms|(?<=\"milliseconds\":)[\d.]+", "MILLISECONDS"),
    (r"(?<=\"pepper\":)\"[^\"]+\"|(?<=pepper)\s+\S+", "PEPPER"),
    (r"(?<=\"sure_in_seconds\":)[\d.]+", "SECONDS"),
)


def comparable(text: str, sites: Sequence[Site]) -> str:
    for site in sites:
        text = text.replace(str(site.beside.cache_root), "CACHE")
    for pattern, name in NAMED_BY_NATURE:
        seen: dict[str, str] = {}
        text = re.sub(pattern, lambda found: seen.setdefault(found[0], f"{name}-{len(seen)}"), text)  # noqa: B023
    text = re.sub(r"20[0-7]\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    return re.sub(r"[ \t]+", " ", text)


@dataclass
class Site:
    """An installation, where its commands are run, and what they have made."""

    at: Installation
    beside: Installation
    folder: Any
    made: dict[str, str] = field(default_factory=dict)

    def run(self, command: tuple[str, ...], *more: str) -> tuple[int, str, str]:
        text = None
        arguments = []
        for word in command:
            if word.startswith("<"):
                text = self.made.get(word[1:], word[1:]) + "\n"
            elif word == "FOLDER":
                arguments.append(str(self.folder))
            else:
                arguments.append(self.made.get(word, word))
        done = self.at.run(*arguments, *more, status=None, text=text)
        if more and command[0] == "keys" and command[1] in MAKES and done.returncode == 0:
            told = json.loads(done.stdout)
            if command[1] == "rotate":
                self.made["NEW"] = told["key_id"]
            elif "KEY" not in self.made:
                self.made |= {"KEY": told["key_id"], "TOKEN": told["token"]}
            else:
                self.made["OTHER"] = told["token"]
        return done.returncode, done.stdout, done.stderr


async def fill(session):
    """What no command makes: a binding, and a blob in quarantine."""
    tenant = await session.listing.find_tenant("acme")
    [issuer] = [one for one in await session.listing.list_issuers() if one.name == "ci"]
    new = Binding(
        binding_id=BindingId("bnd_000000000001"),
        url=issuer.url,
        subject="repo:a",
        tenant=tenant.tenant_id,
        tenant_record=tenant.record_id,
        rules=("main",),
        created_at=1.0,
    )
    rule = issuer.rules[0]
    await session.perform("test", lambda changes: make_binding(changes, issuer=issuer, rule=rule, new=new))
    held = Quarantine(cause=QuarantineCause.NOT_ITS_PIN, since=1.0, found_sha256="0" * 64)
    pin = Pin(md5=Md5(MD5), sha256="1" * 64, size=1, pinned_at=1.0, quarantine=held)

    async def put(changes):
        await changes.put_pin(pin)

    await change(session.store, put)


@pytest.fixture(scope="module")
def sites(new_installation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder") / "policies"
    for part in ("tenants", "issuers"):
        (folder / part).mkdir(parents=True)
    for file in (*CHECKOUT_POLICIES.glob("*.cedar"), CHECKOUT_POLICIES / "schema.cedarschema"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "mine.cedar").write_text(MINE)
    (folder / "tenants" / "filed.toml").write_text(TENANT)
    (folder / "issuers" / "ci.toml").write_text(ISSUER)
    gateways, found = [], []
    try:
        for name in ("here", "there"):
            beside = new_installation(f"compared-{name}", CACHEGATE_CANARY_SECONDS="0")
            gateways.append(beside.serve())
            found.append(Site(beside, beside, folder))
        far = tmp_path_factory.mktemp("far")
        environment = {
            "CACHEGATE_URL": f"http://127.0.0.1:{gateways[1].admin.port}",
            "CACHEGATE_ADMIN_KEY": found[1].beside.admin_key,
        }
        found[1].at = Installation(far, environment, runs_here=True)
        yield found
    finally:
        for gateway in gateways:
            gateway.stop()
    assert not [gateway.log() for gateway in gateways if "Traceback" in gateway.log()]


@pytest.mark.slow  # some hundred commands, each four times
def test_every_command_prints_the_same_through_a_gateway_as_on_the_state_folder(sites):
    here, there = sites
    different = []
    for command in TABLE:
        if command == ("explain", "--key-id", "bnd_000000000001", "--model", "acme/1"):
            for site in sites:
                site.beside.in_session(fill)
        for more in (("--json",), ()):
            status, out, err = here.run(command, *more)
            remote_status, remote_out, remote_err = there.run(command, *more)
            # A mistake alone, on standard error, is told in the words of the gateway.
            is_told = bool(out or remote_out) or 0 in {status, remote_status}
            texts = [(out, err), (remote_out, remote_err)] if is_told else []
            said = [tuple(comparable(text, sites) for text in both) for both in texts]
            if status != remote_status or (said and said[0] != said[1]):
                line = " ".join([*command, *more])
                different.append(f"{line}\n{status}: {out}{err}\n{remote_status}: {remote_out}{remote_err}")
    assert not different, "\n\n".join(different)


def test_every_command_is_compared_or_says_why_it_stays_on_this_machine():
    root = get_command(app)
    every = set()
    for name, command in root.commands.items():
        below = getattr(command, "commands", None)
        every |= {(name,)} if below is None else {(name, one) for one in below}
    compared = {command[: 1 if command[0] == "explain" else 2] for command in TABLE}
    local = {command for command in every if why_local(command) is not None}
    assert compared | local | THROUGH_THE_GATEWAY == every  # these have no form on the state folder
    assert not compared & local
    assert why_local(["explain", "--record", "x"]) is not None
    named = {name.split()[0] for name in WHY_LOCAL}
    assert named <= {command[0] for command in every}
