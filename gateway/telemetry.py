"""Logs and metrics of a worker, for operators. This is not the audit log, and holds no secret (I8).

Counters are plain numbers of one process; the ops listener asks every worker for its own and adds them up. So
counting needs no lock and no shared memory while a request is handled.

A failure that affects one request often affects a thousand a second. So a line is logged when a failure
begins, then its count once a minute, and a last line when it has ended (`RepeatedLines`).
"""

from __future__ import annotations

import io
import logging
import re
import sys
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

import structlog

from gateway.model.errors import CachegateError, Reason
from gateway.request_times import REQUEST_SECONDS, RequestTimes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.adapters.provider import Provider
    from gateway.audit.consumers.runner import ConsumerStatus
    from gateway.audit.index.lag import IndexLag
    from gateway.audit.keeping.keeper import Kept
    from gateway.audit.request_secrets import RequestSecrets
    from gateway.decisions import Decisions
    from gateway.directory.memory.near_facts import NearFacts
    from gateway.issuers.outside import IssuerServices
    from gateway.model.errors import Unavailable
    from gateway.model.facts import Key
    from gateway.model.pins import Pin
    from gateway.platform.authority import Authority

    AnsweredAtOnce = tuple[str, Reason, int, int, float]
    """The route's template, the reason, the status, the bytes that were sent, when the request arrived."""

_OUR_KEY = re.compile(r"cg_[0-9A-Za-z_]*", re.IGNORECASE)

GAUGES = {
    "cachegate_revocation_lag_seconds": "What the canary's last change took to be true in every worker.",
    "cachegate_transfers_under_way": "Responses that are being sent.",
    "cachegate_chores_down": "Chores of workers that failed and are not up again.",
    "cachegate_audit_bytes": "Size of the node's audit log on the disk; a worker looks every five minutes.",
    "cachegate_audit_oldest_timestamp_seconds": "Time of the oldest record in it.",
    "cachegate_audit_waiting_segments": "Segments that retention would remove, and a consumer still needs.",
    "cachegate_feed_waiting": "Long polls of the audit feed that wait for a record.",
    "cachegate_feed_streams": "Streams of the audit feed that are open.",
    "cachegate_connections": "Connections of clients, those included whose TLS handshake is not over.",
    "cachegate_upstream_left_alone": "Workers that ask the provider nothing for a moment, since it failed.",
    "cachegate_upstream_left_alone_by_strangers": "Workers that ask it nothing about unknown keys for a "
    "moment, since it failed on those or asked for fewer questions.",
    "cachegate_keys_never_used": "Keys that are valid, a week old and were never used, at the last report.",
    "cachegate_keys_never_expiring": "Keys that are valid and have no expiry, at the last report.",
    "cachegate_keys_expiring_soon": "Keys that end within 14 days, at the last report.",
    "cachegate_keys_new_networks": "Keys that were used from a new network in the last 30 days, at the last "
    "report.",
}
"""Current values. Workers without a value report 0, so that the sum over all workers is the value."""


CONSUMER_GAUGES = {
    "cachegate_audit_consumer_lag_records": "Records of this node that wait for a consumer of the audit log.",
    "cachegate_audit_consumer_lag_seconds": "Age of the oldest of them.",
    "cachegate_audit_consumer_up": "1 while records are delivered to it; 0 while that fails, is stopped by a "
    "bound, or hangs.",
}
"""Current values for each consumer of the audit log, with its name as the label `consumer`."""


LARGEST = {
    "cachegate_audit_lag_seconds": "How long the oldest record that no signed head proves yet has been "
    "waiting for one, in the worker where that is longest.",
    "cachegate_audit_waiting_records": "Outcome records that cannot be written yet, in the worker with most.",
    "cachegate_audit_index_behind_records": "Records that the index of the audit log lacks, about.",
    "cachegate_audit_index_behind_seconds": "How long ago it lacked none.",
    "cachegate_audit_disk_free_bytes": "Room that is left on the disk of the audit folder.",
    "cachegate_audit_disk_bytes": "Size of that disk.",
}
"""Current values that are not added up: the instance's is that of the worker with the largest."""


class Metric(NamedTuple):
    """What a counter counts, and the names of its labels."""

    meaning: str
    labels: tuple[str, ...] = ()


COUNTERS = {
    "cachegate_decisions_total": Metric(
        "Decisions by route template and reason; `permitted` is an allow.", ("route", "reason")
    ),
    "cachegate_questions_total": Metric(
        "Questions of others about access, by answer: yes, no, undecided.", ("answer",)
    ),
    "cachegate_responses_total": Metric(
        "Responses by status; 0 is a connection that ended before one.", ("status",)
    ),
    "cachegate_sent_bytes_total": Metric("Bytes of response bodies handed to the server."),
    "cachegate_answers_at_once_total": Metric(
        "Requests that were answered without waiting for anything, and without the application."
    ),
    "cachegate_unreadable_facts_total": Metric("Records in Redis that did not parse, each time one denied."),
    "cachegate_damaged_registry_records_total": Metric("Records of the offline registry that did not parse."),
    "cachegate_undescribed_packages_total": Metric(
        "Packages that a local answer about their model had no room for."
    ),
    "cachegate_dependency_failures_total": Metric(
        "Requests that were not decided because a dependency failed.", ("dependency",)
    ),
    "cachegate_defects_total": Metric("Requests that ended in a defect of the gateway."),
    "cachegate_chore_failures_total": Metric(
        "Times that a chore beside requests failed and was begun again.", ("chore",)
    ),
    "cachegate_chore_items_total": Metric(
        "Things that a chore could not deal with, each time it came to them.", ("chore",)
    ),
    "cachegate_refused_by_server_total": Metric(
        "Requests that were refused before they were whole.", ("reason",)
    ),
    "cachegate_connections_refused_total": Metric(
        "Connections that were reset: their address had its share."
    ),
    "cachegate_connections_stalled_total": Metric("Connections that were cut: their client took in nothing."),
    "cachegate_inference_failures_total": Metric(
        "Requests that an inference server did not answer: not reached, broken off, too slow.", ("server",)
    ),
    "cachegate_unexpected_models_total": Metric(
        "Answers of an inference server that were not sent: it used a model that was not authorised. Never "
        "more than 0 with a server of the version that the table of routes is for.",
        ("server",),
    ),
    "cachegate_audit_packed_segments_total": Metric("Audit segments that were compressed."),
    "cachegate_audit_removed_segments_total": Metric("Audit segments that retention removed."),
    "cachegate_audit_overruns_total": Metric(
        "Times that retention removed segments which a consumer of the log still needed."
    ),
    "cachegate_audit_consumer_records_total": Metric(
        "Records that were delivered to a consumer of the audit log: delivered, refused (by the target, for "
        "good: they are in its dead letters), missed (removed by retention before).",
        ("consumer", "event"),
    ),
    "cachegate_audit_consumer_failures_total": Metric(
        "Deliveries to a consumer of the audit log that failed and were tried again.", ("consumer",)
    ),
    "cachegate_workers_hung_total": Metric(
        "Workers that were killed and replaced since they did not answer, as when a write hangs."
    ),
    "cachegate_withdrawn_total": Metric("Answers that were overtaken by a change before their first byte."),
    "cachegate_degraded_responses_total": Metric("Responses on what was last known, without a lease."),
    "cachegate_barriers_total": Metric("Changes of the canary that were waited for."),
    "cachegate_barrier_seconds_total": Metric("Time that these took, together."),
    "cachegate_lease_losses_total": Metric("Times that a worker lost its lease on the facts."),
    "cachegate_stale_refusals_total": Metric("Last checks that found a fact changed."),
    "cachegate_feed_reconnects_total": Metric("Times that the feed of changes had to be made anew."),
    "cachegate_pins_total": Metric(
        "Blobs that this worker pinned or put into quarantine: pinned, quarantined.", ("event",)
    ),
    "cachegate_hashed_bytes_total": Metric("Bytes of files that were hashed for their pins."),
    "cachegate_issuer_fetches_total": Metric(
        "Fetches of an outside issuer's keys: fetched, failed.", ("outcome",)
    ),
    "cachegate_upstream_questions_total": Metric(
        "Questions to the provider: answered, refused, failed, no-sense, given-up, not-asked.", ("outcome",)
    ),
    "cachegate_unknown_keys_total": Metric(
        "Requests with a platform's key that nobody here knew: asked, remembered (denied from memory), "
        "limited (beyond the budget of questions).",
        ("event",),
    ),
    "cachegate_decoy_uses_total": Metric("Uses of decoy keys. Each of them is an alarm."),
    "cachegate_key_new_networks_total": Metric(
        "Times that a key was used from a network that was new to it, while it had others."
    ),
    "cachegate_near_cache_total": Metric(
        "Facts in memory: hit, miss, eviction, invalidation, flush, overtaken.", ("event",)
    ),
    "cachegate_decision_memory_total": Metric("Decisions in memory: hit, miss.", ("event",)),
}
"""Every counter. A label's value is one of ours, never a client's text."""

_BETWEEN = "\t"  # in no value of a label


@lru_cache(maxsize=1024)
def sample(name: str, *values: str) -> str:
    """The key under which a worker counts: the metric's name and the values of its labels, in their order."""
    if len(values) != len(COUNTERS[name].labels):
        raise ValueError(f"{name} has the labels {COUNTERS[name].labels}, not as many as {values}")
    return _BETWEEN.join((name, *values))


def gauge_sample(name: str, consumer: str) -> str:
    """The key of a current value of a consumer."""
    return _BETWEEN.join((name, consumer))


def split_sample(key: str) -> tuple[str, list[str]]:
    """The name and the values of the labels that a key was made of."""
    name, *values = key.split(_BETWEEN)
    return name, values


SUMMARY_SECONDS = 60.0  # between two lines about one failure that continues
QUIET_SECONDS = 10.0  # a failure has ended when it did not occur for so long
MOST_LINES = 256  # different ones at a time; further ones are counted together as one


@dataclass(slots=True)
class _Repeated:
    """A line that was logged, and how often it occurred."""

    event: str
    fields: dict[str, Any]
    times: int = 1
    unsaid: int = 0
    is_new: bool = True  # it occurred since the last tick
    came_at: float | None = None
    said_at: float | None = None


class RepeatedLines:
    """Logs a line when it first occurs, its count once a minute, and when it has ended.

    It reads no clock: `tick` is called every second. Without ticks, only first lines are logged.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("cachegate")
        self._lines: dict[tuple[str, object], _Repeated] = {}
        self._later: dict[tuple[str, object], list[Any]] = {}  # the fields, and how often

    def say(self, event: str, key: object, *, is_error: bool = True, **fields: Any) -> None:
        """Report a failure. All with one key are one failure, whatever the other fields are."""
        line = self._lines.get((event, key))
        if line is None and len(self._lines) >= MOST_LINES:
            key, fields = "others", {"others": f"beside {MOST_LINES} different ones that are logged"}
            line = self._lines.get((event, key))
        if line is None:
            self._lines[event, key] = _Repeated(event, fields)
            (self._log.error if is_error else self._log.warning)(event, **fields)
        else:
            line.times += 1
            line.unsaid += 1
            line.is_new = True
            line.fields = fields

    def say_later(self, event: str, key: object, **fields: Any) -> None:
        """Report a failure with the next tick: the line is not written now."""
        later = self._later.setdefault((event, key), [fields, 0])
        if len(self._later) > MOST_LINES:
            del self._later[event, key]
            key = "others"
            later = self._later.setdefault((event, key), [fields, 0])
        later[0] = fields
        later[1] += 1

    def _say_waiting(self) -> None:
        waiting, self._later = self._later, {}
        for (event, key), (fields, times) in waiting.items():
            for _ in range(times):
                self.say(event, key, **fields)

    def tick(self, now: float) -> None:
        """Log the counts and ends that are due."""
        self._say_waiting()
        for key, line in list(self._lines.items()):
            if line.is_new or line.came_at is None or line.said_at is None:
                line.is_new, line.came_at = False, now
                line.said_at = now if line.said_at is None else line.said_at
            if line.unsaid and not 0 <= now - line.said_at < SUMMARY_SECONDS:
                self._say_again(line)
                line.said_at = now
            if not 0 <= now - line.came_at < QUIET_SECONDS:
                self._end(key, line)

    def end(self) -> None:
        """Log what was not logged yet, as the process ends."""
        self._say_waiting()
        for line in self._lines.values():
            if line.unsaid:
                self._say_again(line)
        self._lines.clear()

    def _say_again(self, line: _Repeated) -> None:
        self._log.error(f"{line.event}, again", times=line.unsaid, **line.fields)
        line.unsaid = 0

    def _end(self, key: tuple[str, object], line: _Repeated) -> None:
        """Forget a line that did not occur for a while."""
        del self._lines[key]
        if line.times > 1:
            self._log.info(
                f"{line.event}: no more for {QUIET_SECONDS:.0f} s", times=line.times, **line.fields
            )


class Telemetry:
    """One worker's counters and its logger."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.sums: dict[str, float] = {"cachegate_barrier_seconds_total": 0.0}
        self.gauges: dict[str, float] = {}
        self.times = RequestTimes()
        self._delivered: dict[str, ConsumerStatus] = {}
        self.lines = RepeatedLines()
        self._log = structlog.get_logger("cachegate")

    def decided(self, route: str, reason: Reason) -> None:
        """Count one decision."""
        self.counters[sample("cachegate_decisions_total", route, reason)] += 1

    def questioned(self, answer: str) -> None:
        """Count one answer to a question about access."""
        self.counters[sample("cachegate_questions_total", answer)] += 1

    def answered(self, status: int, sent: int) -> None:
        """Count one response."""
        self.counters[sample("cachegate_responses_total", str(status))] += 1
        self.counters["cachegate_sent_bytes_total"] += sent

    def began(self, route: str, seconds: float) -> None:
        """Count how long a request took until its answer began."""
        self.times.count(route, seconds)

    def answered_at_once(self, answers: Sequence[AnsweredAtOnce], now: float) -> None:
        """Count decisions and their responses, which were sent just now, from within the server's parser."""
        counters = self.counters
        for (route, reason, status), count in Counter([answer[:3] for answer in answers]).items():
            counters[sample("cachegate_decisions_total", route, reason.value)] += count
            counters[sample("cachegate_responses_total", str(status))] += count
        counters["cachegate_sent_bytes_total"] += sum([answer[3] for answer in answers])
        counters["cachegate_answers_at_once_total"] += len(answers)
        for route, _, _, _, arrived_at in answers:
            self.times.count(route, now - arrived_at)

    def sent(self, count: int) -> None:
        """Count the bytes of a response that was counted when it began."""
        self.counters["cachegate_sent_bytes_total"] += count

    def failed(self, failure: Unavailable) -> None:
        """Count and log a dependency of the guard that did not answer."""
        self.counters[sample("cachegate_dependency_failures_total", failure.dependency)] += 1
        dependency, why, reason = failure.dependency, failure.why, failure.reason.value
        key = (dependency, why, reason)
        self.lines.say("not decided", key, dependency=dependency, why=why, reason=reason)

    def defect(self, route: str, defect: Exception, secrets: RequestSecrets | None = None) -> None:
        """Count and log a defect: the log has the stack trace, the client only a record id.

        An exception's text may contain what the client sent: the secrets of its request are removed.
        """
        self.counters["cachegate_defects_total"] += 1
        stack = "".join(traceback.format_exception(defect)).rstrip()
        if secrets:
            stack = "\n".join(secrets.clean(line, separator=" ") for line in stack.split("\n"))
        stack = _OUR_KEY.sub("[removed]", stack)
        where = traceback.extract_tb(defect.__traceback__)
        key = (route, type(defect).__name__, *((where[-1].filename, where[-1].lineno) if where else ()))
        self.lines.say("defect", key, route=route, exception=stack)

    def chore_failed(self, chore: str, failure: Exception, pause_seconds: float) -> None:
        """Count and log a background task that failed: it is started again after the pause.

        The log has the stack trace of an unexpected exception only; our own failures say all there is.
        """
        self.counters[sample("cachegate_chore_failures_total", chore)] += 1
        is_ours = isinstance(failure, CachegateError)
        self._log.error(
            "a chore failed and is begun again",
            chore=chore,
            again_in_seconds=pause_seconds,
            why=str(failure),
            **({} if is_ours else {"exc_info": failure}),
        )

    def items_failed(self, chore: str, items: Sequence[tuple[str, str]], count: int) -> None:
        """Count the items that a background task could not process; log the first ones with the cause."""
        self.counters[sample("cachegate_chore_items_total", chore)] += count
        for item, why in items:
            self._log.error("left aside, the others go on", chore=chore, item=item, why=why)
        if count > len(items):
            self._log.error("left aside as well", chore=chore, more=count - len(items))

    def index_lags(self, lag: IndexLag) -> None:
        """Note how far the index of the audit log is behind."""
        self.gauges["cachegate_audit_index_behind_records"] = lag.records
        self.gauges["cachegate_audit_index_behind_seconds"] = round(lag.seconds, 3)

    def audit_kept(self, kept: Kept) -> None:
        """Note how large the audit log is; count and log what was done to keep it within bounds."""
        self.gauges["cachegate_audit_bytes"] = kept.bytes
        self.gauges["cachegate_audit_waiting_segments"] = kept.waiting
        if kept.oldest is not None:
            oldest = datetime.fromisoformat(kept.oldest).timestamp()
            self.gauges["cachegate_audit_oldest_timestamp_seconds"] = oldest
        self.counters["cachegate_audit_packed_segments_total"] += kept.packed
        self.counters["cachegate_audit_removed_segments_total"] += kept.removed
        self.counters["cachegate_audit_overruns_total"] += len(kept.overrun)
        if kept.removed:
            self._log.info("audit segments were removed", segments=kept.removed, bytes=kept.removed_bytes)
        if kept.waiting:
            event = "audit segments are due for removal, and a consumer still needs them"
            names = list(kept.waits_for)
            self.lines.say(event, kept.waits_for, is_error=False, segments=kept.waiting, consumers=names)
        if kept.overrun:
            event = "audit segments were removed that a consumer still needed"
            self._log.error(event, consumers=list(kept.overrun))
        for problem in kept.problems:
            self.lines.say("keeping the audit log within bounds", problem, why=problem)

    def consumers_reported(self, statuses: Sequence[ConsumerStatus], damaged: Sequence[str]) -> None:
        """Note how each consumer of the audit log is doing; log what hinders a delivery."""
        for key in [one for one in self.gauges if split_sample(one)[0] in CONSUMER_GAUGES]:
            del self.gauges[key]  # of a consumer that was removed
        for one in statuses:
            for name, value in (
                ("cachegate_audit_consumer_lag_records", float(one.lag_records)),
                ("cachegate_audit_consumer_lag_seconds", one.lag_seconds),
                ("cachegate_audit_consumer_up", float(one.is_well)),
            ):
                self.gauges[gauge_sample(name, one.name)] = value
            self._count_deliveries(one)
            if not one.is_well:
                event = "a consumer of the audit log does not get its records"
                self.lines.say(
                    event, (one.name, one.error), consumer=one.name, state=one.state, why=one.error
                )
        for name in damaged:
            event = "the registration of a consumer of the audit log does not parse"
            self.lines.say(event, name, consumer=name, help="cachegate audit consumers remove, then add")

    def _count_deliveries(self, status: ConsumerStatus) -> None:
        """Add what was counted since the last report; counts are the consumer's since it was added."""
        known = self._delivered.get(status.name)
        self._delivered[status.name] = status
        if known is None or known.delivered > status.delivered:
            return  # its first report, or another consumer of that name
        for event in ("delivered", "refused", "missed"):
            new = getattr(status, event) - getattr(known, event)
            self.counters[sample("cachegate_audit_consumer_records_total", status.name, event)] += max(new, 0)
        failures = max(status.failures - known.failures, 0)
        self.counters[sample("cachegate_audit_consumer_failures_total", status.name)] += failures

    def cache_changed(self, problem: str | None) -> None:
        """Log that the cache cannot be read any more, or can be again."""
        if problem is None:
            self._log.info("the cache is there again")
        else:
            help_ = "mount it, or set CACHEGATE_CACHE_ROOT; until then all that needs it is answered by 503"
            self._log.error("the cache cannot be read", why=problem, help=help_)

    def unreadable(self, name: str) -> None:
        """Count and log a record in Redis that does not parse. It denies; an operator has to check it."""
        self.counters["cachegate_unreadable_facts_total"] += 1
        self.lines.say(
            "a record in Redis does not parse and denies",
            name,
            record=name,
            help="cachegate doctor lists them",
        )

    def damaged_record(self, model: str) -> None:
        """Count and log a registry record of the engine that does not parse; the answer omits its details."""
        self.counters["cachegate_damaged_registry_records_total"] += 1
        event = "a registry record in the cache is damaged and left out"
        self.lines.say(event, model, is_error=False, model=model)

    def packages_left_out(self, model: str, count: int) -> None:
        """Count and log that an answer about a model had no room for some of its packages."""
        self.counters["cachegate_undescribed_packages_total"] += count
        self._log.warning(
            "packages are too large to be described from the cache", model=model, packages=count
        )

    def inference_failed(self, server: str, why: str) -> None:
        """Count and log a request that an inference server did not answer."""
        self.counters[sample("cachegate_inference_failures_total", server)] += 1
        self.lines.say("an inference server did not answer", (server, why), server=server, why=why)

    def unexpected_model(self, server: str) -> None:
        """Count and log an answer that was not sent: the server used a model that was not authorised."""
        self.counters[sample("cachegate_unexpected_models_total", server)] += 1
        self.lines.say(
            "an inference server used a model that its request was not authorised for: its answer was not "
            "sent; is it of the version that this gateway knows?",
            server,
            server=server,
        )

    def decoy_used(self, key: Key, client: str) -> None:
        """Count a use of a decoy key. It is logged by the next tick: here it would take time that tells."""
        self.counters["cachegate_decoy_uses_total"] += 1
        self.lines.say_later(
            "a decoy key was used: whoever has it found or stole it",
            key.key_id,
            key_id=key.key_id,
            tenant=key.tenant,
            client=client,
            help="cachegate audit search --key-id shows all its uses",
        )

    def new_network(self, key_id: str, network: str) -> None:
        """Count and log that a key was used from a network that is new to it."""
        self.counters["cachegate_key_new_networks_total"] += 1
        self.lines.say(
            "a key was used from a network that is new to it",
            key_id,
            is_error=False,
            key_id=key_id,
            network=network,
        )

    def keys_reported(self, counts: Mapping[Any, int]) -> None:
        """Note how many keys concern an operator; nothing where another worker does."""
        for concern in ("never-used", "never-expiring", "expiring-soon", "new-networks"):
            self.gauges[f"cachegate_keys_{concern.replace('-', '_')}"] = float(counts.get(concern, 0))

    def withdrawn(self) -> None:
        """Count an answer that was overtaken by a change before its first byte."""
        self.counters["cachegate_withdrawn_total"] += 1

    def degraded(self) -> None:
        """Count a response that was served without a lease."""
        self.counters["cachegate_degraded_responses_total"] += 1

    def mode_changed(self, mode: str) -> None:
        """Log that the worker lost its lease, or has one again."""
        if mode == "mode.unknown-history":
            self._log.error(
                "the server's facts are not the ones that this node knew: nothing is served on them",
                mode=mode,
                help="cachegate directory show; if that is meant, cachegate directory accept on each node",
            )
            return
        (self._log.warning if mode != "mode.normal" else self._log.info)("mode changed", mode=mode)

    def sentinels_silent(self, names: tuple[str, ...]) -> None:
        """Log the Sentinels that do not answer, or that all do again."""
        if names:
            self._log.warning("sentinels do not answer", sentinels=list(names))
        else:
            self._log.info("all sentinels answer again")

    def canary_measured(self, seconds: float) -> None:
        """Note how long the canary's change took; 0 when another worker measures."""
        self.gauges["cachegate_revocation_lag_seconds"] = seconds
        if seconds:
            self.counters["cachegate_barriers_total"] += 1
            self.sums["cachegate_barrier_seconds_total"] += seconds

    def pinned(self, count: int) -> None:
        """Count blobs that were pinned by this worker."""
        self.counters[sample("cachegate_pins_total", "pinned")] += count

    def quarantined(self, pin: Pin) -> None:
        """Count and log a blob with wrong content: no caller gets it, and an operator has to check it."""
        self.counters[sample("cachegate_pins_total", "quarantined")] += 1
        self._log.error(
            "a blob is in quarantine: its content is not what it should be",
            blob=pin.md5,
            cause=pin.quarantine.cause.value if pin.quarantine else None,
            help="look at it, repair it, then: cachegate cache release",
        )

    def values(self) -> dict[str, float]:
        """All counters, by name, and the buckets of the histogram."""
        times = {_BETWEEN.join((REQUEST_SECONDS, *key)): value for key, value in self.times.values().items()}
        return {**self.counters, **self.sums, **times}

    def refused_by_server(self, reason: Reason) -> None:
        """Count a request that the HTTP server itself refused."""
        self.counters[sample("cachegate_refused_by_server_total", reason)] += 1


class _LossyStandardError(io.TextIOBase):
    """Standard error for logs: a full disk or a closed pipe loses a log line, but fails no request."""

    def write(self, text: str) -> int:
        """Write, and ignore errors."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, and ignore errors."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def freshness_counters(facts: NearFacts, decisions: Decisions) -> dict[str, float]:
    """The counters of the near cache, the decision memory and the lease of this worker."""
    near, remembered = facts.cache.counts, decisions.counts
    events = {
        "hit": near.hits,
        "miss": near.misses,
        "eviction": near.evictions,
        "invalidation": near.invalidations,
        "flush": near.flushes,
        "overtaken": near.overtaken,
    }
    return {
        **{sample("cachegate_near_cache_total", event): count for event, count in events.items()},
        sample("cachegate_decision_memory_total", "hit"): remembered.hits,
        sample("cachegate_decision_memory_total", "miss"): remembered.misses,
        "cachegate_lease_losses_total": facts.lease.losses,
        "cachegate_stale_refusals_total": facts.stale_refusals,
    }


def upstream_counters(provider: Provider | None) -> dict[str, float]:
    """The outcomes of this worker's requests to the provider."""
    outcomes = {} if provider is None else provider.outcomes
    return {sample("cachegate_upstream_questions_total", name): count for name, count in outcomes.items()}


def unknown_key_counters(authority: Authority | None) -> dict[str, float]:
    """The counters of requests with unknown keys."""
    events = {} if authority is None else authority.unknown_keys.counts
    return {sample("cachegate_unknown_keys_total", name): count for name, count in events.items()}


def issuer_counters(issuers: IssuerServices) -> dict[str, float]:
    """The outcomes of this worker's fetches of outside issuers' keys."""
    outcomes = issuers.key_sets.outcomes
    return {sample("cachegate_issuer_fetches_total", name): count for name, count in outcomes.items()}


def configure_logs(*, is_terminal: bool) -> None:
    """Log lines for people on a terminal, JSON elsewhere; always on standard error."""
    # Plain tracebacks on purpose: the pretty ones print local variables, which may hold a key (I8).
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _LossyStandardError())),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
