"""Ask the platform's `stat` endpoint about a key and a model, and interpret the answer.

    200 and an answer          it may have the model; `engine/stat_answers.py` says what is one
    403, 404                   it may not; both mean the same
    402, 423                   it has to pay, or is paused: whether the key or this model is not known yet
    401                        the platform does not know the key
    anything else              nothing was decided (I7)

To ask about a key alone, the request names a model that cannot exist. If the answer is that it does not
exist, the key is known; a 402 or 423 then does not depend on any model.

Keys are sent upstream in the Authorization header and nowhere else.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from gateway.engine.faults import undecided
from gateway.engine.stat_answers import parse_stat
from gateway.model.errors import Reason

if TYPE_CHECKING:
    from gateway.adapters.provider import Provider
    from gateway.model.access import Credential
    from gateway.model.names import ModelId

STAT_PATH = "/models/v1/external/stat"
QUESTION_SECONDS = 3.0  # a request waits for the answer for four seconds at most
MAYBE_OF_THE_KEY = frozenset({Reason.PAYMENT_REQUIRED, Reason.USAGE_PAUSED})


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """The platform behind a provider."""

    provider: Provider

    async def ask(
        self, credential: Credential, model: ModelId | None, *, is_unknown_key: bool = False
    ) -> Reason:
        """Ask whether the key may have the model: PERMITTED, or why not.

        Raises `Unavailable` when the platform does not decide.

        `is_unknown_key`: the key is not known here. The provider client may treat such requests differently.
        """
        query = urlencode({"modelId": model or f"no-such-model-{secrets.token_hex(16)}/1"})
        headers = [
            (b"authorization", b"Bearer " + credential.secret.encode("ascii")),
            (b"accept", b"application/json"),
            (b"user-agent", b"cachegate"),
        ]
        answer = await self.provider.ask(
            STAT_PATH, query, headers, seconds=QUESTION_SECONDS, is_unknown_key=is_unknown_key
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
