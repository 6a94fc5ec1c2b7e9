"""The platform's authority: who may read what is asked of those who know, and their answer is a fact.

Two moments need it. A key that is unknown here is *introduced*: the platform is asked about it and the
model in question, and if it allows, the key gets a record of its own, with no set-up by anybody. And
where the facts about a platform's key are not *settled*, since what was said has ended, it is asked again.
After either, the pipeline goes on as it would with any other facts; nothing is decided here.

What is denied to a key that is unknown here is remembered by this worker alone, and how much is asked
about such keys is limited (`unknown_keys.py`): anybody can make keys up.

An allow is believed for `allow_seconds` and a denial for `deny_seconds`, counted from before the question
was sent; but for a second after the answer came, so that a slow platform can be believed at all. That a
key is nobody's ends its record and all that was said of it. What is not decided is no fact (I7). Requests
that name no model are served on what is said of the key alone, and an unknown key is not asked about for
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.directory import names
from gateway.directory.changes import change as run_change
from gateway.directory.edits.rulings import (
    disown_key,
    find_ruling,
    introduce_key,
    is_overtaken,
    note_links,
    rule,
)
from gateway.directory.reading import SourceReading, StoreReading, find_canonical
from gateway.identity.platform_keys import platform_key, sha256_of
from gateway.identity.tokens import TokenShape, parse_token
from gateway.model.errors import Conflict, Reason, Refusal, Unavailable
from gateway.model.rulings import Ruling
from gateway.model.verdicts import Change
from gateway.platform.stat import MAYBE_OF_THE_KEY
from gateway.platform.unknown_keys import LEAST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.directory.changes import Changes
    from gateway.identity.pepper import Peppers
    from gateway.model.access import Credential, Principal
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import Clock, FactSource
    from gateway.model.stores import FactStore
    from gateway.pinning.ledger import Perform
    from gateway.platform.asking import Flights
    from gateway.platform.stat import Platform
    from gateway.platform.unknown_keys import UnknownKeys

    Moment = tuple[int, float]  # the generation of the facts, and the time, before a question was put

ATTEMPTS = 2  # an answer that was overtaken by an ending is asked for once more
LINKS_MARGIN_SECONDS = 60.0  # so that not every answer with URLs in it writes a fact; they end by themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose right on what is asked about. `digest` is there for a key that is not known here."""

    credential: Credential
    key_id: KeyId
    model: ModelId | None
    key: Key | None = None
    digest: bytes | None = None

    @property
    def is_stranger(self) -> bool:
        """Whether nobody here knows the key."""
        return self.key is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One worker's way to the platform."""

    platform: Platform
    store: FactStore
    source: FactSource  # what this worker remembers
    forget: Callable[[Iterable[bytes]], None]  # of it, what this worker itself has changed
    perform: Perform
    flights: Flights
    strangers: UnknownKeys
    peppers: Peppers
    clock: Clock
    actor: str
    allow_seconds: float
    deny_seconds: float

    async def introduce(self, credential: Credential, model: ModelId | None, client: str) -> None:
        """Make an unknown key known, if the platform lets it have this model. Raises `Refusal` if not.

        `client` is the address that it came from, whose share of the questions it uses.
        """
        if model is None or parse_token(credential.secret) is TokenShape.OURS:
            raise Refusal(Reason.UNKNOWN_KEY)
        key, digest = platform_key(credential, self.peppers, self.clock.now())
        model = await find_canonical(SourceReading(self.source), model)
        subject = Subject(credential=credential, key=key, digest=digest, key_id=key.key_id, model=model)
        reason = await self._settle(subject, client)
        if reason is Reason.UPSTREAM_UNAUTHORIZED:
            raise Refusal(reason)  # nobody's: an id of its own would give each made-up key records of its own
        if reason is not Reason.PERMITTED:
            raise Refusal(reason, key_id=key.key_id, tenant=key.tenant)
        self.forget(map(names.key_fact, self.peppers.digests(sha256_of(credential))))
        if key.tenant is not None:
            self.forget([names.tenant_fact(key.tenant)])

    async def settle(self, credential: Credential, principal: Principal, model: ModelId | None) -> None:
        """Have the platform say whether a key of its own may have a model (None: whether it is one)."""
        key_id = principal.key_id
        subject = Subject(credential=credential, key_id=key_id, model=model)
        reason = await self._settle(subject)
        if reason is Reason.UPSTREAM_UNAUTHORIZED:
            raise Refusal(reason, key_id=key_id)

    async def note_links(self, key_id: KeyId, model: ModelId, until: float) -> None:
        """URLs are about to be handed out that live until then: under the allow that is in force.

        Raises `Unavailable` when it ended meanwhile. To be called before the answer with the URLs is sent;
        for a key that is not the platform's it does nothing.
        """
        now, name = self.clock.now(), names.links_fact(key_id, model)
        known = await find_ruling(SourceReading(self.source), key_id, model, now, name=name)
        if known is not None and known.until >= until:
            return
        noting = partial(note_links, key_id=key_id, model=model, until=until + LINKS_MARGIN_SECONDS, now=now)
        try:
            is_noted, _ = await run_change(self.store, noting)
        except Conflict as error:  # the record of the key does not parse
            raise Unavailable("redis", str(error)) from error
        self.forget([name])
        if not is_noted:
            raise Unavailable("upstream", "what it allowed has ended meanwhile", Reason.FACTS_MOVED)

    async def moment(self) -> Moment:
        """To be taken before a question is put: what ends later ends its answer as well.

        What was applied here, and not what a server says: an old primary may have counted further.
        """
        applied, _ = await self.source.read([])
        return applied, self.clock.now()

    async def hear(self, subject: Subject, moment: Moment, reason: Reason) -> Reason:
        """It denied something along with another question: that counts as if we had asked. What to tell."""
        try:
            ruling = await self._ruling(subject, moment, reason)
        except Unavailable:  # of the key or of the model, nobody says; of the model it is in any case
            ruling = await self._ruling(subject, moment, Reason.UPSTREAM_REFUSED)
        await self._write(subject, ruling)  # what has been overtaken meanwhile is left as it is
        self.forget(names.ruling_facts(subject.key_id, subject.model))
        return ruling.reason

    async def close(self) -> None:
        """End the questions that are under way."""
        await self.flights.close()

    async def _settle(self, subject: Subject, client: str = "") -> Reason:
        """What is in force about it: remembered, or asked for by one worker of the fleet.

        What is denied to a stranger is remembered by each worker for itself, so each asks for itself.
        """
        reason = await self._find(SourceReading(self.source), subject)
        if reason is not None:
            self.strangers.counts["remembered"] += subject.is_stranger
            return reason
        key_id, model = subject.key_id, subject.model
        reading, lock = StoreReading(self.store), names.asking_lock(key_id, model)
        if subject.is_stranger and lock not in self.flights:
            self.strangers.admit(client)

        async def is_answered() -> bool:
            return await self._find(reading, subject) is not None

        await self.flights.await_answer(
            lock,
            key_id=key_id,
            is_stranger=subject.is_stranger,
            ask=partial(self._ask, subject),
            is_answered=is_answered,
        )
        # What this worker remembers may be older than what it, or another one, has just written.
        self.forget(names.ruling_facts(subject.key_id, subject.model))
        reason = await self._find(reading, subject)
        if reason is None:
            raise _undecided("its answer had ended before it could be used")
        return reason

    async def _find(self, reading: SourceReading | StoreReading, subject: Subject) -> Reason | None:
        """What is in force; for a key that the platform does not know, that standing."""
        if subject.is_stranger and subject.model is not None:
            reason = await self.strangers.find(subject.key_id, subject.model)
            if reason is not None:
                return reason
        now = self.clock.now()
        standing = await find_ruling(reading, subject.key_id, None, now)
        if standing is not None and standing.reason is Reason.UPSTREAM_UNAUTHORIZED:
            return standing.reason
        if subject.model is not None:
            standing = await find_ruling(reading, subject.key_id, subject.model, now)
        return None if standing is None else standing.reason

    async def _ask(self, subject: Subject) -> None:
        """Ask, and keep what was said. What was overtaken is asked once more."""
        for _ in range(ATTEMPTS):
            asking = self._hear_of_stranger if subject.is_stranger else self._hear_and_write
            if await asking(subject):
                return
        raise _undecided("what it said was ended while it was said")

    async def _hear_and_write(self, subject: Subject) -> bool:
        return await self._write(subject, await self._hear(subject))

    async def _hear_of_stranger(self, subject: Subject) -> bool:
        """An allow makes the key known, a denial is remembered here; False when it was overtaken."""
        asked = await self.store.generation()
        standpoint, moment = await self.strangers.take_standpoint(asked), (asked, self.clock.now())
        reason = await self._say(subject, subject.model)
        if reason is Reason.PERMITTED:
            return await self._write(subject, await self._ruling(subject, moment, reason))
        about: dict[ModelId | None, Reason] = {subject.model: reason}
        if reason in MAYBE_OF_THE_KEY:
            standing = await self.strangers.find_standing(subject.key_id) or await self._say(subject, None)
            about[subject.model] = reason if standing is reason else Reason.UPSTREAM_REFUSED
            about |= {} if standing is Reason.PERMITTED else {None: standing}
            reason = Reason.UPSTREAM_UNAUTHORIZED if standing is Reason.UPSTREAM_UNAUTHORIZED else reason
        if reason is Reason.UPSTREAM_UNAUTHORIZED:
            about = {None: reason}
        if await is_overtaken(StoreReading(self.store), subject.key_id, subject.model, asked):
            return False
        for model, said in about.items():
            self.strangers.put(subject.key_id, model, said, standpoint, self.deny_seconds)
        return True

    async def _say(self, subject: Subject, model: ModelId | None) -> Reason:
        return await self.platform.say(subject.credential, model, is_stranger=subject.is_stranger)

    async def _hear(self, subject: Subject) -> Ruling:
        """The ruling that an answer comes to."""
        moment = await self.moment()
        return await self._ruling(subject, moment, await self._say(subject, subject.model))

    async def _ruling(self, subject: Subject, moment: Moment, reason: Reason) -> Ruling:
        """What was said, as of that moment."""
        if subject.model is not None and reason in MAYBE_OF_THE_KEY:
            reason = await self._of_the_key(subject, reason)
        seconds = self.allow_seconds if reason is Reason.PERMITTED else self.deny_seconds
        return Ruling(
            key_id=subject.key_id,
            model=None if reason is Reason.UPSTREAM_UNAUTHORIZED else subject.model,
            reason=reason,
            until=max(moment[1] + seconds, self.clock.now() + min(seconds, LEAST_SECONDS)),
            asked=moment[0],
        )

    async def _of_the_key(self, subject: Subject, reason: Reason) -> Reason:
        """The same, if the platform says it of the key whatever the model is; else a denial like others."""
        known = await find_ruling(StoreReading(self.store), subject.key_id, None, self.clock.now())
        if known is None or known.is_allow:
            known = await self._hear(replace(subject, model=None))
            if known.reason is Reason.UPSTREAM_UNAUTHORIZED:
                return known.reason
            await self._write(replace(subject, model=None), known)
        return reason if known.reason is reason else Reason.UPSTREAM_REFUSED

    async def _write(self, subject: Subject, ruling: Ruling) -> bool:
        """Make it a fact; False when it was overtaken. Keys come and go on record, like every change."""
        now = self.clock.now()
        operation: Callable[[Changes], Awaitable[bool]] = partial(rule, ruling=ruling, now=now)
        try:
            if ruling.reason is Reason.UPSTREAM_UNAUTHORIZED and subject.key is None:
                operation = partial(disown_key, standing=ruling, now=now)
                return await self._record("keys.disown", subject, operation)
            if ruling.is_allow and ruling.model is not None and subject.key is not None and subject.digest:
                operation = partial(
                    introduce_key, key=subject.key, digest=subject.digest, ruling=ruling, now=now
                )
                return await self._record("keys.introduce", subject, operation)
            is_written, _ = await run_change(self.store, operation)
        except Conflict as error:  # a record that does not parse is in the way, or an id is taken
            raise Unavailable("redis", str(error)) from error
        return is_written

    async def _record(
        self, action: str, subject: Subject, operation: Callable[[Changes], Awaitable[bool]]
    ) -> bool:
        change = Change(
            actor=self.actor,
            action=action,
            tenant=subject.key.tenant if subject.key is not None else None,
            key_id=subject.key_id,
            subject=() if subject.model is None else (subject.model,),
            received_at=self.clock.now(),
        )
        done = await self.perform(change, operation)
        return done.result


def _undecided(why: str) -> Unavailable:
    return Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED)
