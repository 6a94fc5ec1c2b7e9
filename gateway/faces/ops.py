"""The ops face, on a listener of its own: health, readiness and metrics for probes and Prometheus.

    GET /healthz    200 while the parent process answers
    GET /readyz     200 when every worker is ready, else 503; JSON with each check
    GET /metrics    Prometheus text, summed over all workers

It serves nothing of the caches and holds no secret, so it declares no guard. It must not be reachable by
clients.
"""

from __future__ import annotations

from platform import python_version
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.request_times import MEANING, REQUEST_SECONDS, SUM, cumulated
from gateway.telemetry import CONSUMER_GAUGES, COUNTERS, GAUGES, LARGEST, split_sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from prometheus_client.core import Metric
    from starlette.requests import Request
    from starlette.types import ASGIApp


class InstanceStatus(Protocol):
    """The status of all workers of the instance together."""

    @property
    def is_ready(self) -> bool:
        """Whether every worker answers and every check holds in each."""

    @property
    def expected(self) -> int:
        """How many workers there should be."""

    @property
    def answering(self) -> int:
        """How many answered."""

    @property
    def ready(self) -> Mapping[str, bool]:
        """Each check by name: whether it holds in all workers."""

    @property
    def counters(self) -> Mapping[str, float]:
        """Counters of all workers, including those that have ended."""

    @property
    def gauges(self) -> Mapping[str, float]:
        """Current values of the workers that answered."""


class _Snapshot(Collector):
    """The metrics of one scrape."""

    def __init__(self, status: InstanceStatus) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Every declared metric, and no other; one without labels is 0 until it is counted."""
        families = {
            name: CounterMetricFamily(name, metric.meaning, labels=metric.labels)
            for name, metric in COUNTERS.items()
        }
        unlabelled = {name: 0.0 for name, metric in COUNTERS.items() if not metric.labels}
        for key, value in sorted({**unlabelled, **self._status.counters}.items()):
            name, values = split_sample(key)
            if name in families and len(values) == len(COUNTERS[name].labels):
                families[name].add_metric(values, value)
        yield from families.values()
        for name, meaning in GAUGES.items():
            gauge = GaugeMetricFamily(name, meaning)
            gauge.add_metric([], self._status.gauges.get(name, 0.0))
            yield gauge
        yield from self._consumers()
        for name, meaning in LARGEST.items():
            largest = GaugeMetricFamily(name, meaning)
            if name in self._status.gauges:  # room that nobody could measure is not 0
                largest.add_metric([], self._status.gauges[name])
            yield largest
        yield self._times()
        yield from self._instance()

    def _consumers(self) -> Iterable[Metric]:
        """The current values of each consumer of the audit log."""
        families = {
            name: GaugeMetricFamily(name, meaning, labels=["consumer"])
            for name, meaning in CONSUMER_GAUGES.items()
        }
        for key, value in sorted(self._status.gauges.items()):
            name, values = split_sample(key)
            if name in families and len(values) == 1:
                families[name].add_metric(values, value)
        yield from families.values()

    def _times(self) -> HistogramMetricFamily:
        """The histogram: the buckets of each face, and the sum of its seconds."""
        times = HistogramMetricFamily(REQUEST_SECONDS, MEANING, labels=["face"])
        faces: dict[str, dict[str, float]] = {}
        for key, value in self._status.counters.items():
            name, values = split_sample(key)
            if name == REQUEST_SECONDS and len(values) == len(("face", "bucket")):
                faces.setdefault(values[0], {})[values[1]] = value
        for face, counts in sorted(faces.items()):
            times.add_metric([face], cumulated(counts), counts.get(SUM, 0.0))
        return times

    def _instance(self) -> Iterable[Metric]:
        """What the instance is, and whether it is ready."""
        checks = GaugeMetricFamily(
            "cachegate_check", "1 while this check of readiness holds in every worker.", labels=["check"]
        )
        for check, holds in self._status.ready.items():
            checks.add_metric([check], float(holds))
        yield checks
        ready = GaugeMetricFamily("cachegate_ready", "1 when every worker is ready.")
        ready.add_metric([], 1 if self._status.is_ready else 0)
        yield ready
        workers = GaugeMetricFamily("cachegate_workers", "Workers that answer.")
        workers.add_metric([], self._status.answering)
        yield workers
        expected = GaugeMetricFamily("cachegate_workers_expected", "Workers that there should be.")
        expected.add_metric([], self._status.expected)
        yield expected
        build = GaugeMetricFamily(
            "cachegate_build_info", "1, with what runs in its labels.", labels=["version", "python"]
        )
        build.add_metric([__version__, python_version()], 1)
        yield build


def ops_app(ask: Callable[[], Awaitable[InstanceStatus]]) -> ASGIApp:
    """The ops listener's app; `ask` collects the current status of all workers."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        status = await ask()
        document = {
            "ready": status.is_ready,
            "workers": {"expected": status.expected, "answering": status.answering},
            "checks": dict(status.ready),
        }
        return JSONResponse(document, status_code=200 if status.is_ready else 503)

    async def metrics(_request: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(_Snapshot(await ask()))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
    )
