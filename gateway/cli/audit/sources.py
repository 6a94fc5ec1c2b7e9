"""Where commands read audit records, and which public keys they trust there.

Without paths it is the settings' folder, and the key is that of this installation, as for `audit verify`. A
copy carries its own `signing.pub`; a key that the auditor has is better (`--public-key`). Each node keeps its
own records, so the commands always state which chains of which nodes were searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.assembly.signing import load_own_keys
from gateway.audit.events import survey
from gateway.audit.folder import PUBLIC_KEY_NAME, verify_is_folder
from gateway.audit.head import fingerprint, parse_public_keys
from gateway.audit.key_changes import KEY_CHANGES_NAME, follow, load_changes
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.terminal.console import Note, say
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.cli.distrust import Warnings
    from gateway.configuration.settings import Settings


class Sources(msgspec.Struct, frozen=True):
    """Audit folders, and files from such folders."""

    paths: tuple[Path, ...]
    settings: Settings | None
    warn: Warnings  # called for files that others could have written
    trusted: tuple[Ed25519PublicKey, ...] = ()

    @classmethod
    def of(
        cls, paths: Sequence[Path] | None, warn: Warnings, trusted: Sequence[Ed25519PublicKey] = ()
    ) -> Sources:
        """The paths that a command was given; the settings' folder if none."""
        settings = find_settings(warn, is_needed=not paths)
        verify_there(paths or ())
        if not paths and settings is not None:
            verify_is_folder(settings.audit_folder)
            warn.look_at(settings.audit_folder)
            paths = [settings.audit_folder]
        return cls(tuple(paths or ()), settings, warn, tuple(trusted))

    @property
    def words(self) -> str:
        """The paths, for people."""
        return ", ".join(map(str, self.paths))

    def keys(self, folder: Path) -> Mapping[str, Ed25519PublicKey]:
        """The public keys whose heads of a folder count; empty when there are none."""
        if self.trusted:
            return self._followed(folder, {fingerprint(key): key for key in self.trusted})
        try:
            if self.settings is not None and folder.resolve() == self.settings.audit_folder.resolve():
                own = load_own_keys(self.settings.signing_key_file, on_distrust=self.warn)
                return {fingerprint(key): key for key in own}
            path = folder / PUBLIC_KEY_NAME
            return parse_public_keys(path.read_bytes(), str(path))
        except (Misconfigured, OSError):
            why = "no public key can be read there, so every record of it is shown as not proven"
            say(f"{escape_controls(folder)}: {why}", style="yellow")
            return {}

    def _followed(self, folder: Path, keys: Mapping[str, Ed25519PublicKey]) -> Mapping[str, Ed25519PublicKey]:
        """These keys, and those that replaced them."""
        try:
            return follow(keys, load_changes(folder / KEY_CHANGES_NAME))
        except (OSError, ValueError) as error:
            say(f"{escape_controls(f'{folder / KEY_CHANGES_NAME}: {error}')}", style="yellow")
            return keys


def searched_note(sources: Sources) -> Note:
    """Which chains of which nodes were searched: other nodes keep their own records."""
    found = survey(sources.paths)
    where = escape_controls(sources.words)
    chains = "1 chain" if found.chains == 1 else f"{found.chains} chains"
    nodes = ", ".join(map(escape_controls, found.nodes))
    match len(found.nodes):
        case 0:
            return Note(f"Nothing to search in {where}: it holds no chain.", "yellow")
        case 1:
            return Note(
                f"Searched {chains} of the node {nodes} in {where}. Other nodes keep their own records."
            )
        case count:
            return Note(f"Searched {chains} of {count} nodes ({nodes}) in {where}.")


def verify_there(paths: Sequence[Path]) -> None:
    """Raises `Misconfigured` for a path that does not exist."""
    for path in paths:
        if not path.exists():
            raise Misconfigured(str(path), "is not there; name an audit folder or files of one")


def find_settings(warn: Warnings, *, is_needed: bool) -> Settings | None:
    """The settings; None when they are invalid and only copies are read, which need none."""
    try:
        return load_settings(on_distrust=warn)
    except Misconfigured:
        if is_needed:
            raise
        return None


def load_trusted(public_key: Path | None, warn: Warnings) -> list[Ed25519PublicKey]:
    """The public keys in the file that a command was given; none if it was given none."""
    if public_key is None:
        return []
    warn.look_at(public_key)
    try:
        pem = public_key.read_bytes()
    except OSError as error:
        raise Misconfigured(str(public_key), f"cannot be read ({error.strerror})") from error
    return list(parse_public_keys(pem, str(public_key)).values())
