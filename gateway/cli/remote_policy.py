"""What `cachegate policy` does through a running gateway: show the rules in force, send a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import read_trusted
from gateway.operations.policy_folder import PolicyView

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.adapters.admin_client import AdminClient
    from gateway.model.facts import PolicySet

MAX_FILE_BYTES = 1024 * 1024  # of a document; the gateway reads no more of a whole folder


def find_policy(gateway: AdminClient) -> PolicyView:
    """The rules in force."""
    return msgspec.convert(gateway.get("/policy"), type=PolicyView)


def folder_document(path: Path, policy_set: PolicySet) -> dict[str, Any]:
    """A folder, as a gateway is sent it: its texts. The gateway checks them anew, the cases included."""
    return {
        "schema": policy_set.schema,
        "policies": [{"file": file, "text": text} for file, text in policy_set.policies],
        **{part: _documents(path / part) for part in ("tenants", "issuers", "tests")},
    }


def _documents(folder: Path) -> list[dict[str, str]]:
    files = sorted(one for one in folder.glob("*.toml") if not one.name.startswith("."))
    try:
        return [
            {"file": one.name, "text": read_trusted(one, max_bytes=MAX_FILE_BYTES).decode()} for one in files
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(str(folder), f"cannot be read ({type(error).__name__})") from error
