"""Ports for servers that have to be told theirs before they listen."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

FIRST, COUNT = 10_000, 12_000
"""Below the ports that the kernel gives to whoever asks for any (from 32,768); so are those 10,000 above."""


def free_port() -> int:
    """A port that nothing listens on now.

    Until a server listens on it, only another server that was told its port like this could take it.
    """
    while True:
        port = FIRST + secrets.randbelow(COUNT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
