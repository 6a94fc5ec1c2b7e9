"""Bind a subject of an outside issuer to a tenant: a fact, made when a rule maps the subject first.

Subjects are the issuer's to name, and a CI system has as many as there are branches. So their number has a
bound for each issuer, and so has the number of new ones in a second. Revoked ones count among them.
A subject whose binding was revoked gets no other one, whatever rule matches its next token.

What is written is decided in one transaction (`directory/edits/bindings.py`).
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from gateway.directory.edits.bindings import make_binding, verify_room
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.identity.new_keys import KEY_ID_CHARACTERS
from gateway.identity.tokens import random_base62
from gateway.model.errors import Conflict, Reason, Refusal, Unavailable
from gateway.model.issuers import Binding, binding_digest
from gateway.model.names import BINDING_PREFIX, BindingId
from gateway.model.verdicts import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.adapters.clock import SystemClock
    from gateway.model.issuers import Issuer, MappingRule
    from gateway.model.stores import FactStore
    from gateway.pinning.ledger import Perform
    from gateway.platform.budget import Budget

NEW_PER_SECOND = 50
"""New bindings that one worker makes in a second; those of one issuer are a tenth of it."""


class Bindings:
    """Makes bindings in one worker."""

    def __init__(
        self,
        *,
        store: FactStore,
        perform: Perform,
        forget: Callable[[Iterable[bytes]], None],
        budget: Budget,
        clock: SystemClock,
        worker: str,
    ) -> None:
        self._stored = Listing(PlainFacts(store))
        self._perform = perform
        self._forget = forget
        self._budget = budget
        self._clock = clock
        self._worker = worker

    async def bind(self, issuer: Issuer, rule: MappingRule, subject: str) -> None:
        """Make or move the binding of a subject, or add the rule to it. Raises `Refusal`."""
        if not self._budget.take(issuer.url):
            raise Refusal(Reason.BINDING_LIMIT)
        digest = binding_digest(issuer.url, subject)
        now = self._clock.now()
        new = Binding(
            binding_id=BindingId(BINDING_PREFIX + random_base62(KEY_ID_CHARACTERS, secrets.choice)),
            url=issuer.url,
            subject=subject,
            tenant=rule.tenant,
            rules=(rule.name,),
            created_at=now,
        )
        try:
            known = await self._stored.find_binding(digest)
            if known is None:
                await verify_room(self._stored, issuer)  # before anything is recorded
            binding_id = new.binding_id if known is None else known.binding_id
            tenant = await self._stored.find_tenant(rule.tenant)
            change = Change(
                actor=f"worker:{self._worker}",
                action="bindings.make",
                tenant=rule.tenant,
                tenant_record=None if tenant is None else tenant.record_id,
                key_id=binding_id,
                subject=(issuer.name, rule.name, subject),
                received_at=now,
            )
            await self._perform(change, partial(make_binding, issuer=issuer, rule=rule, new=new))
        except Conflict as error:  # a record that does not parse is in the way
            raise Unavailable("redis", str(error)) from error
        self._forget([names.binding_fact(digest)])
