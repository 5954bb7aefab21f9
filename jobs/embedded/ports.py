"""TCP ports of the loopback address: find a free one, and notice one that is taken."""

from __future__ import annotations

import errno
import os
import socket

from ..errors import DarkroomError

#: where every server of the embedded stack listens
HOST = "127.0.0.1"


class PortUnavailable(DarkroomError):
    """A server of the stack cannot listen on its port."""


def free_port() -> int:
    """A port on which no program listens at this moment."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def check_port(port: int) -> None:
    """Raise PortUnavailable unless a server can have the port for itself.

    The receiver's own server does not notice: it binds with SO_REUSEPORT, so a second one starts without an error and
    takes half of the connections.
    """
    with socket.socket() as probe:
        # Otherwise connections that were closed a moment ago would block the port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = "is taken: another program listens on it, perhaps another `darkroom up`"
            else:
                reason = f"cannot be used ({os.strerror(error.errno or 0)})"
            hint = "choose another one with --port; --port 0 takes any free port"
            raise PortUnavailable(f"port {port} {reason}; {hint}") from None
