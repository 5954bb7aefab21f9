"""Jobs in Redis: the truth.

A record is one string, `<schema>.<writes>.<nonce> <json>`; what stands before the space is its version. Beside the records
stand a few sorted sets, all written by the script that writes the record, so that they never disagree:

    darkroom:job:<id>          the record; expires after its retention once the job is final
    darkroom:due               job ids by the time at which the sweep must look at them
    darkroom:line:<provider>   queued jobs that nobody holds, by the time at which a worker may take them
    darkroom:index:<status>    job ids by creation, for listing; `index:unknown`: those with an end nobody saw
    darkroom:owned:<owner>     the same for the jobs of one API key; expires with the last of them
    darkroom:holders           worker processes by the end of their lease; darkroom:workers: what they serve
    darkroom:ticked            when any worker was last heard; darkroom:grace: nobody is believed dead while it is there
    darkroom:held:<holder>     the jobs that a worker process has in its hands
    darkroom:idempotency:<..>  the job that was enqueued with a key, and the digest of its request
    darkroom:changed:<id>      a channel: the job's status changed

All times are Redis' own. `update` is the one write to an existing job: it reads, applies a pure change and writes if nobody
wrote in between (one round trip each, none for the read when the caller knows the record).
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pydantic import TypeAdapter
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import RedisError
from redis.retry import Retry

from .errors import JobNotFound, RedisUnavailable, Unavailable
from .job import Job, Status
from .values import replace
from .wire import Command, Wire

#: the version of the record's shape; a process leaves records of a later one alone
SCHEMA = 1
#: a worker process is believed dead when it has not renewed its lease for so long
LEASE_SECONDS = 8.0
#: when no worker at all was heard for so long, Redis must have been away (workers tick twice a second)
SILENCE_SECONDS = 3.0
#: after an outage of Redis nobody is believed dead for so long, so that the living can renew first
GRACE_SECONDS = 5.0
#: what the sweep popped comes back after so long if the sweeping process died over it
SWEEP_LEASE_SECONDS = 10.0
#: what a dead worker held comes back sooner, for a rescuer may die too, and both are to be found within 15 s
RESCUE_LEASE_SECONDS = 5.0
#: a queued job whose message has not arrived after so long is taken from the line
MESSAGE_GRACE_SECONDS = 10.0
#: how long replicas may take to confirm a write
REPLICA_TIMEOUT_MS = 1000
#: how long the measured distance to Redis' clock is trusted
CLOCK_SECONDS = 30.0

#: the longest that a job can live before its retention begins: the longest deadline, deliveries, and a margin
_LONGEST_LIFE_SECONDS = 14 * 86_400

PREFIX = "darkroom:"

Transition = Callable[[Job, datetime], Job]

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

_CREATE = (
    _NOW
    + """
-- KEYS job due line index queue idempotency owned; ARGV id record due line created message digest retention owned_ms
-- Repeated because its answer was lost, it must not undo what a worker has written since.
if redis.call('EXISTS', KEYS[1]) == 1 then return {1, now, ''} end
if ARGV[7] ~= '' then
  local first = redis.call('GET', KEYS[6])
  if first then return {0, now, first} end
  redis.call('SET', KEYS[6], ARGV[1] .. ' ' .. ARGV[7], 'EX', ARGV[8])
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
if ARGV[6] ~= '' then redis.call('LPUSH', KEYS[5], ARGV[6]) end
if ARGV[9] ~= '' then
  redis.call('ZADD', KEYS[7], ARGV[5], ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now - ARGV[9])
  redis.call('PEXPIRE', KEYS[7], ARGV[9])
end
return {1, now, ''}
"""
)

_CREATE_MANY = (
    _NOW
    + """
-- KEYS due idempotency owned, then of each: job line index queue
-- ARGV jobs ids digest retention owned_ms, then of each: id record due line created message
if redis.call('EXISTS', KEYS[4]) == 1 then return {1, now, ''} end
if ARGV[3] ~= '' then
  local first = redis.call('GET', KEYS[2])
  if first then return {0, now, first} end
  redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. ARGV[3], 'EX', ARGV[4])
end
for i = 0, ARGV[1] - 1 do
  local k, a = 3 + 4 * i, 5 + 6 * i
  redis.call('SET', KEYS[k + 1], ARGV[a + 2])
  redis.call('ZADD', KEYS[1], ARGV[a + 3], ARGV[a + 1])
  redis.call('ZADD', KEYS[k + 2], ARGV[a + 4], ARGV[a + 1])
  redis.call('ZADD', KEYS[k + 3], ARGV[a + 5], ARGV[a + 1])
  if ARGV[a + 6] ~= '' then redis.call('LPUSH', KEYS[k + 4], ARGV[a + 6]) end
  if ARGV[5] ~= '' then redis.call('ZADD', KEYS[3], ARGV[a + 5], ARGV[a + 1]) end
end
if ARGV[5] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
return {1, now, ''}
"""
)

_WRITE = (
    _NOW
    + """
-- KEYS job due line from to held_from held_to unknown queue channel holders
-- ARGV id expected record due line created retention unknown message holder status lease_ms
local old = redis.call('GET', KEYS[1])
if not old or string.sub(old, 1, #ARGV[2] + 1) ~= ARGV[2] .. ' ' then return {0, now, old or ''} end
local id = ARGV[1]
if ARGV[7] ~= '' then redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[7]) else redis.call('SET', KEYS[1], ARGV[3]) end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[2], ARGV[4], id) else redis.call('ZREM', KEYS[2], id) end
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[3], ARGV[5], id) else redis.call('ZREM', KEYS[3], id) end
if KEYS[6] ~= KEYS[7] then
  redis.call('SREM', KEYS[6], id)
  if ARGV[10] ~= '' then
    redis.call('SADD', KEYS[7], id)
    -- A worker that was believed dead and forgotten may still claim: should it die now, it must be missed.
    redis.call('ZADD', KEYS[11], 'NX', now + ARGV[12], ARGV[10])
  end
end
if ARGV[8] == '1' then redis.call('ZADD', KEYS[8], ARGV[6], id) elseif ARGV[8] == '0' then redis.call('ZREM', KEYS[8], id) end
if KEYS[4] ~= KEYS[5] then
  redis.call('ZREM', KEYS[4], id)
  redis.call('ZADD', KEYS[5], ARGV[6], id)
end
if ARGV[9] ~= '' then redis.call('LPUSH', KEYS[9], ARGV[9]) end
redis.call('PUBLISH', KEYS[10], ARGV[11])
return {1, now, ''}
"""
)

_TICK = (
    _NOW
    + """
-- KEYS holders due grace workers ticked; ARGV holder lease_ms grace_ms sweep_ms limit held_prefix description silence_ms rescue_ms
-- When nobody has been heard, Redis was away, and those who were silent may live.
local last = redis.call('GET', KEYS[5])
redis.call('SET', KEYS[5], now)
if last and now - last > tonumber(ARGV[8]) then redis.call('SET', KEYS[3], '1', 'PX', ARGV[3]) end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[4], ARGV[1], ARGV[7])
local graced = redis.call('EXISTS', KEYS[3]) == 1
local rescued = {}
if not graced then
  for _, dead in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)) do
    local held = ARGV[6] .. dead
    local ids = redis.call('SPOP', held, 500)
    for _, id in ipairs(ids) do
      redis.call('ZADD', KEYS[2], now, id)
      rescued[id] = now + ARGV[9]
    end
    if redis.call('EXISTS', held) == 0 then
      redis.call('ZREM', KEYS[1], dead)
      redis.call('HDEL', KEYS[4], dead)
    end
  end
end
local due = redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[5])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[2], rescued[id] or now + ARGV[4], id) end
local living = redis.call('ZRANGE', KEYS[1], graced and '-inf' or now, '+inf', 'BYSCORE')
return {now, due, living}
"""
)

_TAKE = (
    _NOW
    + """
-- KEYS line; ARGV limit sweep_ms
local ids = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], now + ARGV[2], id) end
return {now, ids}
"""
)

_record = TypeAdapter(Job)
_NOT_RECORDED: Any = {"id": True, "version": True, "artifacts": {"__all__": {"sign"}}}


@dataclass(frozen=True)
class Change:
    """What `update` did: the job as it was read and as it stands now."""

    before: Job
    after: Job

    @property
    def made(self) -> bool:
        """Whether the change was written, rather than found to be stale."""
        return self.after is not self.before


@dataclass(frozen=True)
class Message:
    """A Celery message that is pushed by the script that writes the record: a list's key and an element."""

    queue: str
    body: bytes


@dataclass(frozen=True)
class Update:
    """A change that is wanted of a job; `known` saves the reading."""

    job_id: str
    change: Transition
    known: Job | None = None
    #: what the script that writes the changed record pushes along
    message: Callable[[Job], Message | None] = lambda _: None


@dataclass(frozen=True)
class Tick:
    """What one renewal of a worker's lease brought: due job ids, and the holders that live."""

    now: datetime
    due: tuple[str, ...]
    living: frozenset[str]


class Repository:
    """Jobs in one Redis database. Thread-safe. Raises RedisUnavailable when Redis stays away for `patience_seconds`.

    With `replicas`, a write to a record has succeeded only when so many replicas have it too.
    """

    def __init__(
        self, redis: Redis, *, retention_seconds: int, patience_seconds: float = 0.0, replicas: int = 0
    ) -> None:
        self._redis = redis
        self._wire = Wire(redis)
        self._retention = retention_seconds
        self._patience = patience_seconds
        self._replicas = replicas
        self._closed = threading.Event()
        self.clock = Clock()
        self._create = redis.register_script(_CREATE)
        self._create_many = redis.register_script(_CREATE_MANY)
        self._write = redis.register_script(_WRITE)
        self._tick = redis.register_script(_TICK)
        self._take = redis.register_script(_TAKE)

    @classmethod
    def open(cls, url: str, *, retention_seconds: int, patience_seconds: float = 0.0, replicas: int = 0) -> Repository:
        """The repository at this Redis URL; connects when first used."""
        redis = Redis.from_url(
            url,
            socket_timeout=10,
            socket_connect_timeout=3,
            socket_keepalive=True,
            health_check_interval=25,
            # Once, at once, for a pooled connection that died with the server; all further patience is ours.
            retry=Retry(NoBackoff(), 1),
        )
        return cls(redis, retention_seconds=retention_seconds, patience_seconds=patience_seconds, replicas=replicas)

    def patient(self, patience_seconds: float) -> Repository:
        """The same repository, on the same connections and clock, with another patience."""
        other = copy(self)
        other._patience = patience_seconds
        return other

    def close(self) -> None:
        """Ends all patience, so that whoever waits for Redis gets RedisUnavailable now, and hangs up."""
        self._closed.set()
        self._wire.close()

    # --- reading --------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Redis' time; a round trip only when it has not been heard for half a minute."""
        if not self.clock.fresh:
            seconds, micros = cast(tuple[int, int], self._ask(self._redis.time))
            self.clock.set(seconds * 1000 + micros // 1000)
        return self.clock.now()

    def get(self, job_id: str) -> Job:
        """The job. Raises JobNotFound."""
        return _parse(job_id, self._texts([job_id])[0])

    def get_many(self, job_ids: Sequence[str]) -> Mapping[str, Job | None]:
        """The jobs by id, None for each that is forgotten; records of a later version are left out. One round trip."""
        return {
            job_id: _parse(job_id, text) if text else None
            for job_id, text in zip(job_ids, self._texts(job_ids), strict=True)
            if not text or _schema(text) <= SCHEMA
        }

    def _texts(self, job_ids: Sequence[str]) -> Sequence[bytes | None]:
        if not job_ids:
            return ()
        return cast(list[bytes | None], self._ask(lambda: self._wire.ask("MGET", *map(_job, job_ids))))

    def list(
        self,
        statuses: Iterable[Status] = (),
        *,
        unknown: bool = False,
        owner: str = "",
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> tuple[Job, ...]:
        """The latest jobs first, in these statuses (all by default); `before` is (created_at in ms, id) of the last one seen.

        With an owner, its jobs in whatever status.
        """
        keys = [_index("unknown")] if unknown else [_index(status) for status in (tuple(statuses) or tuple(Status))]
        if owner:
            keys = [_owned(owner)]
        top = "+inf" if before is None else before[0]
        with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.zrange(
                    key,
                    cast(Any, top),
                    cast(Any, "-inf"),
                    desc=True,
                    byscore=True,
                    withscores=True,
                    offset=0,
                    num=limit + 64,
                )
            pages = cast(list[list[tuple[bytes, float]]], self._execute(pipe))
        found = sorted(((score, name.decode()) for page in pages for name, score in page), reverse=True)
        ids = [name for score, name in found if before is None or (score, name) < before][:limit]
        return tuple(job for job in self.get_many(ids).values() if job is not None)

    def count(self) -> Mapping[str, int]:
        """How many jobs the index holds, by status, and `unknown`; one round trip."""
        names = [*Status, "unknown"]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zcard(_index(name))
            return dict(zip(names, cast(list[int], self._execute(pipe)), strict=True))

    # --- writing --------------------------------------------------------------------------------------------------

    def create(
        self, job: Job, *, message: Message | None = None, idempotency_key: str = "", request_digest: str = ""
    ) -> tuple[str, str] | None:
        """Writes a new job, its message in the same step. One round trip.

        Returns None, or the id and the request digest of the job that was created with this idempotency key before.
        """
        line = _due_ms(job.wake_at or job.created_at) + int(MESSAGE_GRACE_SECONDS * 1000)
        key, owned = _idempotency(job.owner, idempotency_key), _owned(job.owner)
        queue = message.queue if message else _DUE
        keys = [_job(job.id), _DUE, _line(job.provider), _index(job.status), queue, key, owned]
        argv: list[Any] = [
            job.id,
            _record_bytes(job, _next_version("")),
            _due_ms(job.deadline_at),
            line,
            _ms(job.created_at),
            message.body if message else b"",
            request_digest if idempotency_key else "",
            self._retention,
            self._owned_ms if job.owner else "",
        ]
        _, now, first = cast(tuple[int, int, bytes], self._durably(self._create, [(*keys, *argv)], len(keys))[0])
        self.clock.set(now)
        if not first:
            return None
        job_id, digest = first.decode().split(" ", 1)
        return None if job_id == job.id else (job_id, digest)

    def create_many(
        self, jobs: Sequence[tuple[Job, Message | None]], *, idempotency_key: str = "", request_digest: str = ""
    ) -> tuple[tuple[str, ...], str] | None:
        """Writes new jobs of one owner, their messages in the same step: all or none. One round trip.

        Returns None, or the ids and the request digest of the jobs that were created with this idempotency key before.
        """
        owner, ids = jobs[0][0].owner, ",".join(job.id for job, _ in jobs)
        keys = [_DUE, _idempotency(owner, idempotency_key), _owned(owner)]
        digest = request_digest if idempotency_key else ""
        argv: list[Any] = [len(jobs), ids, digest, self._retention, self._owned_ms if owner else ""]
        for job, message in jobs:
            line = _due_ms(job.wake_at or job.created_at) + int(MESSAGE_GRACE_SECONDS * 1000)
            keys += [_job(job.id), _line(job.provider), _index(job.status), message.queue if message else _DUE]
            argv += [job.id, _record_bytes(job, _next_version("")), _due_ms(job.deadline_at), line, _ms(job.created_at)]
            argv.append(message.body if message else b"")
        answers = self._durably(self._create_many, [(*keys, *argv)], len(keys))
        _, now, first = cast(tuple[int, int, bytes], answers[0])
        self.clock.set(now)
        if not first:
            return None
        known, _, digest = first.decode().partition(" ")
        return None if known == ids else (tuple(known.split(",")), digest)

    @property
    def _owned_ms(self) -> int:
        """How long an owner's index knows a job: longer than its record can live."""
        return 1000 * (self._retention + _LONGEST_LIFE_SECONDS)

    def idempotent(self, owner: str, idempotency_key: str) -> tuple[str, str] | None:
        """The id and the request digest of the job that was created with this key, if any."""
        first = cast(bytes | None, self._ask(lambda: self._wire.ask("GET", _idempotency(owner, idempotency_key))))
        return cast(tuple[str, str], tuple(first.decode().split(" ", 1))) if first else None

    def update(
        self,
        job_id: str,
        change: Transition,
        *,
        known: Job | None = None,
        message: Callable[[Job], Message | None] = lambda _: None,
    ) -> Change:
        """The one write to an existing job: applies a pure change, and again upon the newer record if somebody was faster.

        `known` saves the reading. Raises JobNotFound, and whatever `change` raises; then nothing was written.
        """
        [end] = self.update_all([Update(job_id, change, known, message)])
        if isinstance(end, Change):
            return end
        raise end

    def update_all(self, updates: Sequence[Update]) -> Sequence[Change | Exception]:
        """Many updates in the round trips of one; each has its own end: what it did, or what `update` would raise."""
        ends: dict[int, Change | Exception] = {}
        now = self.now()
        standing = self._known(updates, ends)
        while standing:
            writes: dict[int, _Write] = {}
            for number, before in standing.items():
                try:
                    write = _written(updates[number], before, now, self._retention)
                except Exception as error:  # noqa: BLE001 - it is this update's end, not the others'
                    ends[number] = error
                    continue
                if write.after is before:
                    ends[number] = Change(before, before)
                else:
                    writes[number] = write
            standing = self._settled(writes, ends)
        return [ends[number] for number in range(len(updates))]

    def _known(self, updates: Sequence[Update], ends: dict[int, Change | Exception]) -> dict[int, Job]:
        """The job of each update as far as it is known, read where it is not."""
        unread = list({update.job_id for update in updates if update.known is None})
        texts = dict(zip(unread, self._texts(unread), strict=True))
        standing: dict[int, Job] = {}
        for number, update in enumerate(updates):
            try:
                standing[number] = update.known or _parse(update.job_id, texts[update.job_id])
            except (Unavailable, JobNotFound) as error:
                ends[number] = error
        return standing

    def _settled(self, writes: Mapping[int, _Write], ends: dict[int, Change | Exception]) -> dict[int, Job]:
        """Writes what was not overtaken; returns the newer records of those that were."""
        overtaken: dict[int, Job] = {}
        answers = self._durably(self._write, [write.call for write in writes.values()], _WRITE_KEYS)
        for (number, write), (written, now, newer) in zip(writes.items(), answers, strict=True):
            self.clock.set(now)
            try:
                current = None if written else _parse(write.after.id, newer)
            except (Unavailable, JobNotFound) as error:
                ends[number] = error
                continue
            # A write whose answer was lost is found again by its nonce.
            if current is None or current.version == write.version:
                ends[number] = Change(write.before, replace(write.after, version=write.version))
            else:
                overtaken[number] = current
        return overtaken

    # --- a worker's own -------------------------------------------------------------------------------------------

    def tick(self, holder: str, description: Mapping[str, Any], limit: int) -> Tick:
        """Renews the lease of `holder`, hands on what dead holders held, and pops up to `limit` due ids. One round trip."""
        keys = [_HOLDERS, _DUE, PREFIX + "grace", _WORKERS, PREFIX + "ticked"]
        argv: list[Any] = [
            holder,
            int(LEASE_SECONDS * 1000),
            int(GRACE_SECONDS * 1000),
            int(SWEEP_LEASE_SECONDS * 1000),
            limit,
            _held(""),
            json.dumps(description),
            int(SILENCE_SECONDS * 1000),
            int(RESCUE_LEASE_SECONDS * 1000),
        ]
        now, due, living = cast(
            tuple[int, list[bytes], list[bytes]], self._ask(lambda: self._wire.run(self._tick, keys, argv))
        )
        self.clock.set(now)
        return Tick(_time(now), tuple(id.decode() for id in due), frozenset(name.decode() for name in living))

    def take(self, provider: str, limit: int) -> tuple[str, ...]:
        """Up to `limit` queued jobs of a provider whose message did not come, or whose back-off is over. One round trip."""
        argv: list[Any] = [limit, int(SWEEP_LEASE_SECONDS * 1000)]
        now, ids = cast(tuple[int, list[bytes]], self._ask(lambda: self._wire.run(self._take, [_line(provider)], argv)))
        self.clock.set(now)
        return tuple(id.decode() for id in ids)

    def leave(self, holder: str) -> None:
        """A worker process that holds nothing any more says good-bye."""
        with self._redis.pipeline() as pipe:
            pipe.zrem(_HOLDERS, holder)
            pipe.hdel(_WORKERS, holder)
            self._execute(pipe)

    def held(self, holder: str) -> tuple[str, ...]:
        """The ids of the jobs in a worker's hands."""
        ids = cast(set[bytes], self._ask(lambda: self._redis.smembers(_held(holder))))
        return tuple(sorted(id.decode() for id in ids))

    def waiting(self, queues: Sequence[str]) -> int:
        """How many messages wait in these lists of the broker, where it is this Redis. One round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in queues:
                pipe.llen(name)
            return sum(cast(list[int], self._execute(pipe)))

    def forget(self, job_id: str, provider: str = "") -> None:
        """Takes an id whose record is gone out of the due set and its line."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrem(_DUE, job_id)
            if provider:
                pipe.zrem(_line(provider), job_id)
            self._execute(pipe)

    def prune(self) -> int:
        """Takes final jobs whose records expired out of the index; returns how many."""
        horizon = _ms(self.now()) - 1000 * (self._retention + 86_400)
        with self._redis.pipeline(transaction=False) as pipe:
            for name in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, "unknown"):
                pipe.zremrangebyscore(_index(name), "-inf", horizon)
            return sum(cast(list[int], self._execute(pipe)))

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """The living worker processes by holder id, and what each says of itself."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(_HOLDERS, _ms(self.now()), "+inf")
            pipe.hgetall(_WORKERS)
            living, said = cast(tuple[list[bytes], dict[bytes, bytes]], self._execute(pipe))
        return {name.decode(): json.loads(said[name]) for name in living if name in said}

    def served(self) -> frozenset[str]:
        """The operations that some living worker serves."""
        return frozenset(name for worker in self.workers().values() for name in worker.get("operations", ()))

    # --- waiting and health ---------------------------------------------------------------------------------------

    @contextmanager
    def changes(self, job_id: str) -> Iterator[Callable[[float], bool]]:
        """Listens for changes of a job; the value waits up to so many seconds and says whether one came."""
        listener = self._redis.pubsub(  # type: ignore[no-untyped-call]
            ignore_subscribe_messages=True
        )
        try:
            self._ask(lambda: listener.subscribe(channel(job_id)))
            yield lambda seconds: self._ask(lambda: listener.get_message(timeout=seconds)) is not None
        finally:
            listener.close()

    def ping(self) -> float:
        """Seconds of one round trip. Raises RedisUnavailable."""
        started = time.perf_counter()
        self._ask(self._redis.ping)
        return time.perf_counter() - started

    def _durably(self, script: Script, calls: Sequence[Command], keys: int) -> Sequence[Any]:
        """Runs a script that writes a record, once for each call, and has the replicas confirm it where that is wanted."""
        answers: Sequence[Any] = self._ask(lambda: self._confirmed(script, calls, keys)) if calls else ()
        return answers

    def _confirmed(self, script: Script, calls: Sequence[Command], keys: int) -> Sequence[Any]:
        if not self._replicas:
            return self._wire.run_all(script, calls, keys)
        *answers, confirmed = self._wire.run_all(script, calls, keys, ("WAIT", self._replicas, REPLICA_TIMEOUT_MS))
        if confirmed < self._replicas:
            raise RedisError(f"{confirmed} of {self._replicas} replicas confirmed the write")
        return answers

    def _execute(self, pipe: Pipeline) -> Any:
        """Runs a pipeline. One that failed forgets its commands, so each try is given them anew."""
        commands = list(pipe.command_stack)

        def again() -> Any:
            pipe.command_stack = list(commands)
            return pipe.execute()

        return self._ask(again)

    def _ask(self, command: Callable[[], Any]) -> Any:
        """Runs a command, again for as long as our patience lasts; every script of ours can be repeated."""
        give_up_at = time.monotonic() + self._patience
        wait = 0.05
        while True:
            try:
                return command()
            except RedisError as error:
                if time.monotonic() + wait > give_up_at or self._closed.wait(wait):
                    raise RedisUnavailable(f"Redis: {type(error).__name__}") from error
                wait = min(wait * 2, 1.0)


class Clock:
    """Redis' clock, kept by its measured distance to ours."""

    def __init__(self) -> None:
        self._ahead_ms = 0.0
        self._heard_at = float("-inf")

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._heard_at < CLOCK_SECONDS

    def set(self, redis_ms: int) -> None:
        self._ahead_ms = redis_ms - time.time() * 1000
        self._heard_at = time.monotonic()

    def now(self) -> datetime:
        return _time(time.time() * 1000 + self._ahead_ms)


_DUE = PREFIX + "due"
_HOLDERS = PREFIX + "holders"
_WORKERS = PREFIX + "workers"


def channel(job_id: str) -> str:
    """The channel on which changes of a job are told."""
    return f"{PREFIX}changed:{job_id}"


def _job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def _line(provider: str) -> str:
    return f"{PREFIX}line:{provider}"


def _index(name: str) -> str:
    return f"{PREFIX}index:{name}"


def _owned(owner: str) -> str:
    return f"{PREFIX}owned:{owner}"


def _held(holder: str | None) -> str:
    return f"{PREFIX}held:{holder or ''}"


def _idempotency(owner: str, key: str) -> str:
    return PREFIX + "idempotency:" + hashlib.sha256(f"{owner}\n{key}".encode()).hexdigest()


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _due_ms(at: datetime) -> int:
    """The millisecond by which the time has come: what is popped a fraction early would wait for its next turn."""
    return math.ceil(at.timestamp() * 1000)


def _time(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _next_version(version: str) -> str:
    writes = int(version.split(".")[1]) if version else 0
    return f"{SCHEMA}.{writes + 1}.{secrets.token_hex(4)}"


def _record_bytes(job: Job, version: str) -> bytes:
    return version.encode() + b" " + _record.dump_json(job, exclude=_NOT_RECORDED, exclude_defaults=True)


@dataclass(frozen=True)
class _Write:
    """One record as it is to be written, if nobody wrote in between."""

    before: Job
    after: Job
    version: str = ""
    #: what the script gets: `_WRITE_KEYS` keys, then its arguments
    call: Command = ()


_WRITE_KEYS = 11


def _written(update: Update, before: Job, now: datetime, retention_seconds: int) -> _Write:
    # Two processes' ideas of Redis' time differ by a round trip; a job's own time must not run backwards by it.
    after = update.change(before, max(now, before.updated_at))
    if after is before:
        return _Write(before, before)
    message, version = update.message(after), _next_version(before.version)
    line, grace = after.line_at, MESSAGE_GRACE_SECONDS if message else 0.0
    keys = (
        _job(after.id),
        _DUE,
        _line(after.provider),
        _index(before.status),
        _index(after.status),
        _held(before.holder),
        _held(after.holder),
        _index("unknown"),
        message.queue if message else _DUE,
        channel(after.id),
        _HOLDERS,
    )
    arguments = (
        after.id,
        before.version,
        _record_bytes(after, version),
        _due_ms(after.due_at) if after.due_at else "",
        _due_ms(line + timedelta(seconds=grace)) if line else "",
        _ms(after.created_at),
        retention_seconds if after.settled else "",
        "" if before.unknown == after.unknown else str(int(after.unknown)),
        message.body if message else b"",
        after.holder or "",
        after.status.value,
        int(LEASE_SECONDS * 1000),
    )
    return _Write(before, after, version, keys + arguments)


def _schema(text: bytes) -> int:
    return int(text.split(b".", 1)[0])


def _parse(job_id: str, text: bytes | None) -> Job:
    if not text:
        raise JobNotFound(job_id)
    version, _, body = text.partition(b" ")
    if _schema(text) > SCHEMA:
        raise Unavailable(f"job {job_id} was written by a later version of Darkroom; upgrade this process")
    # The record does not repeat its id and its version; they are put back in front of its first field.
    return _record.validate_json(b'{"id":"%b","version":"%b",%b' % (job_id.encode(), version, body.removeprefix(b"{")))
