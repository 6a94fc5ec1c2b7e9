"""The ids of tenant records: what tells a tenant from a later one of the same name.

A record gets its id when it is made, and keeps it for ever. What belongs to a tenant (keys, bindings, grants,
owned patterns) names the id beside the tenant's name, and counts only where both are those of the record that
there is now. So a tenant that is made later under the same name inherits nothing.

Records of releases before these ids have none, and neither has what belonged to them: None belongs to None.
Every record that is made now has an id, so nothing that has none belongs to it.
"""

from __future__ import annotations

import re
import secrets
import string
from typing import NewType

from gateway.model.errors import BadNameError

TenantRecordId = NewType("TenantRecordId", str)

RECORD_PREFIX = "ten_"
RECORD_CHARACTERS = 12  # 71 bits: two tenants of one name have never the same
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RECORD = re.compile(rf"{RECORD_PREFIX}[0-9A-Za-z]{{{RECORD_CHARACTERS}}}")


def new_record_id() -> TenantRecordId:
    """The id of a record that is about to be made."""
    return TenantRecordId(RECORD_PREFIX + "".join(secrets.choice(_BASE62) for _ in range(RECORD_CHARACTERS)))


def parse_tenant_record_id(text: str) -> TenantRecordId:
    """A record id as `tenants show` prints it."""
    if not _RECORD.fullmatch(text):
        raise BadNameError(
            "not the id of a tenant's record: expected ten_ and 12 letters or digits "
            "(`cachegate tenants show`)"
        )
    return TenantRecordId(text)
