"""A port that another program has is noticed before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.embedded import PortUnavailable, check_port, free_port
from jobs.embedded.stack import Stack


@contextmanager
def listener(port: int, *, address: str = "127.0.0.1", shared: bool = False) -> Iterator[None]:
    """A program that listens on the port, with SO_REUSEPORT if it is `shared`."""
    with socket.socket() as server:
        if shared:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((address, port))
        server.listen()
        yield


def test_a_free_port_is_available(free_port: int) -> None:
    check_port(free_port)
    with listener(free_port):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_port_on_which_another_program_listens_is_refused(free_port: int, address: str, shared: bool) -> None:
    with listener(free_port, address=address, shared=shared), pytest.raises(PortUnavailable) as raised:
        check_port(free_port)
    assert f"port {free_port} is taken" in str(raised.value)
    assert "--port" in str(raised.value)


def test_a_port_that_was_in_use_a_moment_ago_is_available(free_port: int) -> None:
    with listener(free_port), socket.create_connection(("127.0.0.1", free_port)):
        pass
    check_port(free_port)


def test_a_stack_on_a_port_that_is_taken_starts_nothing(free_port: int, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    with listener(free_port, shared=True), pytest.raises(PortUnavailable), Stack(folder, port=free_port):
        pass
    assert not folder.exists()


def test_a_free_port_differs_from_those_in_use() -> None:
    port = free_port()
    with listener(port):
        assert free_port() != port
