"""Redis as Darkroom uses it: connected in one way, asked again during an outage, and named when it stays away.

Every command may be sent twice, for its answer may have been lost: our scripts
are written for that.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, TypeVar

from redis import BlockingConnectionPool, Redis, exceptions
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.retry import Retry

from ..errors import RedisUnavailable
from ..settings import redis_setting
from .wire import Command, Wire

#: connections of one client at most; a thread that finds all in use waits for one
MAX_CONNECTIONS = 64
#: for opening a connection, and for waiting until one is free, in seconds
CONNECT_SECONDS = 3.0
#: for one answer, in seconds
ANSWER_SECONDS = 10.0
#: a connection that was idle for so many seconds is tested before it is used
HEALTH_CHECK_SECONDS = 25
#: pauses between two tries: the first, and the longest, in seconds
BACKOFF_SECONDS = (0.05, 1.0)
#: how long replicas may take to confirm a write, in milliseconds
REPLICA_TIMEOUT_MS = 1000

#: error replies of an outage that passes, and what each says about the server; any other reply is an error to be mended
OUTAGES = {
    "READONLY": "it is a replica",
    "MASTERDOWN": "it is a replica without its primary",
    "LOADING": "it is loading its data",
    "MISCONF": "it cannot save its data to disk",
    "NOREPLICAS": "too few of its replicas are connected",
    "UNBLOCKED": "it was demoted to a replica, or an operator ended the call",
    "CLUSTERDOWN": "its cluster is down",
    "TRYAGAIN": "its cluster is moving the keys",
    "BUSY": "a script is blocking it",
    "OOM": "its memory is full",
}
#: in a reply to a script, older servers put the code of the error behind the place where it arose
_CODE = re.compile(rf"(?:^|-)({'|'.join(OUTAGES)})\b")

_BACKOFF = ExponentialBackoff(base=BACKOFF_SECONDS[0] / 2, cap=BACKOFF_SECONDS[1])

T = TypeVar("T")


class NotConfirmed(exceptions.RedisError):
    """Fewer replicas confirmed a write than DARKROOM_REDIS_WAIT_REPLICAS asks for."""


def connect(url: str, *, answer_seconds: float = ANSWER_SECONDS) -> Redis:
    """A client of the Redis at this URL; it connects when it is first used, and is safe across threads and forks."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=CONNECT_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=answer_seconds,
        socket_keepalive=True,
        health_check_interval=HEALTH_CHECK_SECONDS,
        # Once, at once, for a connection that died with the server while it was idle; all further patience is ours.
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


def backoff_seconds(failures: int) -> float:
    """The pause after so many failures in a row, in seconds."""
    # Beyond some powers of two redis-py's own back-off overflows.
    return _BACKOFF.compute(min(failures, 16))


def outage(error: exceptions.RedisError) -> str:
    """What an error says about a server that may soon work again; empty for an error that stays."""
    if isinstance(error, NotConfirmed):
        return str(error)
    code = error.status_code or ""
    if code not in OUTAGES and (match := _CODE.search(str(error))):
        code = match[1]
    if code in OUTAGES:
        return f"it replied {code}: {OUTAGES[code]}"
    # The text of these names the address and the cause, and no part of a command.
    return str(error).rstrip(".") if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)) else ""


def unavailable(redis: Redis, error: exceptions.RedisError) -> RedisUnavailable:
    """The error for our callers: it names the address, without a password, and the setting."""
    settings = redis.connection_pool.connection_kwargs
    host = settings.get("host", "localhost")
    address = settings.get("path") or f"{f'[{host}]' if ':' in host else host}:{settings.get('port', 6379)}"
    where = f"Redis at {address}/{settings.get('db', 0)}"
    if isinstance(error, exceptions.AuthenticationError):
        advice = f"check the user and the password in {redis_setting()}"
        return RedisUnavailable(f"{where} refused access; {advice}")
    if reason := outage(error):
        advice = f"check that it is running and that {redis_setting()} names it, then try again"
        return RedisUnavailable(f"{where} is not available ({reason}); {advice}")
    code = error.status_code or next(iter(re.findall(r"^[A-Z]+\b", str(error))), type(error).__name__)
    advice = f"check its version, its permissions, and what else uses the database that {redis_setting()} names"
    return RedisUnavailable(f"{where} refused a command ({code}); {advice}")


class RetryingRedis:
    """One Redis, asked again for `patience_seconds` while it is not available. Thread-safe. Raises RedisUnavailable.

    With `replicas`, `write` succeeds only when that many replicas have confirmed.
    """

    def __init__(self, redis: Redis, *, patience_seconds: float = 0.0, replicas: int = 0) -> None:
        self._redis = redis
        self._wire = Wire(redis.connection_pool)
        self._patience_seconds = patience_seconds
        self._replicas = replicas
        self._closed = threading.Event()

    def with_patience(self, patience_seconds: float) -> RetryingRedis:
        """The same Redis, on the same connections, with another patience."""
        other = copy(self)
        other._patience_seconds = patience_seconds
        return other

    def close(self) -> None:
        """Retry no more, so that calls in progress raise RedisUnavailable soon, and close idle connections."""
        self._closed.set()
        self._wire.hang_up()

    def call(self, command: Callable[[Redis], T]) -> T:
        """What `command` returns; it is called again after an outage."""
        return self._retried(lambda: command(self._redis))

    def pipeline(self, fill: Callable[[Pipeline], object]) -> Any:
        """The answers to the commands that `fill` puts into a pipeline. One round trip."""

        def execute() -> Any:
            with self._redis.pipeline(transaction=False) as pipe:
                fill(pipe)
                answers = pipe.execute(raise_on_error=False)
            # redis-py would write the command, with the user's data, into the text of an error that it raises itself.
            for answer in answers:
                if isinstance(answer, exceptions.RedisError):
                    raise answer
            return answers

        return self._retried(execute)

    def ask(self, *command: Any) -> Any:
        """The answer to one command, as bytes. One round trip."""
        return self._retried(lambda: self._wire.ask([command])[0])

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What a script returns. One round trip, and one more when the server does not know the script."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        return self._retried(lambda: self._evaluated(script, [command])[0])

    def write(self, script: Script, calls: Sequence[Command], keys: int) -> Sequence[Any]:
        """What a script that writes records returns for each call, of whose arguments the first `keys` are keys.

        One round trip, and one more when the server does not know the script; then all calls are repeated.
        """
        commands: list[Command] = [("EVALSHA", script.sha, keys, *call) for call in calls]
        if commands and self._replicas:
            commands.append(("WAIT", self._replicas, REPLICA_TIMEOUT_MS))

        def write() -> Sequence[Any]:
            answers = self._evaluated(script, commands)
            if self._replicas and answers[-1] < self._replicas:
                raise NotConfirmed(f"{answers[-1]} of {self._replicas} replicas confirmed the write")
            return answers[: len(calls)]

        return self._retried(write) if commands else ()

    def _evaluated(self, script: Script, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._wire.ask(commands)
        except exceptions.NoScriptError:
            return self._wire.ask([("SCRIPT", "LOAD", script.script), *commands])[1:]

    def _retried(self, attempt: Callable[[], T]) -> T:
        give_up_at = time.monotonic() + self._patience_seconds

        def can_retry(error: Exception) -> bool:
            assert isinstance(error, exceptions.RedisError)
            if isinstance(error, exceptions.ResponseError) and outage(error):
                # A server that was demoted keeps its connections open; the next one may reach the new primary.
                self._wire.hang_up()
            return bool(outage(error)) and time.monotonic() < give_up_at and not self._closed.is_set()

        def pause(_: Exception, failures: int) -> None:
            self._closed.wait(min(backoff_seconds(failures), max(0.0, give_up_at - time.monotonic())))

        try:
            return _FOREVER.call_with_retry(attempt, pause, can_retry, with_failure_count=True)
        except exceptions.RedisError as error:
            raise unavailable(self._redis, error) from error


#: `_retried` says when to stop, and pauses by itself, so that `close` can end a pause
_FOREVER = Retry(NoBackoff(), -1, (exceptions.RedisError,))
