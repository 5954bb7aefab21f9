"""Commands to Redis over connections that stay open.

redis-py's own way from a client to a connection and back (pool, events, metrics, a look whether it is readable) takes longer than
the command; every enqueue, callback and step of a worker waits for it. The connections are redis-py's all the same: settings, TLS,
health checks and protocol are its business. Transactions and subscriptions go through its client.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError, ResponseError

Command = Sequence[Any]


class Wire:
    """Asks one Redis. Thread-safe, and safe across a fork. Raises RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._idle: list[Any] = []
        self._pid = os.getpid()
        # A connection is part of a ring of objects, whose sockets the collector would leave open when it drops them.
        weakref.finalize(self, _hang_up, self._idle)

    def ask(self, *command: Any) -> Any:
        """The answer to one command, as bytes; one round trip."""
        return self.ask_all([command])[0]

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """What a script returns; one round trip."""
        return self.run_all(script, [(*keys, *args)], len(keys))[0]

    def run_all(self, script: Script, calls: Sequence[Command], keys: int, *behind: Command) -> list[Any]:
        """What a script returns for each call, of whose arguments the first `keys` are keys; then the answers to `behind`.

        One round trip, and one more when the server does not know the script: then all is sent again.
        """
        commands = [*(("EVALSHA", script.sha, keys, *call) for call in calls), *behind]
        try:
            return self.ask_all(commands)
        except NoScriptError:
            return self.ask_all([("SCRIPT", "LOAD", script.script), *commands])[1:]

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to all commands, in one round trip. The first that is an error is raised, once all were read."""
        connection = self._connection()
        try:
            # As often as the client's own `retry` says; a kept connection may have died with the server.
            answers = connection.retry.call_with_retry(
                lambda: _exchanged(connection, commands), lambda _: connection.disconnect()
            )
        except BaseException:
            # Whatever broke the exchange, no answer of it may be read by whoever comes next.
            connection.disconnect()
            raise
        finally:
            self._idle.append(connection)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return list(answers)

    def close(self) -> None:
        """Hangs up the connections that nobody uses."""
        _hang_up(self._idle)

    def _connection(self) -> Any:
        if self._pid != os.getpid():
            # A fork shares its parent's sockets: an answer would reach either.
            self._idle.clear()
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._pool.make_connection()


def _hang_up(connections: list[Any]) -> None:
    while connections:
        connections.pop().disconnect()


def _exchanged(connection: Any, commands: Sequence[Command]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    return [_answer(connection) for _ in commands]


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
