"""Round trips to Redis on connections that stay with us.

redis-py's client borrows a connection for each command, looks whether it is readable, and keeps metrics; that takes longer than
the command itself, and every enqueue, callback and step of a worker would wait for it (`enqueue` is 7 % slower). So what is asked
at each step of a job goes straight to redis-py's connections. Their settings, TLS, health checks and protocol stay its
business, but it does not document these of their methods for others: `pack_commands`, `send_packed_command`, `read_response`,
`disconnect` and `retry`. `tests/jobs/state/test_wire.py` fails when one of them changes. Nothing else of Darkroom uses them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import BlockingConnectionPool, ConnectionPool
from redis.exceptions import ResponseError

#: connections that are kept while they are idle; the others go back to the pool
KEPT_CONNECTIONS = 16

Command = Sequence[Any]


class Wire:
    """Asks one Redis. Thread-safe, and safe across a fork. Raises redis-py's errors."""

    def __init__(self, pool: ConnectionPool | BlockingConnectionPool) -> None:
        self._pool = pool
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to all commands, in one round trip. The first that is an error is raised when all have been read."""
        if self._pid != os.getpid():
            # A fork shares the sockets of its parent; the pool closes ours when they are released.
            self._idle, self._pid = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.get_connection()

        def exchange() -> list[Any]:
            connection.send_packed_command(connection.pack_commands(commands))
            return [_answer(connection) for _ in commands]

        try:
            # Once more, at once, as the client's own `retry` says: an idle connection may have died with the server.
            answers = connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
        except BaseException:
            # An answer that was not read must not be read by the next caller.
            connection.disconnect()
            raise
        finally:
            if len(self._idle) < KEPT_CONNECTIONS:
                self._idle.append(connection)
            else:
                self._pool.release(connection)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return list(answers)

    def hang_up(self) -> None:
        """Close all connections that are idle."""
        with suppress(IndexError):
            while True:
                self._pool.release(self._idle.pop())
        self._pool.disconnect(inuse_connections=False)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
