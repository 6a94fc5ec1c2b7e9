"""Keys in the directory, made and ended by the operations that the commands use, without the start of one."""

from __future__ import annotations

from hashlib import sha256

from gateway.directory.edits import keys
from gateway.identity.new_keys import KeyOrder, import_key, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId


def _ordered(session, tenant, **order):
    return KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId(tenant), **order)


async def create(session, tenant, **order):
    """A new key of ours, as `cachegate keys create` makes it: its token and its id."""
    new = issue_key(_ordered(session, tenant, **order), environment="test", peppers=session.peppers)
    await session.perform(
        "keys.create",
        lambda changes: keys.create_key(changes, key=new.key, digest=new.digest),
        tenant=TenantId(tenant),
        key_id=new.key.key_id,
    )
    return new.token, new.key.key_id


async def take_in(session, tenant, token):
    """A key of the platform, as `cachegate keys import` takes it in by its hash: its id."""
    digest = sha256(token.encode()).hexdigest()
    new = import_key(_ordered(session, tenant), sha256_hex=digest, peppers=session.peppers)
    await session.perform(
        "keys.import",
        lambda changes: keys.import_key(changes, key=new.key, digest=new.digest),
        tenant=TenantId(tenant),
        key_id=new.key.key_id,
    )
    return new.key.key_id


async def revoke(session, key_id):
    """`cachegate keys revoke`, with its barrier: once it returns, nothing begins for the key (I6)."""
    now = session.clock.now()
    await session.perform(
        "keys.revoke",
        lambda changes: keys.revoke_key(changes, key_id=key_id, now=now),
        key_id=key_id,
    )
