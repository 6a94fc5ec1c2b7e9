"""Add, list and remove the consumers of this node's log, each recorded in the log itself.

Who gets the log matters as much as who reads a model: a record names each consumer that was added or removed,
before anything is delivered. Targets and files are checked when they are named, so that a mistake is an error
of the command and not a line in a log later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapters.push_client import PushClient
from gateway.adapters.syslog_connection import SyslogConnection
from gateway.assembly.components import build_recorder
from gateway.audit.consumers.push import parse_secrets
from gateway.audit.consumers.registry import ConsumerRegistry, verify_consumer_name
from gateway.audit.consumers.syslog import LEAST_MESSAGE_BYTES, MOST_MESSAGE_BYTES
from gateway.audit.index import IndexReader, encode_cursor
from gateway.audit.record import ExportRecord
from gateway.audit.timeline import time_text
from gateway.model.errors import BadNameError, Conflict, Misconfigured, Reason, Unavailable
from gateway.model.trusted_files import make_own_folder
from gateway.operations.audit_consumers import STREAM_NAME, load_secrets

if TYPE_CHECKING:
    from gateway.audit.consumers.registry import Consumer, Kind, Registration
    from gateway.configuration.settings import Settings
    from gateway.model.clocks import Clock

SECRETS_NAME = "consumers"  # below the state folder
WELL_BEFORE_SECONDS = 60.0  # records of the last moment may not be in order yet
_MOST_PORT, _MOST_FACILITY = 65_535, 23
_LARGEST_MESSAGE = 1 << 20


class ConsumerRegistrations:
    """The registrations of one installation."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._registry = ConsumerRegistry(settings.audit_folder)

    def load_all(self) -> tuple[list[Consumer], list[str]]:
        """All consumers, and the names of those whose files do not parse."""
        return self._registry.load_all(), self._registry.damaged()

    def add_push(
        self,
        name: str,
        url: str,
        *,
        secret_file: Path | None,
        secret: bytes | None,
        ca_file: Path | None,
        is_plain: bool,
        is_from_start: bool,
    ) -> Registration:
        """Add a target of HTTP push. The secret is in a file, or is stored in one of ours."""
        self._verify_new(name)
        ca_file = _absolute(ca_file)
        PushClient(url, ca_file=ca_file, may_be_plain=is_plain)
        if (secret_file is None) == (secret is None):
            raise Misconfigured("--secret-file", "name a file with the secret, or `-` for standard input")
        path = self._store_secret(name, secret) if secret is not None else _absolute(secret_file) or Path()
        load_secrets(path)
        options = {"url": url, "secret_file": str(path)}
        options |= {"plain": "yes"} if is_plain else {}
        options |= {} if ca_file is None else {"ca_file": str(ca_file)}
        return self._add(name, "push", options, is_from_start=is_from_start)

    def add_syslog(
        self,
        name: str,
        address: str,
        *,
        ca_file: Path | None,
        certificate_file: Path | None,
        key_file: Path | None,
        facility: int,
        max_bytes: int,
        is_from_start: bool,
    ) -> Registration:
        """Add a receiver of syslog over TLS, as HOST:PORT."""
        self._verify_new(name)
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST_PORT):
            raise Misconfigured("--address", f"{address!r} is not HOST:PORT, such as logs.example:6514")
        if not 0 <= facility <= _MOST_FACILITY:
            raise Misconfigured("--facility", f"{facility} is none; expected 0 to {_MOST_FACILITY}")
        if not LEAST_MESSAGE_BYTES <= max_bytes <= _LARGEST_MESSAGE:
            raise Misconfigured("--max-bytes", f"expected {LEAST_MESSAGE_BYTES} to {_LARGEST_MESSAGE}")
        files = {
            "ca_file": _absolute(ca_file),
            "certificate_file": _absolute(certificate_file),
            "key_file": _absolute(key_file),
        }
        SyslogConnection(
            host,
            int(port),
            ca_file=files["ca_file"],
            certificate_file=files["certificate_file"],
            key_file=files["key_file"],
        )
        options = {"host": host, "port": str(int(port)), "facility": str(facility)}
        options |= {} if max_bytes == MOST_MESSAGE_BYTES else {"max_bytes": str(max_bytes)}
        options |= {key: str(path) for key, path in files.items() if path is not None}
        return self._add(name, "syslog", options, is_from_start=is_from_start)

    def remove(self, name: str) -> None:
        """Remove a consumer, and the secret that is stored for it."""
        verify_consumer_name(name)
        if name == STREAM_NAME and self._settings.audit_stream:
            raise Conflict("the stream is switched on by CACHEGATE_AUDIT_STREAM; switch it off there")
        self._registry.remove(name)
        self._secret_path(name).unlink(missing_ok=True)
        self._note(name, "removed")

    def _verify_new(self, name: str) -> None:
        verify_consumer_name(name)
        if name == STREAM_NAME:
            raise BadNameError(f"{STREAM_NAME} is the name of the stream in Redis; take another one")
        if self._registry.find(name) is not None:
            raise Conflict(f"there is a consumer {name} already; remove it first, or take another name")

    def _add(self, name: str, kind: Kind, options: dict[str, str], *, is_from_start: bool) -> Registration:
        folder, now = self._settings.audit_folder, self._clock.now()
        self._note(name, "added")
        if is_from_start:
            return self._registry.add(name, kind, options, now=time_text(now))
        return self._registry.add(
            name,
            kind,
            options,
            now=time_text(now),
            cursor=encode_cursor(IndexReader(folder, self._settings.node).end()),
            has_before=time_text(now - WELL_BEFORE_SECONDS),
        )

    def _note(self, name: str, state: str) -> None:
        log = build_recorder(self._settings, self._clock)
        try:
            log.note(ExportRecord, target=name, state=state)
        finally:
            log.close()

    def _secret_path(self, name: str) -> Path:
        return self._settings.state.absolute() / SECRETS_NAME / f"{name}.secret"

    def _store_secret(self, name: str, secret: bytes) -> Path:
        parse_secrets(secret)
        path = self._secret_path(name)
        try:
            make_own_folder(path.parent)
            path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(
                "state", f"{path} cannot be written ({error.strerror})", Reason.NO_AUDIT
            ) from error
        return path


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
