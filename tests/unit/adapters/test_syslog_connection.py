"""The connection of syslog: framed, over verified TLS, and noticed when the other side has ended it."""

from __future__ import annotations

import pytest

from gateway.adapters.syslog_connection import SyslogConnection
from gateway.model.errors import Misconfigured, Unavailable
from tests.audit_receivers import SyslogReceiver
from tests.certificates import write_certificate

FIRST, SECOND, THIRD = (f"00000000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3))


def message(record_id):
    return f'<110>1 - - - - - [x id="{record_id}"] {{}}'.encode()


@pytest.fixture
def receiver(tmp_path):
    made = SyslogReceiver(tmp_path)
    yield made
    made.end()


@pytest.fixture
def connection(receiver):
    made = SyslogConnection("localhost", receiver.port, ca_file=receiver.certificate, send_seconds=5)
    yield made
    made.close()


def test_messages_arrive_each_with_its_length_in_front(receiver, connection):
    connection.send([message(FIRST), message(SECOND)])
    receiver.await_all({FIRST, SECOND})
    assert receiver.messages == [message(FIRST), message(SECOND)]


def test_a_connection_that_the_other_side_ended_is_noticed_and_made_anew(receiver, connection, eventually):
    connection.send([message(FIRST)])
    receiver.await_all({FIRST})
    assert connection.is_open
    receiver.end()
    eventually(lambda: not connection.is_open)
    with pytest.raises(Unavailable):
        connection.send([message(SECOND)])
    receiver.begin()
    connection.send([message(THIRD)])
    receiver.await_all({THIRD})


def test_another_certificate_is_not_accepted(receiver, tmp_path):
    write_certificate(tmp_path / "other.pem", tmp_path / "other.key")
    connection = SyslogConnection("localhost", receiver.port, ca_file=tmp_path / "other.pem")
    with pytest.raises(Unavailable):
        connection.send([message(FIRST)])
    assert receiver.ids == set()


def test_a_file_without_certificate_is_named(tmp_path):
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(Misconfigured):
        SyslogConnection("localhost", 6514, ca_file=tmp_path / "empty.pem")
