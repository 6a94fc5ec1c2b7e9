"""What the process of the consumers does beside delivering: it notes refusals, and registers the stream."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import msgspec
import pytest

from gateway.assembly.audit_consumers import ConsumersOrder, consumers_order
from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.folder import prepare_folder
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.operations.audit_consumers import RefusalNotes, load_secrets, register_stream, run_consumers

ORDER = ConsumersOrder(
    folder="", node="node-1", signing_key_file="", redis_url="redis://:sesame@h", has_stream=True,
    stream_bytes=1 << 20,
)  # fmt: skip


class Recording:
    def __init__(self):
        self.noted = []

    def note(self, _kind, **fields):
        self.noted.append(fields)

    def close(self):
        pass


def test_refusals_are_recorded_at_once_and_then_once_a_minute_with_their_number():
    log, clock = Recording(), SimpleNamespace(time=0.0)
    notes = RefusalNotes(lambda: log, lambda: clock.time)
    notes.add("siem", 5, "HTTP 400")
    notes.write_due()
    for _ in range(3):  # each is the record about the refusal before, which was refused as well
        notes.add("siem", 1, "HTTP 400")
        notes.write_due()
    assert [one["records"] for one in log.noted] == [5]
    clock.time = 61.0
    notes.write_due()
    assert [(one["target"], one["state"], one["records"]) for one in log.noted] == [
        ("siem", "refused", 5),
        ("siem", "refused", 3),
    ]


def test_at_the_end_all_that_waits_is_recorded():
    log = Recording()
    notes = RefusalNotes(lambda: log, lambda: 0.0)
    notes.add("siem", 5, "HTTP 400")
    notes.write_due()
    notes.add("siem", 2, "HTTP 400")
    notes.write_due(is_last=True)
    assert [one["records"] for one in log.noted] == [5, 2]


def test_the_stream_is_registered_by_its_setting_and_goes_with_it(tmp_path):
    tmp_path.chmod(0o700)
    registry = ConsumerRegistry(tmp_path)
    register_stream(registry, ORDER, 0.0)
    register_stream(registry, ORDER, 0.0)
    assert [one.registration.kind for one in registry.load_all()] == ["stream"]
    off = ConsumersOrder(
        folder="", node="node-1", signing_key_file="", redis_url="", has_stream=False, stream_bytes=1
    )
    register_stream(registry, off, 0.0)
    assert registry.load_all() == []


def test_a_stream_that_cannot_be_registered_stops_no_other_consumer(installation):
    settings = load_settings(installation.variables())
    folder, ended, said = settings.audit_folder, threading.Event(), []
    prepare_folder(folder)
    ConsumerRegistry(folder).add("reader", "feed", now="2030-01-31T12:00:00.000000Z")
    (folder / "consumers/stream.json").write_bytes(b"{")
    order = msgspec.structs.replace(consumers_order(settings, ""), has_stream=True)

    def say(report):
        said.append(report)
        if report.consumers:
            ended.set()

    run_consumers(order, say, ended)
    assert [one.name for report in said for one in report.consumers] == ["reader"]
    assert any("stream" in (report.failed or "") for report in said)


def test_an_order_shows_no_password():
    assert "sesame" not in repr(ORDER)


def test_a_secret_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef0123456789abcdef")
    path.chmod(0o644)
    with pytest.raises(Misconfigured) as caught:
        load_secrets(path)
    assert "0123456789" not in str(caught.value)
    path.chmod(0o600)
    assert load_secrets(path) == [b"0123456789abcdef0123456789abcdef"]
