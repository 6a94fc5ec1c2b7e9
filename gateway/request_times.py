"""How long requests take until their answer begins, by face: a histogram of one worker, in plain numbers.

What is counted ends when the answer's head is handed to the server: how fast a client takes in a large file
says nothing about the gateway. A request that ended before its answer began is not counted.

Counting is two additions and a search among some fifteen bounds, since it is done for each request. The
face is found by the route's template, and remembered. Buckets are summed over workers as counters are, so
their keys have the form of counters (`telemetry.sample`); the ops face makes a histogram of them.
"""

from __future__ import annotations

from bisect import bisect_left

REQUEST_SECONDS = "cachegate_request_seconds"
MEANING = "Seconds from a request's arrival until its answer began, by face; `none` is no route of ours."
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets. An answer from memory takes a quarter of a millisecond, a file that is hashed
first 4 s, an inference server up to its own limit."""

LABELS = (*map(str, BOUNDS), "+Inf")
SUM = "sum"  # beside the buckets' labels: the seconds of all

FACES = (
    ("/v1/models", "content"),
    ("/v1/blobs/", "content"),
    ("/d/", "download"),
    ("/v1/whoami", "identity"),
    ("/v1/token", "identity"),
    ("/v1/introspect", "identity"),
    ("/.well-known/", "identity"),
    ("/v1/keys", "tenant"),
    ("/v1/grants", "tenant"),
    ("/v1/openapi.json", "tenant"),
    ("/models/v1/external/", "engine"),
    ("/proxy", "engine"),
    ("/health", "engine"),
    ("/check/", "check"),
    ("/access/v1/", "decisions"),
    ("{mount}", "front-door"),
    ("/hooks/", "hooks"),
    ("/admin/", "admin"),
    ("/audit/v1/events", "feed"),
    ("/audit/", "audit"),
)
"""How the templates of each face begin."""

OTHER = "other"  # a route that is in no face of ours: of an app that mounts the guard
NONE = "none"  # no route at all


class _OfFace:
    """One face's counts: how many requests in each bucket, and the seconds of all."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(LABELS)
        self.seconds = 0.0


class RequestTimes:
    """The histogram of one worker."""

    def __init__(self) -> None:
        self._faces: dict[str, _OfFace] = {}
        self._routes: dict[str, _OfFace] = {}  # the same objects, by template: as many as routes are declared

    def count(self, route: str, seconds: float) -> None:
        """Count one request to a declared route."""
        of_face = self._routes.get(route) or self._begin(route)
        of_face.counts[bisect_left(BOUNDS, seconds)] += 1
        of_face.seconds += seconds

    def values(self) -> dict[tuple[str, str], float]:
        """By face and bucket, not cumulated; and by face and `sum`."""
        values: dict[tuple[str, str], float] = {}
        for face, counted in self._faces.items():
            values |= {(face, label): count for label, count in zip(LABELS, counted.counts, strict=True)}
            values[face, SUM] = counted.seconds
        return values

    def _begin(self, route: str) -> _OfFace:
        counted = self._routes[route] = self._faces.setdefault(face_of(route), _OfFace())
        return counted


def face_of(route: str) -> str:
    """The face of a route's template."""
    if route == "-":
        return NONE
    return next((face for prefix, face in FACES if route.startswith(prefix)), OTHER)


def cumulated(counts: dict[str, float]) -> list[tuple[str, float]]:
    """Buckets by label, each with those below it, in the order of their bounds: as Prometheus has them."""
    total, buckets = 0.0, []
    for label in LABELS:
        total += counts.get(label, 0.0)
        buckets.append((label, total))
    return buckets
