"""The webhook of the platform: ends what the platform has said about keys and models.

    POST /hooks/v1/authority
    Cachegate-Signature: t=1767225600,v1=<hex>

    {"keys_sha256": ["<64 hex>", ...], "models": ["acme/cars/1", ...]}

Either list may be empty or left out; with both empty, everything is meant. Each named key and each named
model is ended for itself. The answer is 200 with the generation once no worker uses the ended verdicts any
more, and 503 while that is not sure: the platform then repeats the call, which it may do at any time.
`not_ours_to_end` in the answer counts the named keys that an operator has imported here: those stay valid
until the operator revokes them.

A hook has no key and no receipt: it is authenticated by the signature over its body, and can read nothing of
the cache. It is declared to the guard's middleware as a `HookRoute`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from gateway.identity.hook_signatures import verify_hook
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import parse_model_id
from gateway.model.routes import HookRoute

if TYPE_CHECKING:
    from gateway.model.access import WireRequest
    from gateway.platform.invalidation import Invalidation

AUTHORITY_PATH = b"/hooks/v1/authority"
SIGNATURE = b"cachegate-signature"
MAX_BODY_BYTES = 64 * 1024  # some 900 keys: a caller with more sends several calls, or ends everything
MAX_NAMED = 1_000  # keys and models: each becomes a fact, in one transaction; short names are many in a body

_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _RawEnding(msgspec.Struct, forbid_unknown_fields=True):
    keys_sha256: list[_Sha256] = []
    models: list[str] = []


_ENDINGS = msgspec.json.Decoder(_RawEnding)


def authority_hook(secret: bytes, invalidation: Invalidation) -> HookRoute:
    """The route of the webhook."""

    async def take(request: WireRequest, body: bytes) -> bytes:
        headers = [value for name, value in request.headers if name == SIGNATURE]
        verify_hook(secret, headers[0] if len(headers) == 1 else None, body, request.received_at)
        try:
            named = _ENDINGS.decode(body)
            _verify_count(named)
            models = [parse_model_id(model) for model in named.models]
        except (msgspec.DecodeError, UnicodeDecodeError, BadNameError) as error:
            raise Refusal(Reason.MALFORMED_BODY) from error
        keys = [bytes.fromhex(key) for key in named.keys_sha256]
        ended = await invalidation.end(keys, models)
        answer = {"generation": ended.generation, "not_ours_to_end": ended.not_ours}
        return msgspec.json.encode(answer) + b"\n"

    return HookRoute(
        template=AUTHORITY_PATH.decode(),
        methods=("POST",),
        max_body_bytes=MAX_BODY_BYTES,
        matches=lambda raw_path: raw_path == AUTHORITY_PATH,
        take=take,
    )


def _verify_count(named: _RawEnding) -> None:
    if len(named.keys_sha256) + len(named.models) > MAX_NAMED:
        raise BadNameError(f"a body names at most {MAX_NAMED} keys and models")
