"""`cachegate doctor`: check every setting and dependency, and say what is wrong and what to do.

It changes nothing; an embedded Valkey that is not running is started for the check and stopped again. It does
not stop at the first failure: each failure is a row, and so is each check that could not be made because of
it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from gateway.adapters.clock import SystemClock
from gateway.cli.distrust import Warnings
from gateway.configuration.sources import load_settings
from gateway.operations.doctor.audit import look_at_audit
from gateway.operations.doctor.cache import look_at_cache
from gateway.operations.doctor.facts import look_at_facts
from gateway.operations.doctor.findings import Level, fail
from gateway.operations.doctor.machine import look_at_machine
from gateway.operations.doctor.state import look_at_state
from gateway.terminal.console import AsJson, print_json, print_table, say
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.configuration.settings import Settings
    from gateway.model.trusted_files import Distrusted
    from gateway.operations.doctor.findings import Finding


def doctor(as_json: AsJson = False) -> None:
    """Check every setting and dependency of the gateway. Exit status 1 when something has to be repaired."""
    warn = Warnings()
    settings = load_settings(on_distrust=warn)
    findings = [*settings_file(warn.found), *asyncio.run(examine(settings, SystemClock()))]
    has_failed = any(one.health is Level.FAIL for one in findings)
    if as_json:
        print_json({"ok": not has_failed, "checks": [_plain(one) for one in findings]})
    else:
        _print(findings)
    raise typer.Exit(1 if has_failed else 0)


def settings_file(distrusted: Sequence[Distrusted]) -> list[Finding]:
    """Findings about settings files that others could have written. Only doctor goes on with such files."""
    return [fail("settings file", str(one), "see there") for one in distrusted]


async def examine(settings: Settings, clock: SystemClock) -> list[Finding]:
    """All findings, in the order in which an operator would check."""
    now = clock.now()
    facts = await look_at_facts(settings, clock)
    return [
        *look_at_machine(settings, now),
        *look_at_state(settings),
        *facts.findings,
        *look_at_cache(settings, facts.known_models, clock),
        *look_at_audit(settings),
    ]


def _print(findings: list[Finding]) -> None:
    rows = [
        (
            one.name,
            one.health.upper() if one.health is Level.FAIL else one.health,
            escape_controls(one.found),
            one.advice,
        )
        for one in findings
    ]
    print_table("Doctor", ("check", "", "found", "what to do"), rows, "")
    counts = {health: sum(one.health is health for one in findings) for health in Level}
    style = "red" if counts[Level.FAIL] else "yellow" if counts[Level.WARNING] else "green"
    say(", ".join(f"{count} {health}" for health, count in counts.items()), style=f"bold {style}")


def _plain(finding: Finding) -> dict[str, str]:
    return {
        "name": finding.name,
        "status": finding.health.value,
        "found": finding.found,
        "advice": finding.advice,
    }
