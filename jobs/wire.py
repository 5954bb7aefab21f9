"""Single commands to Redis over connections that stay open.

redis-py's own way from a client to a connection and back (pool, events, metrics, a look whether it is readable) takes longer than
the command; every enqueue, callback and step of a worker waits for it. The connections are redis-py's all the same: settings, TLS,
health checks and protocol are its business. Pipelines and subscriptions go through its client.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError, RedisError


class Wire:
    """Asks one Redis. Thread-safe, and safe across a fork. Raises RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def ask(self, *command: Any) -> Any:
        """The answer to one command, as bytes; one round trip."""
        connection = self._connection()
        try:
            # As often as the client's own `retry` says; a kept connection may have died with the server.
            return connection.retry.call_with_retry(
                lambda: _exchanged(connection, command), lambda _: connection.disconnect()
            )
        except RedisError:
            raise
        except BaseException:
            # Interrupted between question and answer: whoever came next would read our answer.
            connection.disconnect()
            raise
        finally:
            self._idle.append(connection)

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """What a script returns; its text goes out only when the server does not know it."""
        try:
            return self.ask("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return self.ask("EVAL", script.script, len(keys), *keys, *args)

    def _connection(self) -> Any:
        if self._pid != os.getpid():
            # A fork shares its parent's sockets: an answer would reach either.
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._pool.make_connection()


def _exchanged(connection: Any, command: tuple[Any, ...]) -> Any:
    connection.send_command(*command)
    return connection.read_response()
