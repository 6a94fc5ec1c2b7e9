"""Where a worker's time goes: the stages of a request in microseconds (`delivery.py --stages`).

A worker on its core answers one set of requests after the other, as when it is compared, and samples which
functions it is in (`sampled_worker/sitecustomize.py`). A sample belongs to the innermost function that
`STAGES` names; so what a helper takes counts for the stage that called it, and what nobody names is
`the rest`. A stage's share of the samples is its share of the CPU time that a request takes when nothing
samples.

`STAGES` is the one thing here that knows the gateway's modules. Adapt it when they change: the rows of
the functions with the most samples, each with the stage to which it counts, show what is not named yet.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from client_requests import request_sets
from equipment import equip
from installation import Installation
from ours import SETTINGS, Sizes, furnish, serving_ours, worker_pids
from processes import LOAD_CORE, cpu_seconds
from wrk import send_requests

import gateway

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from report import Report

REST = "the rest"
STAGES: dict[str, tuple[str, ...]] = {
    # Modules below `gateway/`, or `module:function` with the function's qualified name or the end of it. The
    # first that names a function counts, so the more exact come first.
    "last check and write": (
        "guard.py:Guard.confirm",
        "server/exchange.py",
        "server/file_sender.py",
        "server/file_span.py",
        "server/head_starts.py",
        "server/kernel_queue.py",
        "server/protocol.py:answer",
        "server/send_queue.py",
        "delivery/",
        "faces/",
        "problems.py",
        "middleware/at_once.py:_has_delivered",
        "middleware/at_once.py:_decline",
        "middleware/at_once.py:_made",
        "middleware/at_once.py:_write",
        "middleware/client_end.py",
        "middleware/sending.py",
    ),
    "record and outcome": (
        "audit/",
        "guard.py:Guard._record",
        "guard.py:Guard.record_all",
        "guard.py:Guard.decline",
        "middleware/at_once.py:_finish",
        "middleware/guard.py:_close",
        "middleware/meter.py",
        "telemetry.py",
        "transfers.py",
    ),
    "looks at the disk": ("authorized_files.py", "pinning/", "resource/"),
    "decision": (
        "decision/",
        "decisions.py",
        "directory/",
        "engine/",
        "guard.py:Guard._recall",
        "model_metadata/",
        "platform/confirmation.py",
    ),
    "credential and caller": (
        "caller_views.py",
        "credential/",
        "guard.py:_extract",
        "identity/",
        "platform/",
    ),
    "read and parse": (
        "middleware/at_once.py:_read",
        "middleware/guard.py:_read",
        "middleware/routes.py",
        "middleware/shape.py",
        "middleware/trace.py",
        "server/connection.py",
        "server/early_refusal.py",
        "server/flow.py",
        "server/protocol.py",
        "server/request_form.py",
    ),
}
MOST_FUNCTIONS = 12
WARM_SECONDS, WAIT_SECONDS = 0.5, 20.0
SMALL = Sizes(large=1 << 20)  # no large file is asked for
_ROOT = str(Path(gateway.__file__).parent) + os.sep
_SAMPLER = Path(__file__).parent / "sampled_worker" / "sitecustomize.py"


def stage_of(stack: Iterable[Sequence[str]]) -> str:
    """The stage of a sample, whose functions come from the innermost to the outermost."""
    for file, function in stack:
        if not file.startswith(_ROOT):
            continue
        module = file.removeprefix(_ROOT)
        for stage, named in STAGES.items():
            if any(_is_named(module, function, one) for one in named):
                return stage
    return REST


def _is_named(module: str, function: str, named: str) -> bool:
    place, _, wanted = named.partition(":")
    is_module = module.startswith(place) if place.endswith("/") else module == place
    return is_module and function.endswith(wanted)


def measure_stages(report: Report, names: Sequence[str], seconds: float) -> None:
    """A row for each stage of each of these sets of requests."""
    equipment = equip()
    os.sched_setaffinity(0, (LOAD_CORE,))
    with (
        tempfile.TemporaryDirectory(prefix="cg-stages-") as folder,
        Installation.made(
            **SETTINGS, PYTHONPATH=os.pathsep.join((folder, str(Path(_ROOT).parent)))
        ) as installation,
    ):
        shutil.copy(_SAMPLER, folder)
        place = Path(folder) / "samples.json"
        furnished = asyncio.run(furnish(installation, SMALL))
        with serving_ours(installation, furnished) as serving:
            ours, sets = serving.contender, request_sets(serving.workload)
            [worker] = worker_pids(ours)
            for name in names:
                if name not in sets:
                    continue
                sent = sets[name]
                ours.verify(sent)
                send_requests(equipment, ours, sent, WARM_SECONDS)
                before = cpu_seconds((worker,))
                reads = send_requests(equipment, ours, sent, seconds)  # not sampled
                cpu_us = (cpu_seconds((worker,)) - before) / reads.count * 1e6
                os.kill(worker, signal.SIGUSR1)
                send_requests(equipment, ours, sent, seconds)
                os.kill(worker, signal.SIGUSR2)
                _add_rows(report, name, sent.title, _sampled(place), cpu_us)


def _sampled(place: Path) -> list[tuple[int, list[tuple[str, str]]]]:
    deadline = time.monotonic() + WAIT_SECONDS
    while not place.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker wrote no samples")
        time.sleep(0.05)
    told = json.loads(place.read_text())
    place.unlink()
    return [(count, [(file, function) for file, function in stack]) for count, stack in told]


def _add_rows(
    report: Report, name: str, title: str, sampled: list[tuple[int, list[tuple[str, str]]]], cpu_us: float
) -> None:
    total = sum(count for count, _ in sampled)
    stages: Counter[str] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    for count, stack in sampled:
        stage = stage_of(stack)
        stages[stage] += count
        functions[stage, _shown(stack[0])] += count
    report.row(f"stages_{name}_us", cpu_us, f"{title}: CPU of the worker for each, from {total:,} samples")
    for stage in (*reversed(STAGES), REST):
        share = stages[stage] / total
        report.row(f"stages_{name}_{stage.replace(' ', '_')}_us", share * cpu_us, f"{share:.0%}")
    for (stage, function), count in functions.most_common(MOST_FUNCTIONS):
        report.row(f"stages_{name}_function_us", count / total * cpu_us, f"{function}: {stage}")


def _shown(function: tuple[str, str]) -> str:
    """A function, without the folders above the package that it is in."""
    file, name = function
    short = file.removeprefix(_ROOT) if file.startswith(_ROOT) else "/".join(Path(file).parts[-2:])
    return f"{short}:{name}"
