"""One frozen object from `cachegate.toml` and the environment; contradictions stop the start.

The environment wins over the file. Every setting is one field below: its name in the file is the
field's, its variable `CACHEGATE_` and the name in capitals; README.md holds the same table and a
test compares the two. This is the one module that reads the environment.
"""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.audit.terms import Durability
from gateway.model.errors import Misconfigured
from gateway.setting_values import (
    read_durability,
    read_environment_tag,
    read_networks,
    read_number,
    read_path,
    read_roots,
    read_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "CACHEGATE_"
PACKAGED_POLICIES = Path(__file__).parent / "packaged_policies"
CHECKOUT_POLICIES = Path(__file__).parent.parent / "policies"


def _setting(meaning: str, read: Callable[[str], Any], default: Any = None, shown: str | None = None) -> Any:
    """A field that knows how it is read and documented."""
    metadata = {"meaning": meaning, "read": read, "shown": shown or str(default)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Built by `load_settings`; tests build it directly."""

    state: Path = _setting(
        "State folder: pepper, signing key, audit, embedded Valkey.",
        read_path,
        Path(".cachegate"),
        "./.cachegate",
    )
    cache_root: Path = _setting(
        "The engine's cache root.",
        read_path,
        Path("/tmp/cache"),  # noqa: S108 -- the engine's own default
        "INFERENCE_HOME, MODEL_CACHE_DIR, /tmp/cache",
    )
    alias_roots: tuple[str, ...] = _setting(
        "Other paths under which writers of the volume saw the cache root, separated by `:`; "
        "the engine's links are absolute.",
        read_roots,
        (),
        "none",
    )
    policies: Path = _setting(
        "Policy folder, the input of `policy apply`.",
        read_path,
        PACKAGED_POLICIES,
        "./policies if it exists, else the packaged set",
    )
    redis_url: str | None = _setting(
        "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.",
        read_text,
        None,
        "unset: embedded Valkey",
    )
    audit_dir: Path | None = _setting("Audit folder.", read_path, None, "the state folder's audit/")
    audit_durability: Durability = _setting(
        "`process`: a record survives kill -9; `power`: it survives a power cut.",
        read_durability,
        Durability.PROCESS,
        "process",
    )
    audit_refusals_per_second: int = _setting(
        "Refusals of callers without a valid key that each worker records one by one, per source and second; "
        "a summary record stands for the rest.",
        read_number(1, 10_000),
        10,
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "Networks (and `unix`) of proxies whose X-Forwarded-For is believed, separated by commas.",
        read_networks,
        (),
        "none",
    )
    token_env: str = _setting("The <env> part of new keys, cg_<env>_...", read_environment_tag, "live")
    node: str = _setting(
        "This node's name in audit records.", read_text, socket.gethostname(), "the host name"
    )
    lease_milliseconds: int = _setting(
        "How long a worker may answer from memory without having heard from Redis. "
        "A revocation waits no longer than this for a worker that does not answer.",
        read_number(100, 60_000),
        1000,
    )
    near_cache_entries: int = _setting(
        "Facts that a worker remembers at most, and as many decisions.", read_number(100, 10_000_000), 200_000
    )
    near_cache_megabytes: int = _setting(
        "Memory for them at most, by the worker's own estimate.", read_number(1, 65_536), 128
    )
    canary_seconds: int = _setting(
        "How often one worker of the fleet measures what a revocation takes; 0 never.",
        read_number(0, 3600),
        5,
    )
    scan_seconds: int = _setting(
        "How often the catalogue of what is on disk is made anew.", read_number(1, 3600), 2
    )
    grace_seconds: int = _setting(
        "How long a stopping worker lets transfers finish.", read_number(0, 3600), 10
    )
    stall_seconds: int = _setting(
        "How long a client may take in nothing of what it asked for before its connection is cut.",
        read_number(1, 3600),
        60,
    )

    @property
    def audit_folder(self) -> Path:
        """Where audit segments are."""
        return self.audit_dir if self.audit_dir is not None else self.state / "audit"

    @property
    def pepper_folder(self) -> Path:
        """Where the peppers are: never in Redis, the same on every node."""
        return self.state / "peppers"

    @property
    def history_file(self) -> Path:
        """The last seen history of the facts."""
        return self.state / "history.json"

    @property
    def signing_key_file(self) -> Path:
        """The Ed25519 key that signs the heads of audit chains."""
        return self.state / "signing" / "audit.pem"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


OTHER_VARIABLES = {
    "CACHEGATE_CONFIG": "The settings file.",
    "CACHEGATE_URL": "Kept for commands that go through a running gateway.",
    "CACHEGATE_ADMIN_KEY": "Kept for commands that go through a running gateway.",
    "CACHEGATE_PUBLIC_URL": "Kept for signed URLs.",
    "CACHEGATE_UPSTREAM": "Kept for the engine face.",
    "CACHEGATE_INFERENCE_URL": "Kept for the front door.",
}
"""Variables that are ours but no setting of this release; any other CACHEGATE_ name is a typing error."""


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read file and environment. Raises `Misconfigured` that names the variable or the file and key."""
    env = os.environ if environment is None else environment  # noqa: TID251 -- the one reader
    known = {one.name: one for one in fields(Settings)}
    values: dict[str, Any] = {}

    for name, raw, where in (*_from_file(env, known), *_from_environment(env, known)):
        try:
            values[name] = known[name].metadata["read"](raw)
        except ValueError as error:
            raise Misconfigured(where, str(error)) from error

    if "cache_root" not in values:
        engine_root = env.get("INFERENCE_HOME") or env.get("MODEL_CACHE_DIR")
        if engine_root:
            values["cache_root"] = read_path(engine_root)
    if "policies" not in values:
        values["policies"] = _default_policies()
    values.setdefault("state", Path(".cachegate").absolute())
    settings = Settings(**values)
    _refuse_contradictions(settings)
    return settings


def _from_environment(env: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for key, raw in sorted(env.items()):
        if not key.startswith(PREFIX) or key in OTHER_VARIABLES:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name not in known or key != variable(name):
            raise Misconfigured(key, "no such setting; README.md lists them. Remove it or correct its name.")
        if raw != "":  # an empty variable is an unset one: compose files and CI systems write them so
            found.append((name, raw, key))
    return found


def _from_file(env: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    named = env.get("CACHEGATE_CONFIG")
    path = Path(named or "cachegate.toml")
    if not named and not path.exists():
        return []
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(
            str(path), f"cannot be read ({error.strerror}); correct CACHEGATE_CONFIG"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(str(path), f"is not TOML: {error}") from error
    found = []
    for name, value in document.items():
        where = f"{path}: {name}"
        if name not in known:
            raise Misconfigured(where, "no such setting; README.md lists them")
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = (":" if name == "alias_roots" else ",").join(value)  # noqa: PLW2901 -- one text form for both sources
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise Misconfigured(where, "expected a string, a whole number or a list of strings")
        found.append((name, str(value), where))
    return found


def _default_policies() -> Path:
    """`./policies` if it exists; else the set that ships with the package, or beside it in a checkout."""
    local = Path("policies").absolute()
    if local.is_dir():
        return local
    return PACKAGED_POLICIES if PACKAGED_POLICIES.is_dir() else CHECKOUT_POLICIES


def _refuse_contradictions(settings: Settings) -> None:
    for name, folder in (("state", settings.state), ("audit_dir", settings.audit_folder)):
        if folder == settings.cache_root or settings.cache_root in folder.parents:
            raise Misconfigured(
                variable(name),
                f"{folder} lies below the cache root {settings.cache_root}, which others write to and "
                "we never do; choose a folder outside of it",
            )
