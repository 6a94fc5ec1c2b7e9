"""Small requests: connections that are kept, the next request after each answer, on the load's core.

wrk sends them from a Lua script that holds all requests of a set as text. It cannot take an answer that
announces a length and has no body, as one to HEAD and a 304 do: those are sent by `bodiless.py`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from bodiless import send_for
from client_requests import FRESH_NAME, FRESH_TRACE, HEADERS_BYTES
from processes import cpu_seconds
from report import console

if TYPE_CHECKING:
    from client_requests import RequestSet
    from contender import Contender
    from equipment import Equipment

CONNECTIONS = 32
MOST_SECONDS = 600
LONGER = (1, 4)  # times as long, in the first turn and in those that repeat it
_SCRIPT = r"""
local heads, tails, kinds = {}, {}, {}
%(requests)s
local count, at, random = #heads, 0, math.random
math.randomseed(%(seed)d)
local function r() return random(0, 2147483647) end
request = function()
    at = at %% count + 1
    local kind = kinds[at]
    if kind == 0 then return heads[at] end
    if kind == 1 then
        return heads[at]
            .. string.format("00-%%08x%%08x%%08x%%08x-%%08x%%08x-01", r(), r(), r(), r(), r(), r())
            .. tails[at]
    end
    return heads[at] .. string.format("%%08x%%08x", r(), r()) .. tails[at]
end
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\nREPORT {"requests": %%d, "us": %%d, "bytes": %%d, "failed": %%d, "status": %%d, '
            .. '"p50_us": %%d, "p99_us": %%d}\n',
        summary.requests, summary.duration, summary.bytes,
        errors.connect + errors.read + errors.write + errors.timeout, errors.status,
        latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Reads:
    """What one round came to."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server, of each request
    count: int


class WrongAnswersError(RuntimeError):
    """Answers that cannot all be the expected ones, or none at all."""


def send_requests(equipment: Equipment, contender: Contender, sent: RequestSet, seconds: float) -> Reads:
    """Send them for so long. Raises `WrongAnswersError`.

    A turn is repeated, for longer, when its answers are wrong: on a machine that other work takes for itself,
    a short turn may see no answer, and a worker that could not run for a second answers 503 until it has its
    lease again. What is wrong with a server stays wrong.
    """
    for longer in LONGER:
        try:
            return _send_once(equipment, contender, sent, seconds * longer)
        except WrongAnswersError as error:
            console.print(f"{error}; once more")
    return _send_once(equipment, contender, sent, seconds * LONGER[-1])


def _send_once(equipment: Equipment, contender: Contender, sent: RequestSet, seconds: float) -> Reads:
    before = cpu_seconds(contender.roots)
    if sent.expected.has_body:
        count, elapsed, p50_ms, p99_ms = _wrk(equipment, contender, sent, seconds)
    else:
        count, elapsed, p50_ms, p99_ms = send_for(contender, sent, seconds, CONNECTIONS)
    used = cpu_seconds(contender.roots) - before
    return Reads(
        per_second=count / elapsed, p50_ms=p50_ms, p99_ms=p99_ms, cpu_us=used / count * 1e6, count=count
    )


def _wrk(
    equipment: Equipment, contender: Contender, sent: RequestSet, seconds: float
) -> tuple[int, float, float, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % {"requests": lua_requests(sent), "seed": time.monotonic_ns() % 2**31})
        script.flush()
        arguments = [
            *(str(equipment.wrk), "-t1", f"-c{CONNECTIONS}", f"-d{MOST_SECONDS}s", "-s", script.name),
            f"http://127.0.0.1:{contender.port}/",
        ]
        with subprocess.Popen(
            arguments,
            env=equipment.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path("/"),
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(
                    signal.SIGINT
                )  # wrk counts whole seconds only, and reports when interrupted
            except BaseException:
                process.kill()
                raise
            said, complaint = process.communicate()
    if process.returncode != 0 or "REPORT " not in said:
        raise RuntimeError(f"wrk ended with {process.returncode}: {complaint or said}")
    told = json.loads(said.rpartition("REPORT ")[2])
    count, expected = told["requests"], sent.expected
    failed = count if expected.status >= HTTPStatus.BAD_REQUEST else 0
    least, most = count * expected.least_bytes, count * (expected.most_bytes + HEADERS_BYTES)
    # wrk counts the bytes of answers that are under way as well: one of each connection.
    most += CONNECTIONS * (expected.most_bytes + HEADERS_BYTES)
    if not count or told["failed"] or told["status"] != failed or not least <= told["bytes"] <= most:
        raise WrongAnswersError(f"{contender.title} gave answers that are not those of {sent.name!r}: {told}")
    return count, told["us"] / 1e6, told["p50_us"] / 1e3, told["p99_us"] / 1e3


def lua_requests(sent: RequestSet) -> str:
    """Each as its text before and after what is new in it each time."""
    lines = []
    for at, request in enumerate(sent.requests, 1):
        raw, kind, fresh = request.raw, 0, None
        for number, placeholder in enumerate((FRESH_TRACE, FRESH_NAME), 1):
            if placeholder in raw:
                kind, fresh = number, placeholder
        head, _, tail = raw.partition(fresh) if fresh else (raw, "", "")
        lines.append(f"kinds[{at}], tails[{at}], heads[{at}] = {kind}, {_quoted(tail)}, {_quoted(head)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """JSON's escapes of ASCII text without control characters but CR and LF are Lua's."""
    return json.dumps(text)
