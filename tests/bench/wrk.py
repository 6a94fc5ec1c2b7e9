"""Small reads: wrk on the load's core, connections that are kept, the next request after each answer."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from processes import cpu_seconds

if TYPE_CHECKING:
    from contender import Contender, Workload
    from equipment import Equipment

CONNECTIONS = 32
_REPORT = """
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\\nREPORT {"requests": %d, "us": %d, "bytes": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\\n',
        summary.requests, summary.duration, summary.bytes,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Reads:
    """What one round came to."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server, of each read


def read_small(equipment: Equipment, contender: Contender, workload: Workload, seconds: int) -> Reads:
    """Read for so long. Raises when one answer was not the file."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_REPORT)
        script.flush()
        arguments = [
            *(str(equipment.wrk), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name),
            *("-H", f"Authorization: Bearer {workload.token}", "-H", "Accept: */*"),
            f"http://127.0.0.1:{contender.port}{workload.small.path}",
        ]
        before = cpu_seconds(contender.roots)
        done = subprocess.run(
            arguments, env=equipment.environment, capture_output=True, text=True, check=False, cwd=Path("/")
        )
        used = cpu_seconds(contender.roots) - before
    if done.returncode != 0:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stderr}")
    told = json.loads(done.stdout.rpartition("REPORT ")[2])
    count = told["requests"]
    if told["failed"] or not count or told["bytes"] < count * workload.small.size:
        raise RuntimeError(f"{contender.title} gave answers that are not the file: {told}")
    return Reads(
        per_second=count / told["us"] * 1e6,
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        cpu_us=used / count * 1e6,
    )
