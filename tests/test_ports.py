"""Ports for servers that are about to be started."""

import socket
from pathlib import Path

import pytest

from recops import ports


def test_a_port_that_is_taken_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        first = ports.free_port()
        taken.bind(("127.0.0.1", first))
        monkeypatch.setattr(ports.random.SystemRandom, "sample", lambda *_: [first, first])
        with pytest.raises(OSError, match="no free port between"):
            ports.free_port()
    assert ports.free_port() == first


def test_no_connection_can_take_it_meanwhile() -> None:
    first_of_connections = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(ports.free_port() < first_of_connections for _ in range(50))
