"""`cachegate doctor`: check every setting and dependency, and say what is wrong and what to do.

It changes nothing; an embedded Valkey that is not running is started for the check and stopped again. It does
not stop at the first failure: each failure is a row, and so is each check that could not be made because of
it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.adapters.clock import SystemClock
from gateway.cli.distrust import Warnings
from gateway.configuration.sources import load_settings
from gateway.operations.doctor.audit import check_audit
from gateway.operations.doctor.cache import check_cache
from gateway.operations.doctor.facts import check_facts
from gateway.operations.doctor.findings import Level, fail
from gateway.operations.doctor.inference import INFERENCE_ENVIRONMENT, check_inference
from gateway.operations.doctor.machine import check_machine
from gateway.operations.doctor.state import check_state
from gateway.terminal.console import AsJson, Note, Table, show
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.configuration.settings import Settings
    from gateway.model.trusted_files import Distrusted
    from gateway.operations.doctor.findings import Finding


def doctor(as_json: AsJson = False) -> None:
    """Check every setting and dependency of the gateway. Exit status 1 when something has to be repaired."""
    warn = Warnings()
    settings = load_settings(on_distrust=warn)
    findings = [*settings_file(warn.found), *asyncio.run(examine(settings, SystemClock()))]
    is_ok = all(one.health is not Level.FAIL for one in findings)
    checks = [
        {"name": one.name, "status": one.health, "found": one.found, "advice": one.advice} for one in findings
    ]
    answer: dict[str, object] = {"ok": is_ok, "checks": checks}
    view = [*_shown(findings)]
    if settings.inference_url:
        answer["inference_environment"] = INFERENCE_ENVIRONMENT
        lines = (f"{name}={value}" for name, value in INFERENCE_ENVIRONMENT.items())
        view.append(Note("\nStart each inference server with:\n" + "\n".join(lines)))
    show(answer, view, as_json=as_json, is_yes=is_ok)


def settings_file(distrusted: Sequence[Distrusted]) -> list[Finding]:
    """Findings about settings files that others could have written. Only doctor goes on with such files."""
    return [fail("settings file", str(one), "see there") for one in distrusted]


async def examine(settings: Settings, clock: SystemClock) -> list[Finding]:
    """All findings, in the order in which an operator would check."""
    now = clock.now()
    facts = await check_facts(settings, clock)
    return [
        *check_machine(settings, now),
        *check_state(settings),
        *facts.findings,
        *check_cache(settings, facts.known_models, clock),
        *check_audit(settings),
        *await check_inference(settings),
    ]


def _shown(findings: list[Finding]) -> Iterator[Table | Note]:
    rows = [
        (
            one.name,
            one.health.upper() if one.health is Level.FAIL else one.health,
            escape_controls(one.found),
            one.advice,
        )
        for one in findings
    ]
    yield Table("Doctor", ("check", "", "found", "what to do"), rows)
    counts = {health: sum(one.health is health for one in findings) for health in Level}
    style = "red" if counts[Level.FAIL] else "yellow" if counts[Level.WARNING] else "green"
    yield Note(", ".join(f"{count} {health}" for health, count in counts.items()), f"bold {style}")
