"""The tour: requests over real HTTP, each with what it shows and the status that is expected.

The tour is data, and checking an answer is a function of a step and the answer, so that a wrong expectation
is a complaint and nothing else. Requests are sent byte for byte as they are written here: a client library
would normalise exactly what an attacker would not.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import msgspec

from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.demo.world import DemoKey, DemoWorld

_VARYING = frozenset(
    {"date", "traceparent"}
)  # with the record's id, all that may differ between two refusals
_TIMEOUT_SECONDS = 10.0


class TourStep(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `token` is the key that is sent; `revokes` names a key that is revoked just before."""

    who: str
    path: str
    expected: int
    shows: str
    token: str | None = None
    method: str = "GET"
    twin: str | None = None  # the path of an earlier step whose answer this one's must equal
    revokes: DemoKey | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("token",))


class TourAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def record_id(self) -> str:
        """The audit record that the answer names."""
        return next((value for name, value in self.headers if name == "cachegate-record"), "")

    def comparable(self) -> tuple[object, ...]:
        """The answer without the time, the trace and the record's id."""
        record = self.record_id
        kept = tuple(
            (name, value.replace(record, "")) for name, value in self.headers if name not in _VARYING
        )
        return self.status, kept, self.body.replace(record.encode(), b"")


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was taken, its answer, and what of it was not as expected."""

    step: TourStep
    answer: TourAnswer
    complaints: tuple[str, ...]

    @property
    def record_id(self) -> str:
        """The audit record that the answer names."""
        return self.answer.record_id


def plan_tour(world: DemoWorld) -> tuple[TourStep, ...]:
    """The steps, in order."""
    keys = {name: key.token for name, key in world.keys.items()}
    acme, laptop = keys["acme"], keys["acme-laptop"]
    file = "/v1/models/{}/-/{}/weights.onnx".format
    own, blob = file("acme/cars/1", "pkgA1"), f"/v1/blobs/{world.shared_md5}"
    foreign = file("globex/cars/1", "pkgB1")

    def step(who: str, token: str | None, path: str, expected: int, shows: str, **more: object) -> TourStep:
        return TourStep(who=who, token=token, path=path, expected=expected, shows=shows, **more)  # type: ignore[arg-type]

    return (
        step("acme", acme, "/v1/whoami", 200, "who the key is"),
        step("acme", acme, "/v1/models", 200, "a list of the caller's own models only"),
        step("acme", acme, own, 200, "a tenant reads its own file"),
        step("acme", acme, foreign, 404, "another tenant's file is refused"),
        step(
            "acme", acme, file("globex/none/9", "pkgB1"), 404, "just as one that is not there", twin=foreign
        ),
        step("acme", acme, blob, 200, "the shared blob, along acme's own model"),
        step("globex", keys["globex"], blob, 200, "the same blob, along globex's own model"),
        step("initech", keys["initech"], blob, 404, "the same MD5 with no path to it: a name, no permission"),
        step("acme", acme, file("acme/latest", "pkgA1"), 200, "an alias of its own model"),
        step("acme", acme, file("globex/signs/1", "pkgB2"), 200, "a granted package of globex"),
        step("acme", acme, file("globex/signs/1", "pkgB3"), 404, "and not the package beside it"),
        step("initech", keys["initech"], file("public/demo/1", "pkgP1"), 200, "a public model, any tenant"),
        step("nobody", None, file("public/demo/1", "pkgP1"), 401, "public is not anonymous"),
        step("acme-catalogue", keys["acme-catalogue"], "/v1/models/acme/cars/1", 200, "a key for discovery"),
        step("acme-catalogue", keys["acme-catalogue"], own, 403, "reads no file"),
        step("acme", mistyped(acme), own, 401, "a mistyped key"),
        step("acme-revoked", keys["acme-revoked"], own, 401, "a revoked key"),
        step("acme-expired", keys["acme-expired"], own, 401, "an expired key"),
        step("acme-laptop", laptop, own, 200, "a key that is about to be revoked"),
        step("acme-laptop", laptop, own, 401, "revoked a moment ago", revokes=world.keys["acme-laptop"]),
        step("acme", None, f"/v1/models?api_key={acme}", 400, "a key in the URL, where logs would keep it"),
        step("acme", acme, file("acme/cars/../trucks/2", "pkgA2"), 400, "dot segments are not resolved"),
        step("acme", acme, own, 405, "an unknown method", method="DELETE"),
    )


def take_tour(
    steps: Sequence[TourStep], host: str, port: int, *, revoke: Callable[[DemoKey], None]
) -> list[Visit]:
    """Take all steps and check each answer."""
    visits: list[Visit] = []
    for step in steps:
        if step.revokes is not None:
            revoke(step.revokes)
        answer = send(step, host, port)
        twin = next((visit.answer for visit in visits if visit.step.path == step.twin), None)
        visits.append(Visit(step=step, answer=answer, complaints=tuple(judge(step, answer, twin))))
    return visits


def judge(step: TourStep, answer: TourAnswer, twin: TourAnswer | None) -> list[str]:
    """What is not as expected; empty when all is."""
    request = f"{step.who}: {step.method} {shown_path(step)}"
    complaints: list[str] = []
    if answer.status != step.expected:
        complaints.append(f"{request}: expected {step.expected}, got {answer.status}")
    if step.twin is not None and (twin is None or answer.comparable() != twin.comparable()):
        complaints.append(f"{request}: its answer differs from that to {step.twin}")
    return complaints


def send(step: TourStep, host: str, port: int) -> TourAnswer:
    """Send a step's request, as it is written."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        headers = {"User-Agent": "cachegate-demo"}
        if step.token is not None:
            headers["Authorization"] = f"Bearer {step.token}"
        connection.request(step.method, step.path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        received = tuple((name.lower(), value) for name, value in response.getheaders())
        return TourAnswer(status=response.status, headers=received, body=body)
    finally:
        connection.close()


def shown_path(step: TourStep) -> str:
    """The path without the key that one step puts into it."""
    name, is_there, _ = step.path.partition("api_key=")
    return f"{name}{is_there}(a key)" if is_there else step.path


def mistyped(token: str) -> str:
    """The token with its last character changed."""
    return token[:-1] + ("0" if token[-1] != "0" else "1")
