"""What all OCSF events have in common: class, time, origin, and the record that they are made of.

An event has only attributes that its class has (OCSF 1.6.0, with the profiles that it names), so that a SIEM
that validates takes it. What has no attribute is in `unmapped`, under the names of our records.

Nothing here fails for a record that parses, whatever its texts are: an address that is none becomes a name,
a digest that is none is left out, a time that is none becomes 0.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import IntEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway.audit.record import FIRST_WITH_TREES, encode, hash_of, split_hash

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import Record

OCSF_VERSION: Final = "1.6.0"
"""The newest that most products read; `metadata.version` of each event."""

PRODUCT: Final = "Cachegate"
SHA_256: Final = 3
MD5: Final = 1
OTHER: Final = 99
MAX_ADDRESS_CHARACTERS: Final = 40  # of OCSF's type for addresses

_DIGEST = re.compile(r"[0-9a-f]+")


class OcsfClass(IntEnum):
    """The classes that records become, by `class_uid`."""

    EVENT_LOG = 1008
    DETECTION = 2004
    ACCOUNT_CHANGE = 3001
    AUTHENTICATION = 3002
    ENTITY = 3004
    USER_ACCESS = 3005
    LIFECYCLE = 6002
    API = 6003


CLASS_NAMES: Final = {
    OcsfClass.EVENT_LOG: "Event Log Activity",
    OcsfClass.DETECTION: "Detection Finding",
    OcsfClass.ACCOUNT_CHANGE: "Account Change",
    OcsfClass.AUTHENTICATION: "Authentication",
    OcsfClass.ENTITY: "Entity Management",
    OcsfClass.USER_ACCESS: "User Access Management",
    OcsfClass.LIFECYCLE: "Application Lifecycle",
    OcsfClass.API: "API Activity",
}


class Severity(IntEnum):
    """How much a record says to whoever watches: `severity_id`."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


def event_of(
    record: Record,
    kind: str,
    line: bytes | None,
    of_class: OcsfClass,
    activity: int,
    *,
    severity: Severity = Severity.INFORMATIONAL,
    profiles: tuple[str, ...] = (),
    correlation: str | None = None,
    unmapped: dict[str, Any] | None = None,
    **attributes: Any,
) -> dict[str, Any]:
    """An event of this class. Attributes that are None or empty are left out."""
    moment = milliseconds_of(record.time)
    covered, digest = covered_by_hash(record, line)
    tenant = getattr(record, "tenant", None)
    metadata = present(
        version=OCSF_VERSION,
        product={"name": PRODUCT, "vendor_name": PRODUCT},
        uid=record.id,
        sequence=record.seq,
        log_name=record.chain,
        log_version=str(record.schema),
        event_code=kind,
        original_time=record.time,
        loggers=[{"name": record.node}],
        correlation_uid=correlation,
        tenant_uid=tenant,
        profiles=[*profiles],
    )
    own = present(
        kind=kind,
        chain=record.chain,
        seq=record.seq,
        prev=record.prev,
        hash=record.hash,
        tenant_record=getattr(record, "tenant_record", None),
        **(unmapped or {}),
    )
    return {
        "class_uid": int(of_class),
        "class_name": CLASS_NAMES[of_class],
        "category_uid": int(of_class) // 1000,
        "activity_id": activity,
        "type_uid": int(of_class) * 100 + activity,
        "severity_id": int(severity),
        "time": moment,
        "metadata": metadata,
        **present(**attributes),
        "unmapped": own,
        **present(raw_data=covered, raw_data_hash=_fingerprint(SHA_256, digest)),
    }


def covered_by_hash(record: Record, line: bytes | None) -> tuple[str | None, str | None]:
    """The bytes that the record's hash covers, as text, and that hash if it is of them.

    Without its line, a record of the current form is encoded anew, which gives the same bytes. One of
    version 1 has no canonical form: without its line its proof is lost, and nothing is returned.
    """
    if line is not None:
        try:
            covered, claimed_hash = split_hash(line.rstrip(b"\n"))
        except ValueError:
            return line.decode("utf-8", "replace"), None
    elif record.schema < FIRST_WITH_TREES:
        return None, None
    else:
        covered, claimed_hash = encode(replace(record, hash="")), record.hash
    is_right = hash_of(covered) == claimed_hash
    return covered.decode("utf-8", "replace"), claimed_hash if is_right else None


def present(**values: Any) -> dict[str, Any]:
    """These attributes, without those that are None or empty."""
    return {name: value for name, value in values.items() if value is not None and value not in ([], {}, ())}


def milliseconds_of(time: str) -> int:
    """A record's time as OCSF has it; 0 for a text that is no time."""
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0


def endpoint(address: str) -> dict[str, Any]:
    """The other side of a connection: an address, or a name where there is none, as of a Unix socket."""
    try:
        is_address = len(address) <= MAX_ADDRESS_CHARACTERS and "%" not in str(ip_address(address))
    except ValueError:
        is_address = False
    return {"ip": address} if is_address else {"name": address or "unknown"}


def fingerprints(**digests: str | None) -> list[dict[str, Any]]:
    """Digests by the name of their algorithm, `md5` or `sha256`."""
    algorithms = {"md5": MD5, "sha256": SHA_256}
    found = (_fingerprint(algorithms[name], digest) for name, digest in digests.items())
    return [one for one in found if one is not None]


def _fingerprint(algorithm: int, digest: str | None) -> dict[str, Any] | None:
    if digest is None or not _DIGEST.fullmatch(digest):
        return None
    return {"algorithm_id": algorithm, "value": digest}


def user_of(
    key_id: str | None,
    tenant: str | None,
    tenant_record: str | None = None,
    principal: str | None = None,
) -> dict[str, Any]:
    """A key as a user, with its tenant as organisation; `anonymous` where neither is known."""
    is_known = key_id is not None or tenant is not None
    return present(
        uid=key_id,
        name=None if is_known else "anonymous",
        type_id=_USER_TYPES.get(principal or "", 0),
        type=principal,
        account=None if key_id is not None or tenant is None else {"name": tenant},
        org=None if tenant is None else present(name=tenant, uid=tenant_record),
    )


_USER_TYPES = {"admin": 2, "tenant": 4, "link": 4, "token": 4, "binding": 1}
