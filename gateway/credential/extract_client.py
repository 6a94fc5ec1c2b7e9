"""Find the one API key of a request for a token, or refuse the request. Syntax only.

There are two ways to ask, and each has one place for the key:

    grant_type=urn:ietf:params:oauth:grant-type:token-exchange   RFC 8693: the key is `subject_token`
    grant_type=client_credentials                                RFC 6749, 4.4: the key is the client's secret
                                                                 of `Authorization: Basic`, its id the user

A key in any other place refuses the request, as everywhere: nothing here chooses between credentials. Basic
is understood on this route alone. A token is never taken for a key: it cannot be exchanged for another.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING

import msgspec

from gateway.credential.extract import KEY, names_a_key
from gateway.credential.forms import decode_field, parse_form
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model.access import WireRequest

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_CREDENTIALS = "client_credentials"
GRANT_TYPES = (CLIENT_CREDENTIALS, EXCHANGE)

API_KEY = "urn:cachegate:token-type:api-key"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- a type, no token
JWT = "urn:ietf:params:oauth:token-type:jwt"
_TOKEN_TYPES = frozenset({ACCESS_TOKEN, JWT})

_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]{1,8192}={0,2})")
_KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"proxy-authorization"})


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a token: whose, and the parameters that say which. `client_id` is a claim."""

    credential: Credential
    claimed_client_id: str | None
    form: Mapping[str, str]

    def __repr__(self) -> str:
        return shown(self, hidden=("credential", "form"))


def has_client(request: WireRequest) -> bool:
    """Whether the caller authenticates as a client, or in no way at all: that decides about its answers."""
    return request.header(b"authorization") is not None or b"subject_token" not in request.form


def parse_token_request(request: WireRequest) -> TokenRequest:
    """The request for a token. Raises `Refusal`."""
    if request.query:
        raise Refusal(Reason.KEY_IN_QUERY if names_a_key(request.query) else Reason.MALFORMED_QUERY)
    form = parse_form(request)
    client_id: str | None
    match form.get("grant_type"):
        case "client_credentials":
            client_id, secret = _client(request)
            if form.get("client_id", client_id) != client_id or not form.keys().isdisjoint(_KEYS_IN_FORMS):
                raise Refusal(Reason.CONFLICTING_CREDENTIALS)
        case "urn:ietf:params:oauth:grant-type:token-exchange":
            client_id, secret = form.get("client_id"), _subject(request, form)
        case _:
            raise Refusal(Reason.UNSUPPORTED_GRANT)
    if not KEY.fullmatch(secret.encode()):
        raise Refusal(Reason.MALFORMED_CREDENTIAL)
    credential = Credential(secret)
    if credential.is_token:
        raise Refusal(Reason.NOT_EXCHANGEABLE)
    return TokenRequest(credential=credential, claimed_client_id=client_id, form=form)


_KEYS_IN_FORMS = frozenset({"client_secret", "client_assertion", "subject_token", "actor_token"})


def _client(request: WireRequest) -> tuple[str, str]:
    """The client's id and its secret, each encoded as in a form (RFC 6749, 2.3.1)."""
    given = [(name, value) for name, value in request.headers if name in _KEY_HEADERS]
    if not given:
        raise Refusal(Reason.NO_CREDENTIAL)
    if len(given) != 1:
        raise Refusal(Reason.CONFLICTING_CREDENTIALS)
    match = _BASIC.fullmatch(given[0][1].strip(b" \t")) if given[0][0] == b"authorization" else None
    if match is None:
        raise Refusal(Reason.UNSUPPORTED_SCHEME)
    try:
        raw_id, colon, raw_secret = b64decode(match[1], validate=True).partition(b":")
    except ValueError:
        raise Refusal(Reason.MALFORMED_CREDENTIAL) from None
    if not (raw_id and colon and raw_secret):
        raise Refusal(Reason.NO_CREDENTIAL)
    try:
        return decode_field(raw_id), decode_field(raw_secret)
    except Refusal:
        raise Refusal(Reason.MALFORMED_CREDENTIAL) from None


def _subject(request: WireRequest, form: Mapping[str, str]) -> str:
    """The key that is to be exchanged."""
    others = form.keys() & (_KEYS_IN_FORMS - {"subject_token"})
    if others or any(name in _KEY_HEADERS for name, _ in request.headers):
        raise Refusal(Reason.CONFLICTING_CREDENTIALS)
    if form.get("subject_token_type") != API_KEY:
        is_named = "subject_token_type" in form
        raise Refusal(Reason.NOT_EXCHANGEABLE if is_named else Reason.MALFORMED_BODY)
    if form.get("requested_token_type", ACCESS_TOKEN) not in _TOKEN_TYPES:
        raise Refusal(Reason.MALFORMED_BODY)
    if "subject_token" not in form:
        raise Refusal(Reason.NO_CREDENTIAL)
    return form["subject_token"]
