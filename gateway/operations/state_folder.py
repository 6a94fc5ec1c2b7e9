"""The state folder holds the pepper and the signing key, so only the gateway's user may access it.

It is checked before anything in it is trusted: anyone who can write to the folder can replace a pepper or the
audit log's key whatever the files' own modes are, and anyone who can read it can copy what is put there
later. The same holds for every folder on its path (`model/trusted_files.py`).

Only its owner may use it. A command run by root in the folder of a service user would leave files of root's
(audit segments, locks, the embedded server's data), which the service could not open any more. So everything
that may write there is refused to other users, root included, before anything is written. `doctor` uses the
same function.
"""

from __future__ import annotations

import os
import pwd
import shlex
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import (
    Distrusted,
    make_own_folder,
    refusal_of,
    user_name,
    verify_own_folder,
    verify_trusted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.configuration.settings import Settings


def verify_state(settings: Settings) -> None:
    """Raises `Misconfigured` unless we may write to the state folder and to the audit folder.

    The same holds for our folders inside them: a folder of another user makes its contents that user's, for
    every command. A folder that does not exist passes; the code that needs its contents reports what is
    missing.
    """
    _verify_owner(settings)
    for folder, setting in (
        (settings.state, "CACHEGATE_STATE"),
        (settings.audit_folder, "CACHEGATE_AUDIT_DIR"),
    ):
        try:
            verify_own_folder(folder, is_private=folder == settings.state)
        except FileNotFoundError:
            continue
        except Distrusted as error:
            raise error.with_hint(f"Or set {setting} to a folder of your own.") from None
        except OSError as error:
            why = f"cannot be accessed ({refusal_of(folder, error)}): is {setting} right?"
            raise Misconfigured(str(folder), why) from error
    _verify_inner(settings)


def make_state(settings: Settings) -> None:
    """Make the state folder if it is missing. Raises as `verify_state`, before anything is made."""
    verify_state(settings)
    try:
        make_own_folder(settings.state)
    except OSError as error:
        raise Misconfigured(str(settings.state), f"cannot be made: {error.strerror}") from error


def unusable_files(settings: Settings) -> list[Path]:
    """Files in our folders that belong to another user and that we cannot open.

    A command run by root may have left them there, before such commands were refused.
    """
    state, audit = settings.state, settings.audit_folder
    written = (state, state / "valkey", settings.pins_folder, audit, audit / "live")
    read = (settings.pepper_folder, settings.signing_key_file.parent)
    rights = dict.fromkeys(written, os.R_OK | os.W_OK) | dict.fromkeys(read, os.R_OK)
    return [
        path
        for folder, right in rights.items()
        for path in _foreign(folder)
        if not os.access(path, right, effective_ids=True)
    ]


def _verify_inner(settings: Settings) -> None:
    """Raises `Misconfigured` for a folder of ours in the state folder that another user could write to.

    A folder that we only read may also be root's: Kubernetes mounts secrets so.
    """
    written = [settings.pins_folder]
    if settings.redis_url is None:
        written.append(settings.state / "valkey")
    for folder in (settings.pepper_folder, settings.signing_key_file.parent, *written):
        try:
            if folder in written:
                verify_own_folder(folder, is_private=False)
            else:
                verify_trusted(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"cannot be accessed ({refusal_of(folder, error)})"
            raise Misconfigured(str(folder), why) from error


def _verify_owner(settings: Settings) -> None:
    """Raises `Misconfigured`, naming the user to run as, when one of the folders is another user's."""
    me, state, audit = os.geteuid(), settings.state, settings.audit_folder
    owner = _find_owner(state)
    if owner is not None and owner != me:
        raise Misconfigured(
            str(state),
            f"belongs to {user_name(owner)}, and this runs as {user_name(me)}: the owner could not use what "
            "this would write there. Nothing was written. Run it as the owner, with the settings of the "
            f"service: `sudo -u {_login(owner)} env CACHEGATE_STATE={shlex.quote(str(state))} cachegate ...`",
        )
    owner = _find_owner(audit)
    if owner is not None and owner != me:
        raise Misconfigured(
            str(audit),
            f"belongs to {user_name(owner)}, and this runs as {user_name(me)}: audit folder and state folder "
            "have to belong to one user, who runs the gateway and its commands. Nothing was written. "
            f"Run `chown -R {me} {shlex.quote(str(audit))}`, or set CACHEGATE_AUDIT_DIR to another folder",
        )


def _find_owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _login(uid: int) -> str:
    """The user in the form that `sudo -u` takes."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"


def _foreign(folder: Path) -> list[Path]:
    """The files in a folder that belong to another user."""
    try:
        with os.scandir(folder) as entries:
            me = os.geteuid()
            return [folder / one.name for one in entries if one.stat(follow_symlinks=False).st_uid != me]
    except OSError:
        return []
