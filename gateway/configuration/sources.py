"""Where settings come from: `cachegate.toml` and the environment; contradictions stop the start.

The environment wins over the file. This is the one module that reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.configuration.values import (
    read_path,
)
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

from gateway.configuration.settings import CHECKOUT_POLICIES, PACKAGED_POLICIES, PREFIX, Settings, variable

_TOO_LARGE = 10**18  # no setting is a number of so many digits, and some cannot even be printed

OTHER_VARIABLES = {
    "CACHEGATE_CONFIG": "The settings file.",
    "CACHEGATE_URL": "Kept for commands that go through a running gateway.",
    "CACHEGATE_ADMIN_KEY": "Kept for commands that go through a running gateway.",
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
    except (ValueError, RecursionError) as error:  # no text, no TOML, or more digits or depth than is read
        raise Misconfigured(str(path), f"is not TOML: {error}") from error
    found = []
    for name, value in document.items():
        where = f"{path}: {name}"
        if name not in known:
            raise Misconfigured(where, "no such setting; README.md lists them")
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = (":" if name == "alias_roots" else ",").join(value)  # noqa: PLW2901 -- one text form for both sources
        is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _TOO_LARGE
        if not is_number and not isinstance(value, str):
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
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise Misconfigured(
            variable("tls_certificate"),
            "TLS needs both: set tls_certificate and tls_key, or neither",
        )
