"""Doctor, the audit log: whether the next record can be written, and whether the newest chain verifies.

A quick check: the newest segment of the newest chain only. `cachegate audit verify` verifies the whole log.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from gateway.assembly.signing import load_own_keys
from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.folder import (
    HEADS_NAME,
    PUBLIC_KEY_NAME,
    chain_started,
    group_segments,
    verify_own,
    verify_writable,
)
from gateway.audit.index.reader import unindexed_bytes
from gateway.audit.keeping.needs import read_needs
from gateway.audit.keeping.stored import take_inventory
from gateway.audit.verify import verify
from gateway.operations.doctor.findings import fail, ok, run_check, warning

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings
    from gateway.operations.doctor.findings import Finding

MIB = 1024 * 1024
FULL_BYTES, LOW_BYTES = 64 * MIB, 1024 * MIB  # a full segment; about a million records


def check_audit(settings: Settings) -> list[Finding]:
    """All findings about the audit log."""
    if settings.audit_folder.exists() and not settings.audit_folder.is_dir():
        return [fail("audit folder", f"{settings.audit_folder} is not a folder", "set CACHEGATE_AUDIT_DIR")]
    if not settings.audit_folder.is_dir():
        found = f"{settings.audit_folder} is not there yet"
        return [warning("audit folder", found, "the first record makes it; `cachegate init` writes one")]
    return [
        run_check("audit folder", lambda: check_folder(settings)),
        run_check("audit space", lambda: judge_space(shutil.disk_usage(settings.audit_folder).free)),
        run_check("audit log", lambda: describe_log(settings)),
        run_check("audit chain", lambda: check_last_chain(settings)),
        run_check("audit consumers", lambda: judge_consumers(settings)),
        run_check("audit index", lambda: check_index(settings)),
    ]


def check_folder(settings: Settings) -> Finding:
    """The folder is ours and writable: what cannot be recorded is not served (I5)."""
    verify_own(settings.audit_folder)
    verify_writable(settings.audit_folder)
    found = f"{settings.audit_folder} is writable, durability {settings.audit_durability.value}"
    return ok("audit folder", found)


def judge_space(free_bytes: int) -> Finding:
    """Free space: with a full disk nothing is recorded, so nothing is served."""
    found = f"{free_bytes // MIB} MiB free"
    advice = "make room, or move the audit folder: without it nothing is served"
    if free_bytes < FULL_BYTES:
        return fail("audit space", found, advice)
    return warning("audit space", found, advice) if free_bytes < LOW_BYTES else ok("audit space", found)


def describe_log(settings: Settings) -> Finding:
    """How large the log is and how old, and what is going to be removed."""
    inventory = take_inventory(settings.audit_folder)
    packed = sum(one.is_packed for one in inventory.segments)
    found = (
        f"{len(inventory.segments)} segments ({packed} packed), {inventory.bytes // MIB} MiB, "
        f"the oldest record of {inventory.oldest() or 'no time'}; {_kept_to(settings)}"
    )
    consumers = read_needs(settings.audit_folder)
    return ok("audit log", f"{found}; consumers: {', '.join(consumers)}" if consumers else found)


def judge_consumers(settings: Settings) -> Finding:
    """Whether each consumer gets its records: nothing waits for them, so nobody else notices."""
    name, registry = "audit consumers", ConsumerRegistry(settings.audit_folder)
    damaged, found = registry.damaged(), registry.load_all()
    if damaged:
        why = f"the registration of {', '.join(damaged)} does not parse: it gets nothing"
        return fail(name, why, "`cachegate audit consumers remove`, then `add`")
    hindered = [one for one in found if one.progress.state in {"failing", "paused"}]
    if hindered:
        said = [f"{one.registration.name} ({one.progress.state}): {one.progress.error}" for one in hindered]
        return warning(name, "; ".join(said), "docs/operators/audit-delivery.md says what each state means")
    if not found:
        return ok(name, "none")
    shown = [f"{one.registration.name} ({one.registration.kind}, {one.progress.state})" for one in found]
    return ok(name, ", ".join(shown))


def check_index(settings: Settings) -> Finding:
    """How far the index is behind. It is made anew when it is missing, so it is never a failure."""
    name, behind = "audit index", unindexed_bytes(settings.audit_folder)
    if behind <= FULL_BYTES:
        return ok(name, f"{behind // 1024} KiB of the log are not in it yet")
    advice = "a server indexes them by itself, and `cachegate audit search` does it now"
    return warning(name, f"{behind // MIB} MiB of the log are not in it yet", advice)


def _kept_to(settings: Settings) -> str:
    bounds = [f"{settings.audit_keep_days} days"] if settings.audit_keep_days else []
    bounds += [f"{settings.audit_keep_gigabytes} GiB"] if settings.audit_keep_gigabytes else []
    return f"kept for {' or '.join(bounds)}" if bounds else "nothing is removed"


def check_last_chain(settings: Settings) -> Finding:
    """Verify the newest segment of the newest chain, with the signed heads."""
    name, folder = "audit chain", settings.audit_folder
    chains = group_segments(folder.iterdir())
    if not chains:
        return warning(name, "there is no chain yet", "nothing was recorded here so far")
    newest = max(chains, key=lambda chain: chain_started(chain) or 0.0)
    head_files = [path for path in (folder / HEADS_NAME, folder / PUBLIC_KEY_NAME) if path.exists()]
    keys = load_own_keys(settings.signing_key_file)
    report = verify([chains[newest][-1][1], *head_files], trusted_keys=keys)
    fault = report.chains[0].fault
    if fault is not None:
        found = f"{fault.file}, line {fault.line}: {fault.damage}: {fault.why}"
        return fail(name, found, "run `cachegate audit verify`, and keep a copy of the folder as it is")
    if report.problems:
        return fail(name, "; ".join(report.problems), "run `cachegate audit verify`")
    return ok(name, f"{newest}: {report.records} records of its last segment hold")
