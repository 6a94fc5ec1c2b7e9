from __future__ import annotations

import socket

import pytest

from gateway.model.errors import Misconfigured
from gateway.server.listener import bind


def test_a_bound_socket_listens_at_once():
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_name_is_resolved():
    with bind("localhost", 0) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("host", "port", "where"),
    [("203.0.113.7", 0, "203.0.113.7:0"), ("::5", 0, "[::5]:0"), ("127.0.0.1", 70_000, "127.0.0.1:70000")],
)
def test_an_address_that_cannot_be_listened_on_is_a_configuration_error(host, port, where):
    with pytest.raises(Misconfigured) as caught:
        bind(host, port)
    assert caught.value.where == where


def test_a_port_in_use_says_what_to_do():
    with bind("127.0.0.1", 0) as first, pytest.raises(Misconfigured, match="choose another port"):
        bind("127.0.0.1", first.getsockname()[1])
