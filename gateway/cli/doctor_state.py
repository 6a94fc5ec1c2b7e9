"""Doctor, the state folder: private, with peppers and a signing key that only we can read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from gateway.assembly.signing import load_signing_key
from gateway.audit.head import fingerprint
from gateway.cli.findings import fail, look, ok
from gateway.identity.pepper import load_peppers

if TYPE_CHECKING:
    from gateway.cli.findings import Finding
    from gateway.configuration.settings import Settings


def look_at_state(settings: Settings) -> list[Finding]:
    """All findings."""
    return [
        look("state folder", lambda: check_state_folder(settings)),
        look("pepper", lambda: check_pepper(settings)),
        look("signing key", lambda: check_signing_key(settings)),
    ]


def check_state_folder(settings: Settings) -> Finding:
    """It holds all secrets, so nobody else may enter it."""
    name, folder = "state folder", settings.state
    if not folder.is_dir():
        return fail(name, f"{folder} is not there", "run `cachegate init`, or set CACHEGATE_STATE")
    found = folder.stat()
    if found.st_uid != os.geteuid():
        return fail(name, f"{folder} belongs to another user (id {found.st_uid})", "run as that user")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return fail(name, f"{folder} is open to others (mode {mode:04o})", f"run `chmod 700 {folder}`")
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail(name, f"{folder} is not writable", "mount it writable for this user")
    return ok(name, f"{folder} is private")


def check_pepper(settings: Settings) -> Finding:
    """Without the pepper no key is recognised; open to others it protects none."""
    ids = sorted(load_peppers(settings.pepper_folder).fingerprints())
    return ok("pepper", f"{', '.join(ids)} in {settings.pepper_folder}")


def check_signing_key(settings: Settings) -> Finding:
    """Signs the heads of audit chains."""
    key = load_signing_key(settings.signing_key_file)
    return ok("signing key", f"{settings.signing_key_file}, public key {fingerprint(key.public_key())}")
