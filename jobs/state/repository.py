"""Jobs in Redis: the truth. What stands where there is told in `record`.

All times are Redis' own. `update` is the one write to an existing job: it reads, applies a pure change and writes if nobody
wrote in between (one round trip each, none for the read when the caller knows the record).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .. import schedule
from ..errors import JobNotFound, Unavailable
from ..job import Job, Status
from ..values import replace
from . import keys as redis_keys
from . import record, scripts
from .changes import Changes
from .clock import Clock, due_ms, from_ms, to_ms
from .connection import Command
from .retrying import RetryingRedis

#: a worker process is believed dead when it has not renewed its lease for so long
LEASE_SECONDS = 7.0
#: when no worker at all was heard for so long, Redis must have been away (workers tick twice a second)
SILENCE_SECONDS = 3.0
#: after an outage of Redis nobody is believed dead for so long, so that the living can renew first
GRACE_SECONDS = 3.0
#: what the sweep popped comes back after so long if the sweeping process died over it
SWEEP_LEASE_SECONDS = 10.0
#: what a dead worker held comes back sooner, for a rescuer may die too, and both are to be found within 15 s
RESCUE_LEASE_SECONDS = 5.0
#: a queued job whose message has not arrived after so long is taken from the line
MESSAGE_GRACE_SECONDS = 10.0

#: the longest that a job lives before its retention begins: the longest deadline, a day of deliveries, and a margin
LONGEST_LIFE_SECONDS = 14 * 86_400

Transition = Callable[[Job, datetime], Job]


@dataclass(frozen=True)
class Change:
    """What `update` did: the job as it was read and as it stands now."""

    before: Job
    after: Job

    @property
    def applied(self) -> bool:
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
class Created:
    """The jobs were written."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Existing:
    """Nothing was written: the idempotency key was used before."""

    #: the jobs that were created with it, in their order
    job_ids: tuple[str, ...]
    #: the digest of the request that created them
    request_digest: str


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
        self._patient = RetryingRedis(redis, patience_seconds=patience_seconds, replicas=replicas)
        self._retention = retention_seconds
        self.clock = Clock()
        #: wakes whoever waits for a job; one subscription for all of them
        self.changes = Changes(redis)
        self._create = redis.register_script(scripts.CREATE)
        self._write = redis.register_script(scripts.WRITE)
        self._tick = redis.register_script(scripts.TICK)
        self._take = redis.register_script(scripts.TAKE)
        self._hand_on = redis.register_script(scripts.HAND_ON)

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
        other._patient = self._patient.patient(patience_seconds)
        return other

    def close(self) -> None:
        """End all patience, so that calls that wait for Redis raise RedisUnavailable now; wake all waiters; hang up."""
        self._patient.close()
        self.changes.close()
        self._redis.close()

    # --- reading --------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Redis' time; a round trip only when it has not been heard for half a minute."""
        if not self.clock.fresh:
            seconds, micros = map(int, self._patient.ask("TIME"))
            self.clock.set(seconds * 1000 + micros // 1000)
        return self.clock.now()

    def get(self, job_id: str) -> Job:
        """The job. Raises JobNotFound."""
        return record.loaded(job_id, self._texts([job_id])[0])

    def get_many(self, job_ids: Sequence[str]) -> Mapping[str, Job | None]:
        """The jobs by id, None for each that is forgotten; records of a later version are left out. One round trip."""
        return {
            job_id: record.loaded(job_id, text) if text else None
            for job_id, text in zip(job_ids, self._texts(job_ids), strict=True)
            if not text or record.readable(text)
        }

    def _texts(self, job_ids: Sequence[str]) -> Sequence[bytes | None]:
        if not job_ids:
            return ()
        return cast(list[bytes | None], self._patient.ask("MGET", *map(redis_keys.record, job_ids)))

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
        top = cast(Any, "+inf" if before is None else before[0])
        with self._redis.pipeline(transaction=False) as pipe:
            for key in _listing(statuses, unknown, owner):
                pipe.zrange(
                    key, top, cast(Any, "-inf"), desc=True, byscore=True, withscores=True, offset=0, num=limit + 64
                )
            pages = cast(list[list[tuple[bytes, float]]], self._patient.execute(pipe))
        found = sorted(((score, name.decode()) for page in pages for name, score in page), reverse=True)
        ids = [name for score, name in found if before is None or (score, name) < before][:limit]
        return tuple(job for job in self.get_many(ids).values() if job is not None)

    def count(self) -> Mapping[str, int]:
        """How many jobs the index holds, by status, and `unknown`; one round trip."""
        names = [*Status, "unknown"]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zcard(redis_keys.index(name))
            return dict(zip(names, cast(list[int], self._patient.execute(pipe)), strict=True))

    # --- writing --------------------------------------------------------------------------------------------------

    def create(
        self, job: Job, *, message: Message | None = None, idempotency_key: str = "", request_digest: str = ""
    ) -> Created | Existing:
        """Write a new job and push its message, in one step. One round trip."""
        return self.create_many([(job, message)], idempotency_key=idempotency_key, request_digest=request_digest)

    def create_many(
        self, jobs: Sequence[tuple[Job, Message | None]], *, idempotency_key: str = "", request_digest: str = ""
    ) -> Created | Existing:
        """Write new jobs of one owner and push their messages, all or none, in one step. One round trip.

        An idempotency key belongs to the owner of the jobs, and is free again when they are forgotten.
        """
        owner, ids = jobs[0][0].owner, ",".join(job.id for job, _ in jobs)
        kept_under = redis_keys.idempotency(owner, idempotency_key) if idempotency_key else redis_keys.DUE
        keys = [redis_keys.DUE, kept_under, redis_keys.owned(owner)]
        digest = request_digest if idempotency_key else ""
        # A key that ended before its job would let the same order be paid twice.
        life_seconds = self._retention + math.ceil(max(job.deadline_seconds for job, _ in jobs))
        argv: list[Any] = [len(jobs), ids, digest, life_seconds, self._owned_ms if owner else "", redis_keys.record("")]
        for job, message in jobs:
            keys += [redis_keys.record(job.id), redis_keys.lane(job.provider), redis_keys.index(job.status)]
            keys.append(message.queue if message else redis_keys.DUE)
            argv += _created(job, message)
        answers = self._patient.durably(self._create, [(*keys, *argv)], len(keys))
        _, now, first = cast(tuple[int, int, bytes], answers[0])
        self.clock.set(now)
        known, _, digest = first.decode().partition(" ")
        # Repeated because its answer was lost, the script finds the jobs that it has written.
        if known in ("", ids):
            return Created(tuple(job for job, _ in jobs))
        return Existing(tuple(known.split(",")), digest)

    @property
    def _owned_ms(self) -> int:
        """How long an owner's index knows a job: longer than its record can live."""
        return 1000 * (self._retention + LONGEST_LIFE_SECONDS)

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
            standing = self._settled(self._changed(updates, standing, now, ends), ends)
        return [ends[number] for number in range(len(updates))]

    def _known(self, updates: Sequence[Update], ends: dict[int, Change | Exception]) -> dict[int, Job]:
        """The job of each update as far as it is known, read where it is not."""
        unread = list({update.job_id for update in updates if update.known is None})
        texts = dict(zip(unread, self._texts(unread), strict=True))
        standing: dict[int, Job] = {}
        for number, update in enumerate(updates):
            try:
                standing[number] = update.known or record.loaded(update.job_id, texts[update.job_id])
            except (Unavailable, JobNotFound) as error:
                ends[number] = error
        return standing

    def _changed(
        self,
        updates: Sequence[Update],
        standing: Mapping[int, Job],
        now: datetime,
        ends: dict[int, Change | Exception],
    ) -> dict[int, _Write]:
        """What is to be written of the jobs as they stand; a change that makes nothing, or fails, has ended."""
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
        return writes

    def _settled(self, writes: Mapping[int, _Write], ends: dict[int, Change | Exception]) -> dict[int, Job]:
        """Writes what was not overtaken; returns the newer records of those that were."""
        overtaken: dict[int, Job] = {}
        answers = self._patient.durably(self._write, [write.call for write in writes.values()], _WRITE_KEYS)
        for (number, write), (written, now, newer) in zip(writes.items(), answers, strict=True):
            self.clock.set(now)
            try:
                current = None if written else record.loaded(write.after.id, newer)
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
        keys = [redis_keys.HOLDERS, redis_keys.DUE, redis_keys.GRACE, redis_keys.WORKERS, redis_keys.TICKED]
        argv: list[Any] = [
            holder,
            int(LEASE_SECONDS * 1000),
            int(GRACE_SECONDS * 1000),
            int(SWEEP_LEASE_SECONDS * 1000),
            limit,
            redis_keys.held(""),
            json.dumps(description),
            int(SILENCE_SECONDS * 1000),
            int(RESCUE_LEASE_SECONDS * 1000),
        ]
        now, due, living = cast(tuple[int, list[bytes], list[bytes]], self._patient.run(self._tick, keys, argv))
        self.clock.set(now)
        return Tick(from_ms(now), tuple(id.decode() for id in due), frozenset(name.decode() for name in living))

    def take(self, provider: str, limit: int) -> tuple[str, ...]:
        """Up to `limit` queued jobs of a provider whose message did not come, or whose back-off is over. One round trip."""
        argv: list[Any] = [limit, int(SWEEP_LEASE_SECONDS * 1000)]
        now, ids = cast(tuple[int, list[bytes]], self._patient.run(self._take, [redis_keys.lane(provider)], argv))
        self.clock.set(now)
        return tuple(id.decode() for id in ids)

    def hand_on(self, job: Job) -> None:
        """Leaves a due job to a worker that serves its provider: it stands in the line until its record is written."""
        keys = [redis_keys.record(job.id), redis_keys.lane(job.provider)]
        self.clock.set(cast(int, self._patient.run(self._hand_on, keys, [job.id, job.version])))

    def leave(self, holder: str) -> None:
        """A worker process that holds nothing any more says good-bye."""
        with self._redis.pipeline() as pipe:
            pipe.zrem(redis_keys.HOLDERS, holder)
            pipe.hdel(redis_keys.WORKERS, holder)
            self._patient.execute(pipe)

    def held(self, holder: str) -> tuple[str, ...]:
        """The ids of the jobs in a worker's hands."""
        ids = cast(set[bytes], self._patient.call(lambda: self._redis.smembers(redis_keys.held(holder))))
        return tuple(sorted(id.decode() for id in ids))

    def waiting(self, queues: Sequence[str]) -> int:
        """How many messages wait in these lists of the broker, where it is this Redis. One round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in queues:
                pipe.llen(name)
            return sum(cast(list[int], self._patient.execute(pipe)))

    def forget(self, job_id: str) -> None:
        """Takes an id whose record is gone out of the due set."""
        self._patient.ask("ZREM", redis_keys.DUE, job_id)

    def turn(self, name: str, seconds: int) -> bool:
        """Whether it is the caller's turn with something that one process of all does once in so many seconds."""
        return self._patient.ask("SET", redis_keys.turn(name), "1", "NX", "EX", seconds) is not None

    def prune(self) -> int:
        """Takes final jobs whose records expired out of the index, which is by creation; returns how many."""
        horizon = to_ms(self.now()) - 1000 * (self._retention + LONGEST_LIFE_SECONDS)
        with self._redis.pipeline(transaction=False) as pipe:
            for name in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, "unknown"):
                pipe.zremrangebyscore(redis_keys.index(name), "-inf", horizon)
            return sum(cast(list[int], self._patient.execute(pipe)))

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """The living worker processes by holder id, and what each says of itself."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(redis_keys.HOLDERS, to_ms(self.now()), "+inf")
            pipe.hgetall(redis_keys.WORKERS)
            living, said = cast(tuple[list[bytes], dict[bytes, bytes]], self._patient.execute(pipe))
        return {name.decode(): json.loads(said[name]) for name in living if name in said}

    def served(self) -> frozenset[str]:
        """The operations that some living worker serves."""
        return frozenset(name for worker in self.workers().values() for name in worker.get("operations", ()))

    # --- health ---------------------------------------------------------------------------------------------------

    def ping(self) -> float:
        """Seconds of one round trip. Raises RedisUnavailable."""
        started = time.perf_counter()
        self._patient.ask("PING")
        return time.perf_counter() - started


@dataclass(frozen=True)
class _Write:
    """One record as it is to be written, if nobody wrote in between."""

    before: Job
    after: Job
    version: str = ""
    #: what the script gets: `_WRITE_KEYS` keys, then its arguments
    call: Command = ()


_WRITE_KEYS = 11


def _listing(statuses: Iterable[Status], unknown: bool, owner: str) -> Sequence[str]:
    """The sets that hold the jobs of a listing."""
    if owner:
        return [redis_keys.owned(owner)]
    if unknown:
        return [redis_keys.index("unknown")]
    return [redis_keys.index(status) for status in tuple(statuses) or tuple(Status)]


def _created(job: Job, message: Message | None) -> Sequence[Any]:
    """What the script that writes new jobs gets of each."""
    takeable_at = (job.wake_at or job.created_at) + timedelta(seconds=MESSAGE_GRACE_SECONDS)
    return (
        job.id,
        record.dumped(job, record.next_version("")),
        due_ms(job.deadline_at),
        due_ms(takeable_at),
        to_ms(job.created_at),
        message.body if message else b"",
    )


def _written(update: Update, before: Job, now: datetime, retention_seconds: int) -> _Write:
    # Two processes' ideas of Redis' time differ by a round trip; a job's own time must not run backwards by it.
    after = update.change(before, max(now, before.updated_at))
    if after is before:
        return _Write(before, before)
    message, version = update.message(after), record.next_version(before.version)
    arguments = _write_arguments(before, after, version, message, retention_seconds)
    return _Write(before, after, version, (*_write_keys(before, after, message), *arguments))


def _write_keys(before: Job, after: Job, message: Message | None) -> Command:
    """The KEYS of the script that writes a record, in its order."""
    return (
        redis_keys.record(after.id),
        redis_keys.DUE,
        redis_keys.lane(after.provider),
        redis_keys.index(before.status),
        redis_keys.index(after.status),
        redis_keys.held(before.holder),
        redis_keys.held(after.holder),
        redis_keys.index("unknown"),
        message.queue if message else redis_keys.DUE,
        redis_keys.channel(after.id),
        redis_keys.HOLDERS,
    )


def _write_arguments(before: Job, after: Job, version: str, message: Message | None, retention_seconds: int) -> Command:
    """Its ARGV."""
    due_at, lane_at = schedule.due_at(after), schedule.lane_at(after)
    grace = timedelta(seconds=MESSAGE_GRACE_SECONDS if message else 0.0)
    return (
        after.id,
        before.version,
        record.dumped(after, version),
        due_ms(due_at) if due_at else "",
        due_ms(lane_at + grace) if lane_at else "",
        to_ms(after.created_at),
        retention_seconds if schedule.is_complete(after) else "",
        "" if before.has_unknown == after.has_unknown else str(int(after.has_unknown)),
        message.body if message else b"",
        after.holder or "",
        after.status.value,
        int(LEASE_SECONDS * 1000),
    )
