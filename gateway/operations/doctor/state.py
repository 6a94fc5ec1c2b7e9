"""Doctor, the state folder: private to our user, with peppers, keys and certificates that only we can write.

Uses the same functions as the start; what would stop the start is a failure here.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from gateway.assembly.signing import load_signing_key
from gateway.audit.head import fingerprint
from gateway.identity.links import load_link_keys
from gateway.identity.pepper import load_peppers
from gateway.identity.secret_file import load_secret
from gateway.identity.signing_keys import NO_SIGNING_KEY, key_file, load_signing_keys
from gateway.model.errors import Misconfigured
from gateway.operations.doctor.findings import fail, ok, run_check, warning
from gateway.operations.state_folder import unusable_files, verify_state
from gateway.server.serve_options import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.configuration.settings import Settings
    from gateway.operations.doctor.findings import Finding

MAX_NAMED = 3  # files in one finding


def check_state(settings: Settings) -> list[Finding]:
    """All findings about the state folder."""
    checks: dict[str, Callable[[Settings], Finding]] = {
        "state folder": check_state_folder,
        "pepper": check_pepper,
        "signing key": check_signing_key,
    }
    if settings.public_url is not None:
        checks["link key"] = check_link_key
        checks["token keys"] = check_token_keys
    if settings.authority == "platform":
        checks["webhook key"] = check_hook_key
    if settings.tls_certificate is not None:
        checks["tls"] = check_tls
    findings = [run_check(name, partial(check, settings)) for name, check in checks.items()]
    return [*findings, *check_files(settings)]


def check_state_folder(settings: Settings) -> Finding:
    """It holds all secrets, so no other user may enter it."""
    name, folder = "state folder", settings.state
    verify_state(settings)
    if not folder.is_dir():
        return fail(
            name, f"{folder} is not there", "is CACHEGATE_STATE right? If it is, run `cachegate init`"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail(name, f"{folder} is not writable", "mount it writable for this user")
    return ok(name, f"{folder} is private")


def check_files(settings: Settings) -> list[Finding]:
    """Files that we cannot open, which a command of another user may have left."""
    files = unusable_files(settings)
    if not files:
        return []
    shown = ", ".join(map(str, files[:MAX_NAMED]))
    more = f" and {len(files) - MAX_NAMED} more" if len(files) > MAX_NAMED else ""
    advice = f"run, as root, `chown -R {os.geteuid()} {settings.state} {settings.audit_folder}`"
    return [fail("files of other users", f"they are closed to this user: {shown}{more}", advice)]


def check_pepper(settings: Settings) -> Finding:
    """Without the pepper no key is recognised; readable by others it protects none."""
    ids = sorted(load_peppers(settings.pepper_folder).fingerprints())
    return ok("pepper", f"{', '.join(ids)} in {settings.pepper_folder}")


def check_signing_key(settings: Settings) -> Finding:
    """The key that signs the heads of audit chains."""
    key = load_signing_key(settings.signing_key_file)
    return ok("signing key", f"{settings.signing_key_file}, public key {fingerprint(key.public_key())}")


def check_link_key(settings: Settings) -> Finding:
    """The key that signs URLs."""
    keys = load_link_keys(settings.link_key_file)
    old = "" if keys.previous is None else ", and an older one"
    return ok("link key", f"{settings.link_key_file}{old}")


def check_token_keys(settings: Settings) -> Finding:
    """The keys that sign access tokens."""
    held = load_signing_keys(settings.token_key_folder)
    if not held:
        raise Misconfigured(str(settings.token_key_folder), NO_SIGNING_KEY)
    names = ", ".join(key_file(settings.token_key_folder, key.number).name for key in held)
    return ok("token keys", f"{names} in {settings.token_key_folder}")


def check_hook_key(settings: Settings) -> Finding:
    """The key with which the platform signs its webhooks."""
    load_secret(settings.hook_key_file)
    return ok("webhook key", str(settings.hook_key_file))


def check_tls(settings: Settings) -> Finding:
    """Certificate and key of the public socket."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return fail("tls", "one of the two files is not set", "set tls_certificate and tls_key, or neither")
    TlsFiles(certificate=certificate, key=key).verify()
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & stat.S_IROTH:
        return warning("tls", f"everybody may read {key} (mode {mode:04o})", f"run `chmod 600 {key}`")
    return ok("tls", f"{certificate} and {key}")
