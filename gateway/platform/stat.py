"""What the platform says of a key and a model: one question to its `stat`, and what the answer means.

    200 and an answer          it may have the model; `stat_answers.py` says what is one
    403, 404                   it may not; the one is as good as the other
    402, 423                   it has to pay, or is paused: of the key, or of this model, nobody knows yet
    401                        the platform does not know the key
    anything else              nothing was decided (I7)

Asked about no model, the question names one that cannot exist. Whoever is told that it does not is known;
and a 402 or 423 that comes even then does not depend on any model.

Keys go upstream in the Authorization header and nowhere else.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

from gateway.engine.faults import undecided
from gateway.engine.stat_answers import parse_stat
from gateway.model.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.access import Credential
    from gateway.model.names import ModelId

STAT_PATH = "/models/v1/external/stat"
QUESTION_SECONDS = 3.0  # whoever waits for an answer does so for four at most
MAYBE_OF_THE_KEY = frozenset({Reason.PAYMENT_REQUIRED, Reason.USAGE_PAUSED})


class Answered(Protocol):
    """`ProviderAnswer`, as far as it is read here."""

    @property
    def status(self) -> int:
        """A status that decides something."""

    @property
    def body(self) -> bytes:
        """What came with it."""


class Asker(Protocol):
    """`Provider`, as far as it is needed here."""

    async def ask(
        self,
        question_path: str,
        query: str,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        seconds: float,
        is_stranger: bool,
    ) -> Answered:
        """One question; raises `Unavailable` when nothing was decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The platform behind a provider."""

    provider: Asker

    async def say(
        self, credential: Credential, model: ModelId | None, *, is_stranger: bool = False
    ) -> Reason:
        """What it says: PERMITTED, or why not. Raises `Unavailable` when it says nothing.

        A stranger is somebody whose key is not known here: the provider may treat those otherwise.
        """
        query = urlencode({"modelId": model or f"no-such-model-{secrets.token_hex(16)}/1"})
        headers = [
            (b"authorization", b"Bearer " + credential.secret.encode("ascii")),
            (b"accept", b"application/json"),
            (b"user-agent", b"cachegate"),
        ]
        answer = await self.provider.ask(
            STAT_PATH, query, headers, seconds=QUESTION_SECONDS, is_stranger=is_stranger
        )
        match answer.status:
            case 200:
                parse_stat(answer.body)
                return Reason.PERMITTED
            case 401:
                return Reason.UPSTREAM_UNAUTHORIZED
            case 402:
                return Reason.PAYMENT_REQUIRED
            case 403 | 404:
                return Reason.UPSTREAM_REFUSED if model is not None else Reason.PERMITTED
            case 423:
                return Reason.USAGE_PAUSED
            case status:
                raise undecided(f"it answered with status {status}")
