"""The platform's authority: ask the platform who may read what, and store its answers as facts.

There are two occasions. A key that is unknown here is *introduced*: the platform is asked about it and the
model in question, and if it allows, the key gets a record of its own, without any set-up. And where there
is no answer in force about a platform's key, because the last one has expired or was ended, the platform is
asked again. After either, the pipeline goes on as with any other facts; nothing is decided here.

A denial of a key that is unknown here is remembered by this worker alone, and the number of requests about
such keys is limited (`unknown_keys.py`): anyone can make keys up.

An allow counts for `allow_seconds` and a denial for `deny_seconds`, from before the request was sent, but at
least for a second after the answer came, so that a slow platform's answers can be used at all. An answer that
the platform does not know a key ends the key's record and all earlier answers about it. An undecided answer
is no fact (I7). Requests that name no model are served on what is known of the key alone, and the platform is
not asked about an unknown key for them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.directory.edits.changes import change as run_change
from gateway.directory.edits.rulings import (
    disown_key,
    introduce_key,
    note_links,
    rule,
)
from gateway.directory.reading.read_set import ReadSet
from gateway.directory.reading.rulings import find_ruling, is_overtaken
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.identity.platform_keys import platform_key, sha256_of
from gateway.identity.tokens import TokenShape, parse_token
from gateway.model.errors import Conflict, Reason, Refusal, Unavailable
from gateway.model.rulings import Ruling
from gateway.model.verdicts import Change
from gateway.platform.stat import MAYBE_OF_THE_KEY
from gateway.platform.unknown_keys import LEAST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.directory.edits.changes import Changes
    from gateway.identity.pepper import Peppers
    from gateway.model.access import Credential, Principal
    from gateway.model.clocks import Clock
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import FactSource
    from gateway.model.stores import FactStore
    from gateway.pinning.ledger import Perform
    from gateway.platform.asking import SharedQuestions
    from gateway.platform.stat import Platform
    from gateway.platform.unknown_keys import UnknownKeys

    Moment = tuple[int, float]  # the generation of the facts, and the time, before a request was sent

ATTEMPTS = 2  # an answer that was ended while it came is asked for once more
LINKS_MARGIN_SECONDS = 60.0  # so that not every answer with URLs writes a fact; the URLs expire by themselves


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The key and model that are asked about. `digest` is set for a key that is not known here."""

    credential: Credential
    key_id: KeyId
    model: ModelId | None
    key: Key | None = None
    digest: bytes | None = None

    @property
    def is_unknown_key(self) -> bool:
        """Whether the key is unknown here."""
        return self.key is not None


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's client of the platform."""

    platform: Platform
    store: FactStore
    source: FactSource  # what this worker has in memory
    # drops facts that this worker itself has changed from its memory
    forget: Callable[[Iterable[bytes]], None]
    perform: Perform
    questions: SharedQuestions
    unknown_keys: UnknownKeys
    peppers: Peppers
    clock: Clock
    actor: str
    allow_seconds: float
    deny_seconds: float

    async def introduce(self, credential: Credential, model: ModelId | None, client: str) -> None:
        """Make an unknown key known, if the platform allows it this model. Raises `Refusal` if not.

        `client` is the address that it came from, whose share of the requests it uses.
        """
        if model is None or parse_token(credential.secret) is TokenShape.OURS:
            raise Refusal(Reason.UNKNOWN_KEY)
        key, digest = platform_key(credential, self.peppers, self.clock.now())
        subject = Subject(
            credential=credential,
            key=key,
            digest=digest,
            key_id=key.key_id,
            model=await self._canonical(model),
        )
        reason = await self._find_or_ask(subject, client)
        if reason is Reason.UPSTREAM_UNAUTHORIZED:
            # unknown to the platform: with an id of its own, each made-up key would get records of its own
            raise Refusal(reason)
        if reason is not Reason.PERMITTED:
            raise Refusal(reason, key_id=key.key_id, tenant=key.tenant)
        self.forget(map(names.key_fact, self.peppers.digests(sha256_of(credential))))
        if key.tenant is not None:
            self.forget([names.tenant_fact(key.tenant)])

    async def determine(self, credential: Credential, principal: Principal, model: ModelId | None) -> None:
        """Have the platform say whether its key may have a model (None: whether the key is valid)."""
        key_id = principal.key_id
        subject = Subject(credential=credential, key_id=key_id, model=model)
        reason = await self._find_or_ask(subject)
        if reason is Reason.UPSTREAM_UNAUTHORIZED:
            raise Refusal(reason, key_id=key_id)

    async def note_links(self, key_id: KeyId, model: ModelId, until: float) -> None:
        """Record that URLs which live until then are about to be handed out under the allow in force.

        Raises `Unavailable` when the allow ended meanwhile. To be called before the answer with the URLs is
        sent; for a key that is not the platform's it does nothing.
        """
        now, name = self.clock.now(), names.links_fact(key_id, model)
        known = await find_ruling(self.source, key_id, model, now, of_links=True)
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
        """To be taken before a request is sent: an ending after it also ends the request's answer.

        The generation that was applied here, not what a server says: an old primary may have counted further.
        """
        applied, _ = await self.source.read([])
        return applied, self.clock.now()

    async def note_denial(self, subject: Subject, moment: Moment, reason: Reason) -> Reason:
        """Count a denial that came with another request as an answer.

        Returns the reason to tell the caller.
        """
        try:
            ruling = await self._ruling(subject, moment, reason)
        # undecided whether it is of the key or of the model; of the model it is in any case
        except Unavailable:
            ruling = await self._ruling(subject, moment, Reason.UPSTREAM_REFUSED)
        await self._write(subject, ruling)  # if it has been overtaken meanwhile, nothing is written
        self.forget(names.ruling_facts(subject.key_id, subject.model))
        return ruling.reason

    async def close(self) -> None:
        """Cancel the requests that are under way."""
        await self.questions.close()

    async def _canonical(self, model: ModelId) -> ModelId:
        """The model that an alias names. Of a record that does not parse, the name: it will be denied."""
        read_set = ReadSet(self.source)
        await read_set.fetch([names.alias_fact(model)])
        alias = read_set.alias_of(model)
        return model if alias is None else alias.canonical

    async def _find_or_ask(self, subject: Subject, client: str = "") -> Reason:
        """The answer in force: from memory, or asked for by one worker of the fleet.

        A denial of an unknown key is remembered by each worker for itself, so each worker asks for itself.
        """
        reason = await self._find(self.source, subject)
        if reason is not None:
            self.unknown_keys.counts["remembered"] += subject.is_unknown_key
            return reason
        key_id, model = subject.key_id, subject.model
        stored, lock = PlainFacts(self.store), names.asking_lock(key_id, model)
        if subject.is_unknown_key and lock not in self.questions:
            self.unknown_keys.admit(client)

        async def is_answered() -> bool:
            return await self._find(stored, subject) is not None

        await self.questions.await_answer(
            lock,
            key_id=key_id,
            is_unknown_key=subject.is_unknown_key,
            ask=partial(self._ask, subject),
            is_answered=is_answered,
        )
        # What this worker has in memory may be older than what it, or another worker, has just written.
        self.forget(names.ruling_facts(subject.key_id, subject.model))
        reason = await self._find(stored, subject)
        if reason is None:
            raise _undecided("its answer had ended before it could be used")
        return reason

    async def _find(self, source: FactSource, subject: Subject) -> Reason | None:
        """The answer in force; for a key that the platform does not know, that denial."""
        if subject.is_unknown_key and subject.model is not None:
            reason = await self.unknown_keys.find(subject.key_id, subject.model)
            if reason is not None:
                return reason
        now = self.clock.now()
        standing = await find_ruling(source, subject.key_id, None, now)
        if standing is not None and standing.reason is Reason.UPSTREAM_UNAUTHORIZED:
            return standing.reason
        if subject.model is not None:
            standing = await find_ruling(source, subject.key_id, subject.model, now)
        return None if standing is None else standing.reason

    async def _ask(self, subject: Subject) -> None:
        """Ask, and store the answer. An answer that was overtaken is asked for once more."""
        for _ in range(ATTEMPTS):
            asking = self._ask_about_unknown_key if subject.is_unknown_key else self._ask_and_write
            if await asking(subject):
                return
        raise _undecided("what it said was ended while it was said")

    async def _ask_and_write(self, subject: Subject) -> bool:
        return await self._write(subject, await self._ask_for_ruling(subject))

    async def _ask_about_unknown_key(self, subject: Subject) -> bool:
        """An allow makes the key known, a denial is remembered here; False when it was overtaken."""
        asked = await self.store.generation()
        start, moment = await self.unknown_keys.take_start(asked), (asked, self.clock.now())
        reason = await self._ask_platform(subject, subject.model)
        if reason is Reason.PERMITTED:
            return await self._write(subject, await self._ruling(subject, moment, reason))
        about: dict[ModelId | None, Reason] = {subject.model: reason}
        if reason in MAYBE_OF_THE_KEY:
            standing = await self.unknown_keys.find_standing(subject.key_id) or await self._ask_platform(
                subject, None
            )
            about[subject.model] = reason if standing is reason else Reason.UPSTREAM_REFUSED
            about |= {} if standing is Reason.PERMITTED else {None: standing}
            reason = Reason.UPSTREAM_UNAUTHORIZED if standing is Reason.UPSTREAM_UNAUTHORIZED else reason
        if reason is Reason.UPSTREAM_UNAUTHORIZED:
            about = {None: reason}
        if await is_overtaken(PlainFacts(self.store), subject.key_id, subject.model, asked):
            return False
        for model, said in about.items():
            self.unknown_keys.put(subject.key_id, model, said, start, self.deny_seconds)
        return True

    async def _ask_platform(self, subject: Subject, model: ModelId | None) -> Reason:
        return await self.platform.ask(subject.credential, model, is_unknown_key=subject.is_unknown_key)

    async def _ask_for_ruling(self, subject: Subject) -> Ruling:
        """Ask, and make the answer a ruling."""
        moment = await self.moment()
        return await self._ruling(subject, moment, await self._ask_platform(subject, subject.model))

    async def _ruling(self, subject: Subject, moment: Moment, reason: Reason) -> Ruling:
        """The ruling for an answer, as of that moment."""
        if subject.model is not None and reason in MAYBE_OF_THE_KEY:
            reason = await self._distinguish_key_denial(subject, reason)
        seconds = self.allow_seconds if reason is Reason.PERMITTED else self.deny_seconds
        return Ruling(
            key_id=subject.key_id,
            model=None if reason is Reason.UPSTREAM_UNAUTHORIZED else subject.model,
            reason=reason,
            until=max(moment[1] + seconds, self.clock.now() + min(seconds, LEAST_SECONDS)),
            asked=moment[0],
        )

    async def _distinguish_key_denial(self, subject: Subject, reason: Reason) -> Reason:
        """The same reason, if the platform gives it for the key whatever the model.

        Else an ordinary denial.
        """
        known = await find_ruling(PlainFacts(self.store), subject.key_id, None, self.clock.now())
        if known is None or known.is_allow:
            known = await self._ask_for_ruling(replace(subject, model=None))
            if known.reason is Reason.UPSTREAM_UNAUTHORIZED:
                return known.reason
            await self._write(replace(subject, model=None), known)
        return reason if known.reason is reason else Reason.UPSTREAM_REFUSED

    async def _write(self, subject: Subject, ruling: Ruling) -> bool:
        """Write the ruling; False when it was overtaken. Keys are added and removed in recorded changes."""
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
