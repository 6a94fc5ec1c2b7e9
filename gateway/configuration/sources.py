"""Load the settings from `cachegate.toml` and the environment; contradictions stop the start.

The environment overrides the file. This is the one module that reads the environment.

A file that another user could have written is not read, whether it was named or found in the working
directory: settings decide where the rules and the secrets are. A command that only reads may go on with a
warning.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.configuration.settings import CHECKOUT_POLICIES, PACKAGED_POLICIES, PREFIX, Settings, variable
from gateway.configuration.values import read_path, read_url
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import Distrusted, read_trusted, refusal_of, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOO_LARGE = 10**18  # no setting is a number of so many digits, and Python refuses to print some

OTHER_VARIABLES = {
    "CACHEGATE_CONFIG": "The settings file.",
    "CACHEGATE_URL": "The admin API that commands go through, such as http://127.0.0.1:9091.",
    "CACHEGATE_ADMIN_KEY": "The administering key with which they do.",
}
"""Variables that are ours but no setting of this release; any other CACHEGATE_ name is a typing error."""

_UNKNOWN = "no such setting; docs/reference/settings.md lists them"
_CORRECT_NAME = "Or name another file with CACHEGATE_CONFIG."
_FOUND_HERE = (
    "It was found in the working directory: run this elsewhere, or name your file with CACHEGATE_CONFIG."
)


MAX_CONFIG_BYTES = 1 << 20


def load_settings(
    environment: Mapping[str, str] | None = None, *, on_distrust: Callable[[Distrusted], None] = refuse
) -> Settings:
    """Read file and environment. Raises `Misconfigured` that names the variable or the file and key.

    `on_distrust` is called for a file that others could have written.
    """
    env = os.environ if environment is None else environment  # noqa: TID251 -- the one reader
    known = {one.name: one for one in fields(Settings)}
    values: dict[str, Any] = {}

    for name, raw, where in (*_from_file(env, known, on_distrust), *_from_environment(env, known)):
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


def load_gateway(environment: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """The URL and the key of the gateway that commands go through; None where they work on the state folder.

    Raises `Misconfigured` for one without the other.
    """
    env = os.environ if environment is None else environment  # noqa: TID251 -- the one reader
    url, key = env.get("CACHEGATE_URL", ""), env.get("CACHEGATE_ADMIN_KEY", "")
    if not url and not key:
        return None
    if not url or not key:
        missing, there = (
            ("CACHEGATE_ADMIN_KEY", "CACHEGATE_URL") if url else ("CACHEGATE_URL", "CACHEGATE_ADMIN_KEY")
        )
        raise Misconfigured(missing, f"is not set, and {there} is: commands go through a gateway with both")
    try:
        return read_url(url), key
    except ValueError as error:
        raise Misconfigured("CACHEGATE_URL", str(error)) from error


def _from_environment(env: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for key, raw in sorted(env.items()):
        if not key.startswith(PREFIX) or key in OTHER_VARIABLES:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name not in known or key != variable(name):
            raise Misconfigured(key, f"{_UNKNOWN}. Remove it or correct its name.")
        if raw != "":  # an empty variable counts as unset: compose files and CI systems write them so
            found.append((name, raw, key))
    return found


def _from_file(
    env: Mapping[str, str], known: Mapping[str, Any], on_distrust: Callable[[Distrusted], None]
) -> list[tuple[str, str, str]]:
    named = env.get("CACHEGATE_CONFIG")
    path = Path(named or "cachegate.toml")
    if not named and not _is_there(path):
        return []
    hint = _CORRECT_NAME if named else _FOUND_HERE

    def tell(found: Distrusted) -> None:
        on_distrust(found.with_hint(hint))

    try:
        text = read_trusted(path, max_bytes=MAX_CONFIG_BYTES, on_distrust=tell)
        document = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({refusal_of(path, error)}). {hint}") from error
    # not UTF-8, not TOML, or more digits or depth than Python reads
    except (ValueError, RecursionError) as error:
        raise Misconfigured(str(path), f"is not TOML: {error}") from error
    found = []
    for name, value in document.items():
        where = f"{path}: {name}"
        if name not in known:
            raise Misconfigured(where, _UNKNOWN)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = (":" if name == "alias_roots" else ",").join(value)  # noqa: PLW2901 -- one text form for both sources
        is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _TOO_LARGE
        if not is_number and not isinstance(value, str):
            raise Misconfigured(where, "expected a string, a whole number or a list of strings")
        found.append((name, str(value), where))
    return found


def _default_policies() -> Path:
    """`./policies` if it exists; else the set that ships with the package, or beside it in a checkout."""
    local = Path("policies")
    if _is_there(local):
        return local.absolute()
    return PACKAGED_POLICIES if PACKAGED_POLICIES.is_dir() else CHECKOUT_POLICIES


def _is_there(path: Path) -> bool:
    """Whether the working directory has an entry of this name, of any kind.

    Not whether it can be used: a dangling link must not be ignored silently. In a directory that we may not
    enter, such as that of a user who ran `sudo -u`, there is nothing of ours.
    """
    return os.path.lexists(path)


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
    if settings.inference_key is not None and settings.inference_key_file is not None:
        raise Misconfigured(
            variable("inference_key_file"),
            "inference_key is set as well, and which of the two counts is not to be seen; set one",
        )
