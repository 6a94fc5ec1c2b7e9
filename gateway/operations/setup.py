"""Set up an installation: the state folder with its secrets, the shipped rules, the first admin key.

`cachegate init` and the demo use it. A second run changes nothing and says so: existing secrets stay, because
a new pepper would make every key unknown, a new signing key would orphan heads, and a new link key would end
every link handed out.

Two runs on one node are serialised by a lock; between nodes that share their facts, the transactions make
sure that there is one first admin key and one first set of rules.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from gateway.assembly.signing import create_signing_key
from gateway.decision.set_changes import compare_sets
from gateway.directory.edits.effect import Effect
from gateway.directory.edits.keys import create_key
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import create_pepper
from gateway.identity.secret_file import create_secret
from gateway.identity.signing_keys import create_token_key, key_numbers
from gateway.model.facts import KeyKind
from gateway.model.file_lock import FileLock
from gateway.model.hidden_fields import shown
from gateway.operations.policy_folder import apply_folder, load_folder, recorded_rules
from gateway.operations.session import OperatorSession, open_session
from gateway.operations.state_folder import make_state

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings
    from gateway.directory.edits.changes import Changes
    from gateway.identity.new_keys import NewKey
    from gateway.model.names import KeyId

LOCK_NAME = "init.lock"
PATIENCE_SECONDS = 30.0  # for another run; one takes a second


class SetUp(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was made. `admin_key` is set only if it was made now, and is shown this once."""

    admin_key: str | None
    admin_key_id: KeyId | None
    is_new: bool

    def __repr__(self) -> str:
        return shown(self, hidden=("admin_key",))


async def set_up(settings: Settings) -> SetUp:
    """Create the secrets, the policy and the first admin key, where they are missing."""
    make_state(settings)
    with FileLock(settings.state / LOCK_NAME) as lock:
        lock.wait_alone(time.monotonic() + PATIENCE_SECONDS)
        is_new = _make_secrets(settings)
        async with open_session(settings) as session:
            await ensure_policy(session)
            made = None
            if not await session.listing.list_keys(None):
                made = await _create_admin_key(session)
    return SetUp(
        admin_key=made.token if made else None,
        admin_key_id=made.key.key_id if made else None,
        is_new=is_new or made is not None,
    )


async def ensure_policy(session: OperatorSession) -> None:
    """Apply the policy folder if, and only if, no policy is in force."""
    if await session.listing.find_policy() is not None:
        return
    settings = session.settings
    folder = load_folder(settings.policies, private_issuers=settings.private_issuers)
    now = session.clock.now()

    async def operation(changes: Changes) -> None:
        if await changes.find_policy() is None:  # another node may have been first
            await apply_folder(changes, folder, now)

    subject = (f"digest {folder.policy_set.digest}", *recorded_rules(compare_sets(None, folder.policy_set)))
    await session.perform("policy.apply", operation, subject=subject)


def _make_secrets(settings: Settings) -> bool:
    is_new = False
    if not any(settings.pepper_folder.glob("p*.pepper")):
        create_pepper(settings.pepper_folder)
        is_new = True
    if not settings.signing_key_file.exists():
        create_signing_key(settings.signing_key_file)
        is_new = True
    if not key_numbers(settings.token_key_folder):
        create_token_key(settings.token_key_folder)
        is_new = True
    for path in (settings.link_key_file, settings.hook_key_file):
        if not path.exists():
            create_secret(path)
            is_new = True
    return is_new


async def _create_admin_key(session: OperatorSession) -> NewKey | None:
    """The first admin key; None when one exists by the time it would be written."""
    order = KeyOrder(now=session.clock.now(), kind=KeyKind.ADMIN, tenant=None, name="first admin key")
    new = issue_key(order, environment=session.settings.token_env, peppers=session.peppers)

    async def operation(changes: Changes) -> Effect:
        if await changes.list_key_ids([None]):
            return Effect(is_changed=False, sentences=())
        return await create_key(changes, key=new.key, digest=new.digest)

    done = await session.perform("keys.create", operation, key_id=new.key.key_id)
    return new if done.result.is_changed else None
