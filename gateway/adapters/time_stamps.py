"""Gets time stamps of an authority, and verifies them (RFC 3161).

The authority sees a digest, and nothing else. Its answer is of a bounded size and comes in a bounded time; no
redirect is followed, and proxy settings and cookies of the environment are ignored. A stamp counts when it
is over our digest, has our nonce, and leads to a root certificate that the operator gave: what the authority
says of itself counts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from gateway.model.errors import Misconfigured, Reason, Unavailable

if TYPE_CHECKING:
    from datetime import datetime

STAMP_SECONDS = 10.0
MAX_STAMP_BYTES = 64 << 10
_OK = 200
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"


def load_roots(pem: bytes, where: str) -> list[x509.Certificate]:
    """The root certificates of a PEM file. Raises `Misconfigured`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise Misconfigured(where, "holds no PEM certificate; give the authority's root") from error


def fetch_stamp(url: str, message: bytes, roots: list[x509.Certificate]) -> tuple[bytes, datetime]:
    """A stamp of this message by the authority at this URL, verified, and its time. Raises `Unavailable`."""
    request = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
    try:
        raw = _post(url, request.as_bytes())
        return raw, verify_stamp(raw, message, roots, nonce=request.nonce)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise Unavailable("time-stamp authority", f"{url} gave no stamp ({why})", Reason.NO_AUDIT) from error


def verify_stamp(
    raw: bytes, message: bytes, roots: list[x509.Certificate], *, nonce: int | None = None
) -> datetime:
    """The time of a stamp over this message, by these roots. Raises `ValueError`."""
    builder = VerifierBuilder(roots=list(roots), nonce=nonce)
    try:
        response = decode_timestamp_response(raw)
        builder.build().verify_message(response, message)
    except VerificationError as error:
        raise ValueError(str(error)) from error
    return response.tst_info.gen_time


def _post(url: str, body: bytes) -> bytes:
    with (
        httpx.Client(timeout=STAMP_SECONDS, follow_redirects=False, trust_env=False) as client,
        client.stream(
            "POST", url, content=body, headers={"content-type": _QUERY, "accept": _REPLY}
        ) as answer,
    ):
        if answer.status_code != _OK:
            raise ValueError(f"status {answer.status_code}")
        received = b""
        for piece in answer.iter_raw(MAX_STAMP_BYTES):
            received += piece
            if len(received) > MAX_STAMP_BYTES:
                raise ValueError(f"an answer of more than {MAX_STAMP_BYTES} bytes")
        return received
