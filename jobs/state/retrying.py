"""Redis, asked for as long as our patience lasts. What is asked can be repeated: our scripts see to that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import RedisError

from ..errors import RedisUnavailable
from .connection import Command, Wire

#: how long replicas may take to confirm a write
REPLICA_TIMEOUT_MS = 1000


class RetryingRedis:
    """One Redis. Thread-safe. Raises RedisUnavailable when it stays away for `patience_seconds`."""

    def __init__(self, redis: Redis, *, patience_seconds: float, replicas: int) -> None:
        self._wire = Wire(redis)
        self._patience_seconds = patience_seconds
        self._replicas = replicas
        self._closed = threading.Event()

    def patient(self, patience_seconds: float) -> RetryingRedis:
        """The same Redis, on the same connections, with another patience."""
        other = copy(self)
        other._patience_seconds = patience_seconds
        return other

    def close(self) -> None:
        """Ends all patience, so that whoever waits for Redis gets RedisUnavailable now, and hangs up."""
        self._closed.set()
        self._wire.close()

    def ask(self, *command: Any) -> Any:
        """The answer to one command."""
        return self.call(lambda: self._wire.ask(*command))

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What a script returns."""
        return self.call(lambda: self._wire.run(script, keys, arguments))

    def durably(self, script: Script, calls: Sequence[Command], keys: int) -> Sequence[Any]:
        """Runs a script that writes a record, once for each call, and has the replicas confirm it where that is wanted."""
        answers: Sequence[Any] = self.call(lambda: self._confirmed(script, calls, keys)) if calls else ()
        return answers

    def _confirmed(self, script: Script, calls: Sequence[Command], keys: int) -> Sequence[Any]:
        if not self._replicas:
            return self._wire.run_all(script, calls, keys)
        *answers, confirmed = self._wire.run_all(script, calls, keys, ("WAIT", self._replicas, REPLICA_TIMEOUT_MS))
        if confirmed < self._replicas:
            raise RedisError(f"{confirmed} of {self._replicas} replicas confirmed the write")
        return answers

    def execute(self, pipe: Pipeline) -> Any:
        """Runs a pipeline. One that failed forgets its commands, so each try is given them anew."""
        commands = list(pipe.command_stack)

        def again() -> Any:
            pipe.command_stack = list(commands)
            return pipe.execute()

        return self.call(again)

    def call(self, command: Callable[[], Any]) -> Any:
        """What `command` returns, which is tried again for as long as Redis is away."""
        give_up_at = time.monotonic() + self._patience_seconds
        wait = 0.05
        while True:
            try:
                return command()
            except RedisError as error:
                if time.monotonic() + wait > give_up_at or self._closed.wait(wait):
                    raise RedisUnavailable(f"Redis: {type(error).__name__}") from error
                wait = min(wait * 2, 1.0)
