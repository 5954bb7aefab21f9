"""Jobs in Redis, the truth about every job: new jobs, one way to change a job, due jobs, leases and lists.

All times are Redis' own. `update` is the only write to an existing job: it reads the record, applies a pure change, and writes if
nobody wrote in between (one round trip each; none for the read when the caller knows the record).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline

from .. import schedule
from ..errors import JobNotFound, Unavailable
from ..job import Job, Status
from ..values import replace
from . import keys, record, scripts
from .changes import Changes
from .clock import Clock, due_ms, from_ms, to_ms
from .connection import RetryingRedis, connect

log = logging.getLogger(__name__)

#: a worker process is taken for dead when it has not renewed its lease for so many seconds
LEASE_SECONDS = 7.0
#: when no worker was heard for so many seconds, Redis was away (workers renew their leases twice a second)
SILENCE_SECONDS = 3.0
#: after an outage of Redis no worker is taken for dead for so many seconds, so that all can renew their leases first
GRACE_SECONDS = 3.0
#: a job that the sweep took is due again after so many seconds, in case the sweeping process dies
SWEEP_LEASE_SECONDS = 10.0
#: a job of a dead worker is due again sooner, in seconds: even when its rescuer dies too, it is found within 15 s
RESCUE_LEASE_SECONDS = 5.0
#: a queued job whose message has not arrived after so many seconds is taken from its lane
MESSAGE_GRACE_SECONDS = 10.0
#: the longest time from the creation of a job to the beginning of its retention, in seconds: the longest deadline, a day
#: of deliveries, and a margin
LONGEST_LIFE_SECONDS = 14 * 86_400

#: a pure change of a job at a time; it returns the job itself when there is nothing to change
Transition = Callable[[Job, datetime], Job]


@dataclass(frozen=True)
class Message:
    """A Celery message that is pushed by the script that writes the record."""

    #: the key of the broker's list
    queue: str
    body: bytes


def _no_message(_: Job) -> Message | None:
    return None


@dataclass(frozen=True)
class Update:
    """A change to make to a job."""

    job_id: str
    change: Transition
    #: the job as the caller knows it, which saves reading it
    known: Job | None = None
    #: the message to push with the changed record
    message: Callable[[Job], Message | None] = _no_message


@dataclass(frozen=True)
class Change:
    """What an update did: the job before and after it."""

    before: Job
    after: Job

    @property
    def applied(self) -> bool:
        """Whether the change was written; a stale one changes nothing."""
        return self.after is not self.before


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
    """The answer to one renewal of a worker's lease."""

    now: datetime
    #: ids of due jobs
    due: tuple[str, ...]
    #: the holders whose lease has not run out
    living: frozenset[str]


class Repository:
    """The jobs in one Redis database. Thread-safe.

    Every method raises RedisUnavailable when Redis stays away for `patience_seconds`. With `replicas`, a write of a record
    succeeds only when that many replicas have confirmed it.
    """

    def __init__(
        self, redis: Redis, *, retention_seconds: int, patience_seconds: float = 0.0, replicas: int = 0
    ) -> None:
        self._redis = RetryingRedis(redis, patience_seconds=patience_seconds, replicas=replicas)
        self._retention_seconds = retention_seconds
        #: Redis' clock, without a round trip
        self.clock = Clock()
        #: wakes threads that wait for a job; one subscription for all of them
        self.changes = Changes(redis)
        self._create = redis.register_script(scripts.CREATE)
        self._write = redis.register_script(scripts.WRITE)
        self._tick = redis.register_script(scripts.TICK)
        self._release = redis.register_script(scripts.RELEASE)
        self._take_from_lane = redis.register_script(scripts.TAKE_FROM_LANE)
        self._put_in_lane = redis.register_script(scripts.PUT_IN_LANE)

    @classmethod
    def open(cls, url: str, *, retention_seconds: int, patience_seconds: float = 0.0, replicas: int = 0) -> Repository:
        """The repository at this Redis URL; it connects when it is first used."""
        redis = connect(url)
        return cls(redis, retention_seconds=retention_seconds, patience_seconds=patience_seconds, replicas=replicas)

    def with_patience(self, patience_seconds: float) -> Repository:
        """The same repository, on the same connections and clock, with another patience."""
        other = copy(self)
        other._redis = self._redis.with_patience(patience_seconds)
        return other

    def close(self) -> None:
        """Retry no more, so that calls in progress raise RedisUnavailable soon; wake all waiters, and hang up."""
        self._redis.close()
        self.changes.close()

    # --- reading --------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Redis' time; a round trip only when it has not been heard for half a minute."""
        if not self.clock.is_fresh:
            seconds, micros = self._redis.call(lambda redis: redis.time())
            self.clock.set(seconds * 1000 + micros // 1000)
        return self.clock.now()

    def get(self, job_id: str) -> Job:
        """The job. Raises JobNotFound."""
        return record.loaded(job_id, self._bodies([job_id])[0])

    def get_many(self, job_ids: Sequence[str]) -> Mapping[str, Job | None]:
        """The jobs by id, None for each that is forgotten; records that cannot be read are left out. One round trip."""
        jobs: dict[str, Job | None] = {}
        for job_id, body in zip(job_ids, self._bodies(job_ids), strict=True):
            try:
                jobs[job_id] = record.loaded(job_id, body) if body else None
            except Unavailable as error:
                log.warning("%s", error)
        return jobs

    def _bodies(self, job_ids: Sequence[str]) -> Sequence[bytes | None]:
        names = [keys.record(job_id) for job_id in job_ids]
        return cast(list[bytes | None], self._redis.ask("MGET", *names)) if names else ()

    def list(
        self,
        statuses: Iterable[Status] = (),
        *,
        unknown: bool = False,
        owner: str = "",
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> tuple[Job, ...]:
        """The latest jobs first, in these statuses (all by default). Two round trips.

        With an owner, or `unknown`, its jobs, or those with an attempt whose outcome is unknown, in any status. `before` is the
        last job of the page before: its created_at in milliseconds, and its id.
        """
        names = [keys.index(status) for status in tuple(statuses) or tuple(Status)]
        if owner or unknown:
            names = [keys.owned(owner) if owner else keys.index("unknown")]
        newest, oldest = cast(Any, "+inf" if before is None else before[0]), cast(Any, "-inf")

        def fill(pipe: Pipeline) -> None:
            for name in names:
                # A few more, for ids of the same millisecond may come before the last one seen.
                pipe.zrange(name, newest, oldest, desc=True, byscore=True, withscores=True, offset=0, num=limit + 64)

        pages = cast(list[list[tuple[bytes, float]]], self._redis.pipeline(fill))
        found = sorted(((score, name.decode()) for page in pages for name, score in page), reverse=True)
        ids = [name for score, name in found if before is None or (score, name) < before][:limit]
        return tuple(job for job in self.get_many(ids).values() if job is not None)

    def count(self) -> Mapping[str, int]:
        """How many jobs are listed, by status, and as `unknown`. One round trip."""
        names = [*Status, "unknown"]
        counts = self._redis.pipeline(lambda pipe: [pipe.zcard(keys.index(name)) for name in names])
        return dict(zip(names, cast(list[int], counts), strict=True))

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

        An idempotency key belongs to the owner of the jobs, and is free again when the first of them is forgotten.
        """
        owner, ids = jobs[0][0].owner, ",".join(job.id for job, _ in jobs)
        idempotency = keys.idempotency(owner, idempotency_key) if idempotency_key else keys.DUE
        names = [keys.DUE, idempotency, keys.owned(owner)]
        # The key must outlive the jobs, or the same order could be paid twice.
        key_seconds = self._retention_seconds + math.ceil(max(job.deadline_seconds for job, _ in jobs))
        owned_ms = 1000 * (self._retention_seconds + LONGEST_LIFE_SECONDS) if owner else ""
        arguments: list[Any] = []
        for job, message in jobs:
            names += [keys.record(job.id), keys.lane(job.provider), keys.index(job.status)]
            names.append(message.queue if message else keys.DUE)
            arguments += _new_record(job, message)
        forgotten = b""
        while True:
            options = [len(jobs), ids, request_digest if idempotency_key else "", forgotten, key_seconds, owned_ms]
            [(now, used)] = self._redis.write(self._create, [(*names, *options, *arguments)], len(names))
            self.clock.set(now)
            known, _, digest = used.decode().partition(" ")
            # A script that was repeated because its answer was lost finds the jobs that it has written.
            if known in ("", ids):
                return Created(tuple(job for job, _ in jobs))
            existing = Existing(tuple(known.split(",")), digest)
            if self._bodies(existing.job_ids[:1])[0]:
                return existing
            forgotten = used

    def update(
        self,
        job_id: str,
        change: Transition,
        *,
        known: Job | None = None,
        message: Callable[[Job], Message | None] = _no_message,
    ) -> Change:
        """Apply a pure change to a job, again and again while others write first, and push a message with it.

        `known` saves reading the job. Raises JobNotFound, and anything that `change` raises; then nothing was written.
        """
        [result] = self.update_all([Update(job_id, change, known, message)])
        if isinstance(result, Change):
            return result
        raise result

    def update_all(self, updates: Sequence[Update]) -> Sequence[Change | Exception]:
        """Make many updates in the round trips of one. For each: what it did, or what `update` would raise."""
        results: dict[int, Change | Exception] = {}
        now, current = self.now(), self._read(updates, results)
        while current:
            writes = {}
            for number, before in current.items():
                try:
                    write = self._prepared(updates[number], before, now)
                except Exception as error:  # noqa: BLE001 - it fails this update, and no other
                    results[number] = error
                    continue
                if write is None:
                    results[number] = Change(before, before)
                else:
                    writes[number] = write
            current = self._write_all(writes, results)
        return [results[number] for number in range(len(updates))]

    def _read(self, updates: Sequence[Update], results: dict[int, Change | Exception]) -> dict[int, Job]:
        """The job of each update, as it is known or else read; one that cannot be read has its result."""
        unread = list({update.job_id for update in updates if update.known is None})
        bodies = dict(zip(unread, self._bodies(unread), strict=True))
        current: dict[int, Job] = {}
        for number, update in enumerate(updates):
            try:
                current[number] = update.known or record.loaded(update.job_id, bodies[update.job_id])
            except (Unavailable, JobNotFound) as error:
                results[number] = error
        return current

    def _prepared(self, update: Update, before: Job, now: datetime) -> _Write | None:
        """The write that makes an update of this job; None when it changes nothing."""
        # The clocks of two processes differ by a round trip; a job's own time must not run backwards by it.
        after = update.change(before, max(now, before.updated_at))
        if after is before:
            return None
        message, version = update.message(after), record.next_version(before.version)
        due_at, lane_at = schedule.due_at(after), schedule.lane_at(after)
        grace = timedelta(seconds=MESSAGE_GRACE_SECONDS if message else 0.0)
        names = (
            keys.record(after.id),
            keys.DUE,
            keys.lane(after.provider),
            keys.index(before.status),
            keys.index(after.status),
            keys.held(before.holder),
            keys.held(after.holder),
            keys.index("unknown"),
            message.queue if message else keys.DUE,
            keys.channel(after.id),
            keys.HOLDERS,
        )
        arguments = (
            after.id,
            before.version,
            record.dumped(after, version),
            due_ms(due_at) if due_at else "",
            due_ms(lane_at + grace) if lane_at else "",
            to_ms(after.created_at),
            self._retention_seconds if schedule.is_complete(after) else "",
            "" if before.has_unknown == after.has_unknown else str(int(after.has_unknown)),
            message.body if message else b"",
            after.holder or "",
            after.status.value,
            int(LEASE_SECONDS * 1000),
        )
        return _Write(before, after, version, names, arguments)

    def _write_all(self, writes: Mapping[int, _Write], results: dict[int, Change | Exception]) -> dict[int, Job]:
        """Write all records; returns the newer job of each write that another process was faster than."""
        if not writes:
            return {}
        calls = [(*write.keys, *write.arguments) for write in writes.values()]
        key_count = len(next(iter(writes.values())).keys)
        newer: dict[int, Job] = {}
        answers = self._redis.write(self._write, calls, key_count)
        for (number, write), (written, now, body) in zip(writes.items(), answers, strict=True):
            self.clock.set(now)
            try:
                current = None if written else record.loaded(write.after.id, body)
            except (Unavailable, JobNotFound) as error:
                results[number] = error
                continue
            # A write whose answer was lost is recognized by the nonce in its version.
            if current is None or current.version == write.version:
                results[number] = Change(write.before, replace(write.after, version=write.version))
            else:
                newer[number] = current
        return newer

    # --- leases and due jobs --------------------------------------------------------------------------------------

    def tick(self, holder: str, description: Mapping[str, Any], limit: int) -> Tick:
        """Renew the lease of `holder` and take up to `limit` due jobs, those of dead workers among them.

        One round trip, and one for each dead worker. `description` is what `workers` says about this process.
        """
        names = [keys.HOLDERS, keys.DUE, keys.GRACE, keys.WORKERS, keys.TICKED]
        seconds = (LEASE_SECONDS, SWEEP_LEASE_SECONDS, SILENCE_SECONDS, GRACE_SECONDS)
        arguments = [holder, json.dumps(description), limit, *(int(value * 1000) for value in seconds)]
        now, due, living, dead = self._redis.run(self._tick, names, arguments)
        self.clock.set(now)
        for name in map(bytes.decode, dead):
            names = [keys.HOLDERS, keys.held(name), keys.DUE, keys.WORKERS]
            arguments = [name, max(0, limit - len(due)), int(RESCUE_LEASE_SECONDS * 1000)]
            due += self._redis.run(self._release, names, arguments)[1]
        return Tick(from_ms(now), tuple(map(bytes.decode, due)), frozenset(map(bytes.decode, living)))

    def take_from_lane(self, provider: str, limit: int) -> tuple[str, ...]:
        """Take up to `limit` queued jobs of a provider: their message did not come, or their back-off is over.

        Returns their ids; one that nobody claims is in the lane again after SWEEP_LEASE_SECONDS. One round trip.
        """
        arguments = [limit, int(SWEEP_LEASE_SECONDS * 1000)]
        now, ids = self._redis.run(self._take_from_lane, [keys.lane(provider)], arguments)
        self.clock.set(now)
        return tuple(map(bytes.decode, ids))

    def put_in_lane(self, job: Job) -> None:
        """Leave a due job to a worker that serves its provider. The next write of its record takes it out of the lane."""
        names = [keys.record(job.id), keys.lane(job.provider)]
        self.clock.set(self._redis.run(self._put_in_lane, names, [job.id, job.version]))

    def remove_due(self, job_id: str) -> None:
        """Remove the id of a forgotten job from the due jobs."""
        self._redis.call(lambda redis: redis.zrem(keys.DUE, job_id))

    def held(self, holder: str) -> tuple[str, ...]:
        """The ids of the jobs that a worker process holds."""
        ids = cast(set[bytes], self._redis.call(lambda redis: redis.smembers(keys.held(holder))))
        return tuple(sorted(map(bytes.decode, ids)))

    # --- workers and upkeep ---------------------------------------------------------------------------------------

    def remove_worker(self, holder: str) -> None:
        """End the lease of a worker process that holds nothing."""
        self._redis.pipeline(lambda pipe: (pipe.zrem(keys.HOLDERS, holder), pipe.hdel(keys.WORKERS, holder)))

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """The descriptions of the living worker processes, by holder."""
        now = to_ms(self.now())
        living, said = self._redis.pipeline(
            lambda pipe: (pipe.zrangebyscore(keys.HOLDERS, now, "+inf"), pipe.hgetall(keys.WORKERS))
        )
        return {name.decode(): json.loads(said[name]) for name in living if name in said}

    def served_operations(self) -> frozenset[str]:
        """The operations that some living worker serves."""
        return frozenset(chain.from_iterable(worker.get("operations", ()) for worker in self.workers().values()))

    def count_messages(self, queues: Sequence[str]) -> int:
        """How many messages wait in these queues of the broker, where it is this Redis. One round trip."""
        return sum(cast(list[int], self._redis.pipeline(lambda pipe: [pipe.llen(name) for name in queues])))

    def take_turn(self, name: str, seconds: int) -> bool:
        """Whether this process shall do something that one process of all does every so many seconds."""
        return bool(self._redis.call(lambda redis: redis.set(keys.turn(name), "1", nx=True, ex=seconds)))

    def prune(self) -> int:
        """Remove final jobs whose records have expired from the lists; returns how many."""
        horizon = to_ms(self.now()) - 1000 * (self._retention_seconds + LONGEST_LIFE_SECONDS)
        names = [keys.index(name) for name in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, "unknown")]
        removed = self._redis.pipeline(lambda pipe: [pipe.zremrangebyscore(name, "-inf", horizon) for name in names])
        return sum(cast(list[int], removed))

    def ping(self) -> float:
        """The seconds that one round trip takes."""
        started = time.perf_counter()
        self._redis.call(lambda redis: redis.ping())
        return time.perf_counter() - started


@dataclass(frozen=True)
class _Write:
    """A call of the script that writes a record."""

    before: Job
    after: Job
    #: of the record that is written
    version: str
    keys: tuple[str, ...]
    arguments: tuple[Any, ...]


def _new_record(job: Job, message: Message | None) -> tuple[Any, ...]:
    """The arguments of one job for the script that creates jobs."""
    lane_at = (job.wake_at or job.created_at) + timedelta(seconds=MESSAGE_GRACE_SECONDS)
    return (
        job.id,
        record.dumped(job, record.next_version("")),
        due_ms(job.deadline_at),
        due_ms(lane_at),
        to_ms(job.created_at),
        message.body if message else b"",
    )
