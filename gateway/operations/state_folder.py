"""The state folder: it holds the pepper and the signing key, so it is for the gateway's user alone.

Looked at before anything in it is trusted: whoever can write to the folder can exchange a pepper or
the audit log's key whatever the files' own modes are, and whoever can read it can copy what will be
put there. The same goes for every folder on the way to it (`model/trusted_files.py`).

And it is used by its owner only. A command of root's in the folder of a service user would leave files
of root's there (audit segments, locks, the embedded server's data), which the service could not open
any more. So whatever may write there is refused to everybody else, root included, before anything is
written. `doctor` asks the same function.
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

    The same goes for our folders in them: what lies in one of another user's is his, whichever command
    comes upon it. One that is missing is nobody's yet: what it lacks is said by whoever needs that.
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
            why = f"cannot be looked at ({refusal_of(folder, error)}): is {setting} right?"
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
    """Files in our folders that belong to somebody else and are closed to us.

    A command of root's may have left them there, before such commands were refused.
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
    """Raises `Misconfigured` for a folder of ours in the state folder that somebody else could write to.

    Where nothing is written, root's will do as well: Kubernetes mounts secrets so.
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
            why = f"cannot be looked at ({refusal_of(folder, error)})"
            raise Misconfigured(str(folder), why) from error


def _verify_owner(settings: Settings) -> None:
    """Raises `Misconfigured` that says as whom to run this, when one of the folders is another user's."""
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
    """How `sudo -u` takes a user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"


def _foreign(folder: Path) -> list[Path]:
    """What lies there and belongs to another user."""
    try:
        with os.scandir(folder) as entries:
            me = os.geteuid()
            return [folder / one.name for one in entries if one.stat(follow_symlinks=False).st_uid != me]
    except OSError:
        return []
