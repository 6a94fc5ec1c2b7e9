"""First things: the state folder with its pepper and signing key, the shipped rules, the first admin key.

`cachegate init` and the demo do the same. A second run changes nothing and says so: whatever is
there stays, because a new pepper would lock every key out and a new signing key would orphan heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.directory.operations.keys import create_key
from gateway.identity.keys import KeyOrder, issue_key
from gateway.identity.pepper import create_pepper
from gateway.model.errors import Misconfigured
from gateway.model.facts import KeyKind
from gateway.office import Office, open_office
from gateway.policies import apply_folder, load_folder
from gateway.signing import create_signing_key

if TYPE_CHECKING:
    from gateway.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """What was made. `admin_key` is there this once, when it was made now."""

    admin_key: str | None
    is_new: bool


async def set_up(settings: Settings) -> SetUp:
    """Make what is missing."""
    made = _make_state(settings)
    async with open_office(settings) as office:
        await ensure_policy(office)
        admin_key = None
        if not await office.listing.list_keys(None):
            admin_key = await _create_admin_key(office)
    return SetUp(admin_key=admin_key, is_new=made or admin_key is not None)


async def ensure_policy(office: Office) -> None:
    """Apply the policy folder if, and only if, no policy is in force."""
    if await office.listing.find_policy() is not None:
        return
    folder = load_folder(office.settings.policies)
    now = office.clock.now()
    subject = (f"digest {folder.policy_set.digest}",)
    await office.perform("policy.apply", lambda changes: apply_folder(changes, folder, now), subject=subject)


def _make_state(settings: Settings) -> bool:
    made = False
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(str(settings.state), f"cannot be made: {error.strerror}") from error
    if not any(settings.pepper_folder.glob("p*.pepper")):
        create_pepper(settings.pepper_folder)
        made = True
    if not settings.signing_key_file.exists():
        create_signing_key(settings.signing_key_file)
        made = True
    return made


async def _create_admin_key(office: Office) -> str:
    order = KeyOrder(now=office.clock.now(), kind=KeyKind.ADMIN, tenant=None, name="first admin key")
    new = issue_key(order, environment=office.settings.token_env, peppers=office.peppers)
    if new.token is None:
        raise TypeError("an issued key has a token")
    await office.perform(
        "keys.create",
        lambda changes: create_key(changes, key=new.key, digest=new.digest),
        key_id=new.key.key_id,
    )
    return new.token
