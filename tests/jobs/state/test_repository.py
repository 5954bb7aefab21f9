"""Jobs in a real Redis: concurrent writes, sets that agree with the records, lost answers, leases, due jobs and retention."""

from __future__ import annotations

import json
import math
import random
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import fakeredis
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs import schedule, transitions
from jobs.attempt import Recovery
from jobs.errors import JobNotFound, NotPossible, RedisUnavailable, Unavailable
from jobs.images import Artifact, AtUrl, Missing, PendingImage, Postponed
from jobs.job import Event, Failure, Job, OnUnknown, Status
from jobs.report import Charged, Code, Cost, Failed, Image, Running, Succeeded, Unit
from jobs.state.record import SCHEMA, json_of
from jobs.state.repository import (
    GRACE_SECONDS,
    LEASE_SECONDS,
    LONGEST_LIFE_SECONDS,
    MESSAGE_GRACE_SECONDS,
    RESCUE_LEASE_SECONDS,
    SILENCE_SECONDS,
    SWEEP_LEASE_SECONDS,
    Change,
    Created,
    Existing,
    Message,
    Repository,
    Update,
)

RETENTION = 3600
US, OTHER = "worker-a", "worker-b"
SUCCESS = Succeeded((Image(0, url="https://provider/0"), Image(1, url="https://provider/1")))
BUSY = Failed(Code.RATE_LIMITED, "slow down", retryable=True, charged=Charged.NO)


@pytest.fixture
def repository(redis: Redis) -> Iterator[Repository]:
    repository = Repository(redis, retention_seconds=RETENTION)
    yield repository
    repository.close()


@pytest.fixture
def other_process(redis: Redis) -> Iterator[Repository]:
    """Another process that writes the same jobs."""
    repository = Repository(redis, retention_seconds=RETENTION)
    yield repository
    repository.close()


@pytest.fixture
def in_memory() -> Repository:
    """A repository in fakeredis, for a test of many writes."""
    return Repository(fakeredis.FakeRedis(), retention_seconds=RETENTION)


def new(repository: Repository, **changes: object) -> Job:
    """A job, created a moment ago."""
    now = repository.now()
    plain = Job(
        id=uuid.uuid4().hex,
        operation="provider.paint",
        params={"prompt": "a lake"},
        status=Status.QUEUED,
        created_at=now,
        updated_at=now,
        deadline_at=now + timedelta(seconds=600),
        deadline_seconds=600,
        images_expected=2,
        wake_at=now,
        timeline=(Event(now, "queued"),),
    )
    job = replace(plain, **changes)  # type: ignore[arg-type]
    assert isinstance(repository.create(job), Created)
    return repository.get(job.id)


def claim(repository: Repository, job: Job, holder: str = US) -> Job:
    return repository.update(job.id, lambda job, now: transitions.claimed(job, holder, now)).after


def send(repository: Repository, job: Job, holder: str = US, recovery: Recovery = Recovery.NONE) -> Job:
    claim(repository, job, holder)
    return repository.update(job.id, lambda job, now: transitions.submitting(job, holder, now, recovery=recovery)).after


def cancel(repository: Repository, job: Job) -> Job:
    return repository.update(job.id, transitions.canceled).after


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def due_ms(at: datetime) -> int:
    return math.ceil(at.timestamp() * 1000)


def redis_ms(redis: Redis) -> int:
    seconds, micros = redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


# --- records ----------------------------------------------------------------------------------------------------------


def all_fields(now: datetime) -> dict[str, object]:
    """A value for every field of a job."""
    image = PendingImage(1, 1, AtUrl("https://provider/1?sig=x", "img-1", now), 1, 2, now, now)
    sent = transitions.submitting(
        Job("b" * 32, "provider.paint", {}, Status.QUEUED, now, now, now + timedelta(hours=1), 3600, 2, now, holder=US),
        US,
        now,
        recovery=Recovery.KEY,
        polled=True,
        inline=True,
        expected_cost=Cost(4, Unit.CREDIT),
    )
    attempt = replace(sent.attempts[0], cost=Cost(0.25, Unit.USD), code=Code.TIMEOUT, message="ü", charged=Charged.YES)
    return {
        "attempts": (attempt,),
        "pending": (image,),
        "artifacts": (Artifact(0, "k", "image/png", 1, "ab", 2, 3, 1),),
        "missing": (Missing(2, Code.STORAGE_ERROR, "away", image),),
        "error": Failure(Code.DEADLINE, "late"),
        "given_up": Failure(Code.OUTCOME_UNKNOWN, "?"),
        "metadata": {"user": "42", "deep": [1, None, {"x": 1.5}]},
        "owner": "shop",
        "on_unknown": OnUnknown.CHARGE_AGAIN,
        "keep_late": True,
        "holder": US,
        "finished_at": now,
    }


def test_a_job_is_read_as_it_was_written(repository: Repository) -> None:
    now = repository.now()
    job = new(repository, **all_fields(now))
    assert job == replace(job, **all_fields(now))  # type: ignore[arg-type]
    assert job.version.startswith(f"{SCHEMA}.1.")
    assert job.created_at.tzinfo is not None


def test_bytes_of_images_never_reach_a_record(repository: Repository, redis: Redis) -> None:
    job = send(repository, new(repository))
    report = Succeeded((Image(0, content=b"CONTENT"), Image(1, content=b"CONTENT")))
    repository.update(job.id, lambda job, now: transitions.reported(job, 1, report, now))
    assert b"CONTENT" not in redis.get(f"darkroom:job:{job.id}")


def test_an_unknown_job_is_not_found(repository: Repository) -> None:
    with pytest.raises(JobNotFound):
        repository.get("a" * 32)
    with pytest.raises(JobNotFound):
        repository.update("a" * 32, transitions.canceled)
    assert repository.get_many(["a" * 32]) == {"a" * 32: None}
    assert repository.get_many([]) == {}


def test_a_job_that_is_forgotten_during_an_update_is_not_found(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    redis.delete(f"darkroom:job:{job.id}")
    with pytest.raises(JobNotFound):
        repository.update(job.id, transitions.canceled, known=job)


def test_the_message_is_pushed_by_the_script_that_writes_the_record(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    other = replace(job, id=uuid.uuid4().hex)
    repository.create(other, message=Message("queue", b"wake up"))
    repository.update(job.id, transitions.canceled, message=lambda job: Message("queue", job.status.encode()))
    assert redis.lrange("queue", 0, -1) == [b"canceled", b"wake up"]


# --- idempotency keys -----------------------------------------------------------------------------------------------------


def test_the_second_job_with_a_key_is_not_created(repository: Repository, redis: Redis) -> None:
    first, second = new(repository), replace(new(repository), id=uuid.uuid4().hex)
    assert isinstance(repository.create(replace(first, id="c" * 32), idempotency_key="k", request_digest="d1"), Created)
    message = Message("queue", b"wake up")
    assert repository.create(second, message=message, idempotency_key="k", request_digest="d2") == Existing(
        ("c" * 32,), "d1"
    )
    assert repository.get_many([second.id]) == {second.id: None}
    assert redis.llen("queue") == 0


def test_idempotency_keys_belong_to_their_owner(repository: Repository) -> None:
    job = new(repository)
    for owner in ("", "shop", "blog"):
        mine = replace(job, id=uuid.uuid4().hex, owner=owner)
        assert isinstance(repository.create(mine, idempotency_key="k", request_digest="d"), Created)


def test_when_many_use_a_key_at_once_one_creates_the_job(repository: Repository) -> None:
    job = new(repository)

    def create(_: int) -> Created | Existing:
        return repository.create(replace(job, id=uuid.uuid4().hex), idempotency_key="k", request_digest="d")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(create, range(40)))
    created = [answer.jobs[0].id for answer in found if isinstance(answer, Created)]
    assert len(created) == 1
    assert {answer for answer in found if isinstance(answer, Existing)} == {Existing((created[0],), "d")}
    assert len(repository.list()) == 2


# --- concurrent writes -------------------------------------------------------------------------------------------------------


def test_a_change_that_changes_nothing_is_not_written(repository: Repository, redis: Redis) -> None:
    job = cancel(repository, new(repository))
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    change = repository.update(job.id, transitions.canceled)
    assert not change.applied
    assert change.after.version == job.version
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == before


def test_each_write_is_a_new_version(repository: Repository) -> None:
    job = new(repository)
    change = repository.update(job.id, transitions.canceled)
    assert change.applied
    assert [item.version.split(".")[1] for item in (change.before, change.after)] == ["1", "2"]
    assert repository.get(job.id).version == change.after.version


def test_a_change_that_raises_writes_nothing(repository: Repository) -> None:
    job = new(repository)
    with pytest.raises(NotPossible):
        repository.update(job.id, lambda job, now: transitions.retried(job, now))
    assert repository.get(job.id).version == job.version


def test_when_many_workers_claim_a_job_one_gets_it(repository: Repository) -> None:
    for _ in range(10):
        job = new(repository)
        start = threading.Barrier(8)

        def claim_it(name: int, job: Job = job, start: threading.Barrier = start) -> bool:
            start.wait()
            return repository.update(
                job.id, lambda job, now: transitions.claimed(job, f"worker-{name}", now), known=job
            ).applied

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(claim_it, range(8)))
        assert won.count(True) == 1
        assert repository.get(job.id).holder == f"worker-{won.index(True)}"


def test_no_concurrent_change_is_lost(repository: Repository) -> None:
    job = new(repository)

    def note(_: int) -> None:
        repository.update(job.id, lambda job, now: transitions.noted(job, "seen", now))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(200)))
    assert repository.get(job.id).timeline[-1].times == 200
    assert repository.get(job.id).version.split(".")[1] == "201"


def test_an_update_of_a_stale_copy_sees_the_newer_record(repository: Repository) -> None:
    job = new(repository)
    cancel(repository, job)
    change = repository.update(job.id, lambda job, now: transitions.claimed(job, US, now), known=job)
    assert (change.applied, change.after.status) == (False, Status.CANCELED)


# --- lost answers -----------------------------------------------------------------------------------------------------


class LossyProxy:
    """A TCP proxy in front of Redis that can lose the answer to the next script, which has run."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = False
        self._threads: list[threading.Thread] = []
        #: called when the script has run, before its answer is lost; None: no answer is lost
        self.losing: Callable[[], None] | None = None
        #: the part of a request whose answer is lost
        self.command = b"EVALSHA"
        self.lost = 0
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"redis://:{self._target.password or ''}@127.0.0.1:{self._listener.getsockname()[1]}/0"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._target.hostname, self._target.port))
            except OSError:
                return
            marked = threading.Event()
            self._start(self._ask, client, server, marked)
            self._start(self._answer, client, server, marked)

    def _ask(self, client: socket.socket, server: socket.socket, marked: threading.Event) -> None:
        while asked := _received(client):
            if self.command in asked and self.losing is not None:
                marked.set()
            if not _passed_on(server, asked):
                break
        _hang_up(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, marked: threading.Event) -> None:
        while answer := _received(server):
            if marked.is_set() and (losing := self.losing) is not None:
                self.losing, self.lost = None, self.lost + 1
                losing()
                break
            if not _passed_on(client, answer):
                break
        _hang_up(client, server)
        client.close()
        server.close()

    def close(self) -> None:
        self._stopped = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _received(side: socket.socket) -> bytes:
    try:
        return side.recv(1 << 20)
    except OSError:
        return b""


def _passed_on(side: socket.socket, data: bytes) -> bool:
    try:
        side.sendall(data)
    except OSError:
        return False
    return True


def _hang_up(*sides: socket.socket) -> None:
    for side in sides:
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[LossyProxy]:
    proxy = LossyProxy(redis_url)
    yield proxy
    proxy.close()


@pytest.fixture
def behind_proxy(proxy: LossyProxy) -> Iterator[Repository]:
    """A repository behind the proxy that retries for two seconds; its scripts are loaded."""
    with Redis.from_url(proxy.url) as client:
        repository = Repository(client, retention_seconds=RETENTION, patience_seconds=2)
        new(repository)
        send(repository, new(repository))
        yield repository
        repository.close()


def nothing() -> None:
    """Nothing happens in the meantime."""


def test_a_write_whose_answer_was_lost_is_recognized(behind_proxy: Repository, proxy: LossyProxy) -> None:
    job = new(behind_proxy)
    proxy.losing = nothing
    change = behind_proxy.update(job.id, lambda job, now: transitions.noted(job, "once", now))
    assert (proxy.lost, change.applied) == (1, True)
    stored = behind_proxy.get(job.id)
    assert (stored.version, stored.timeline[-1].times) == (change.after.version, 1)
    assert stored.version.split(".")[1] == "2"


def test_an_attempt_whose_answer_was_lost_is_on_the_ledger_once(behind_proxy: Repository, proxy: LossyProxy) -> None:
    job = claim(behind_proxy, new(behind_proxy))
    proxy.losing = nothing
    change = behind_proxy.update(job.id, lambda job, now: transitions.submitting(job, US, now))
    assert change.applied
    assert [attempt.times for attempt in behind_proxy.get(job.id).attempts] == [1]


def test_a_worker_that_lost_the_answer_and_then_the_job_does_not_send(
    behind_proxy: Repository, proxy: LossyProxy, other_process: Repository
) -> None:
    job = claim(behind_proxy, new(behind_proxy))
    proxy.losing = lambda: cancel(other_process, job) and None
    change = behind_proxy.update(job.id, lambda job, now: transitions.submitting(job, US, now))
    assert proxy.lost == 1
    assert (change.applied, change.after.status) == (False, Status.CANCELED)


def test_a_repeated_create_does_not_undo_what_a_worker_wrote(
    behind_proxy: Repository, proxy: LossyProxy, other_process: Repository
) -> None:
    """Its answer was lost, and a worker sent an attempt before it was repeated."""
    job = replace(new(behind_proxy), id=uuid.uuid4().hex)
    proxy.losing = lambda: send(other_process, job) and None
    assert isinstance(behind_proxy.create(job), Created)
    assert proxy.lost == 1
    stored = behind_proxy.get(job.id)
    assert (stored.status, len(stored.attempts)) == (Status.SUBMITTING, 1)


def test_a_repeated_create_finds_its_own_idempotency_key(behind_proxy: Repository, proxy: LossyProxy) -> None:
    job = replace(new(behind_proxy), id=uuid.uuid4().hex)
    proxy.losing = nothing
    assert isinstance(behind_proxy.create(job, idempotency_key="k", request_digest="d"), Created)
    assert proxy.lost == 1


def test_a_pipeline_whose_answer_was_lost_is_repeated_as_a_whole(behind_proxy: Repository, proxy: LossyProxy) -> None:
    behind_proxy.tick(US, {"pid": 1}, 0)
    with Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)) as client:
        repository = Repository(client, retention_seconds=RETENTION, patience_seconds=2)
        proxy.command, proxy.losing = b"HGETALL", nothing
        assert repository.workers() == {US: {"pid": 1}}
        proxy.command, proxy.losing = b"HDEL", nothing
        repository.remove_worker(US)
        assert proxy.lost == 2
        assert repository.workers() == {}


def test_without_patience_a_lost_answer_is_an_error(proxy: LossyProxy, behind_proxy: Repository, redis: Redis) -> None:
    with Redis.from_url(proxy.url) as client:
        impatient = Repository(client, retention_seconds=RETENTION)
        job = new(impatient)
        proxy.losing = nothing
        with pytest.raises(RedisUnavailable):
            impatient.update(job.id, transitions.canceled)
        assert impatient.get(job.id).status is Status.CANCELED


# --- the sets other_process the records --------------------------------------------------------------------------------------


def assert_sets_agree(redis: Redis, repository: Repository) -> None:
    """Compute every set from the records and compare."""
    ids = [key.decode().rsplit(":", 1)[1] for key in redis.keys("darkroom:job:*")]
    found = [job for job in repository.get_many(ids).values() if job is not None]
    due = {name.decode() for name in redis.zrange("darkroom:due", 0, -1)}
    assert due == {job.id for job in found if schedule.due_at(job) is not None}
    for job in found:
        if schedule.due_at(job) is not None:
            assert redis.zscore("darkroom:due", job.id) == due_ms(schedule.due_at(job))
    for name in {job.provider for job in found}:
        line = {key.decode(): score for key, score in redis.zrange(f"darkroom:lane:{name}", 0, -1, withscores=True)}
        mine = {
            job.id: due_ms(schedule.lane_at(job))
            for job in found
            if schedule.lane_at(job) is not None and job.provider == name
        }
        assert set(line) == set(mine)
        assert all(0 <= line[job_id] - mine[job_id] <= MESSAGE_GRACE_SECONDS * 1000 for job_id in mine)
    for status in Status:
        index = {name.decode() for name in redis.zrange(f"darkroom:index:{status}", 0, -1)}
        assert index == {job.id for job in found if job.status is status}
    unknown = {name.decode() for name in redis.zrange("darkroom:index:unknown", 0, -1)}
    assert unknown == {job.id for job in found if job.has_unknown}
    held = {key.decode().rsplit(":", 1)[1]: redis.smembers(key) for key in redis.keys("darkroom:held:*")}
    holders = {job.holder for job in found if job.holder}
    assert held == {name: {job.id.encode() for job in found if job.holder == name} for name in holders}


def steps(chance: random.Random) -> list[Callable[[Job, datetime], Job]]:
    """Changes of a job, in random order."""
    number, holder = chance.randint(1, 3), chance.choice([US, OTHER])
    picture = Artifact(0, "k", "image/png", 1, "ab", 1, 1)
    expired = Missing(1, Code.RESULT_EXPIRED, "died")
    return [
        lambda job, now: transitions.claimed(job, holder, now),
        lambda job, now: transitions.claimed(job, holder, now),
        lambda job, now: transitions.submitting(
            job, holder, now, recovery=chance.choice(list(Recovery)), polled=chance.random() < 0.5
        ),
        lambda job, now: transitions.submitting(job, holder, now, recovery=Recovery.KEY),
        lambda job, now: transitions.released(job, holder, now),
        lambda job, now: transitions.outcome_lost(job, holder, now),
        lambda job, now: transitions.reported(job, number, Running("ext"), now),
        lambda job, now: transitions.reported(job, number, BUSY, now + timedelta(seconds=-60)),
        lambda job, now: transitions.reported(job, number, SUCCESS, now),
        lambda job, now: transitions.stored(job, len(job.attempts), {0: picture}, now),
        lambda job, now: transitions.stored(job, len(job.attempts), {1: expired}, now),
        lambda job, now: transitions.stored(job, number, {0: picture, 1: picture}, now),
        lambda job, now: transitions.stored(job, number, {0: Postponed(0, 0, "away"), 1: Postponed(1, 9, "away")}, now),
        lambda job, now: transitions.canceled(job, now) if chance.random() < 0.3 else job,
        lambda job, now: transitions.expired(job, now + timedelta(hours=1)) if chance.random() < 0.3 else job,
        lambda job, now: transitions.retried(job, now, may_charge_again=True) if job.status.is_final else job,
        lambda job, now: transitions.poll_postponed(job, now),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_sets_agree_with_the_records_after_any_changes(redis: Redis, repository: Repository, seed: int) -> None:
    chance = random.Random(seed)
    ids = [new(repository, keep_late=chance.random() < 0.5).id for _ in range(6)]
    statuses = set()
    for step in range(600):
        change = chance.choice(steps(chance))
        try:
            statuses.add(repository.update(chance.choice(ids), change).after.status)
        except NotPossible:
            continue
        if step % 20 == 0:
            assert_sets_agree(redis, repository)
    assert_sets_agree(redis, repository)
    assert statuses == set(Status), f"seed {seed} tried too little"


def test_the_sets_agree_after_concurrent_writes(redis: Redis, repository: Repository) -> None:
    ids = [new(repository).id for _ in range(4)]

    def act(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            try:
                repository.update(chance.choice(ids), chance.choice(steps(chance)))
            except NotPossible:
                continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(act, range(6)))
    assert_sets_agree(redis, repository)


def test_a_job_whose_message_was_pushed_enters_its_lane_later(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    line = redis.zscore("darkroom:lane:provider", job.id)
    assert line == due_ms(job.created_at) + MESSAGE_GRACE_SECONDS * 1000
    claim(repository, job)
    repository.update(job.id, lambda job, now: transitions.released(job, US, now))
    assert redis.zscore("darkroom:lane:provider", job.id) == due_ms(repository.get(job.id).wake_at or job.created_at)
    claim(repository, job)
    repository.update(
        job.id, lambda job, now: transitions.released(job, US, now), message=lambda _: Message("queue", b"x")
    )
    released = repository.get(job.id)
    assert redis.zscore("darkroom:lane:provider", job.id) == due_ms(released.wake_at or job.created_at) + 10_000


# --- leases -----------------------------------------------------------------------------------------------------------


def die(redis: Redis, holder: str, seconds_ago: float = 1.0) -> None:
    """Let the holder's lease have run out so many seconds ago."""
    redis.zadd("darkroom:holders", {holder: redis_ms(redis) - int(seconds_ago * 1000)})


def test_a_tick_renews_the_lease_and_returns_the_living(repository: Repository, redis: Redis) -> None:
    tick = repository.tick(US, {"operations": ["provider.paint"], "host": "h"}, 10)
    assert tick.living == {US}
    assert redis.zscore("darkroom:holders", US) == ms(tick.now) + LEASE_SECONDS * 1000
    assert repository.workers() == {US: {"operations": ["provider.paint"], "host": "h"}}
    assert repository.served_operations() == {"provider.paint"}
    repository.tick(OTHER, {}, 10)
    assert repository.tick(US, {}, 10).living == {US, OTHER}


def test_a_removed_worker_is_forgotten(repository: Repository) -> None:
    repository.tick(US, {"operations": ["provider.paint"]}, 0)
    repository.remove_worker(US)
    assert (repository.workers(), repository.served_operations()) == ({}, frozenset())


def test_jobs_of_a_dead_worker_are_due(repository: Repository, redis: Redis) -> None:
    repository.tick(US, {}, 0)
    repository.tick(OTHER, {}, 0)
    sent, claimed, free = (
        send(repository, new(repository), OTHER),
        claim(repository, new(repository), OTHER),
        new(repository),
    )
    assert repository.held(OTHER) == tuple(sorted((sent.id, claimed.id)))
    die(redis, OTHER)
    tick = repository.tick(US, {}, 10)
    assert set(tick.due) == {sent.id, claimed.id}
    assert tick.living == {US}
    assert free.id not in tick.due
    assert repository.held(OTHER) == ()
    assert OTHER not in repository.workers()
    assert set(repository.tick(US, {}, 10).due) == set()


def test_a_forgotten_worker_that_claims_a_job_has_a_lease_again(repository: Repository, redis: Redis) -> None:
    """It was silent, was taken for dead, claimed a job before it renewed its lease, and died."""
    repository.tick(OTHER, {}, 0)
    repository.tick(US, {}, 0)
    die(redis, OTHER)
    assert repository.tick(US, {}, 0).living == {US}
    job = claim(repository, new(repository), OTHER)
    assert repository.tick(US, {}, 10).due == ()
    die(redis, OTHER)
    assert repository.tick(US, {}, 10).due == (job.id,)


def test_jobs_of_a_living_worker_are_not_due(repository: Repository) -> None:
    repository.tick(OTHER, {}, 0)
    send(repository, new(repository), OTHER)
    assert repository.tick(US, {}, 10).due == ()


def test_more_jobs_of_a_dead_worker_than_the_limit_are_taken_by_later_ticks(
    repository: Repository, redis: Redis
) -> None:
    repository.tick(US, {}, 0)
    jobs = {claim(repository, new(repository), OTHER).id for _ in range(3)}
    redis.sadd("darkroom:held:worker-b", *(f"{number:032x}" for number in range(600)))
    die(redis, OTHER)
    ticks = [repository.tick(US, {}, 250).due for _ in range(3)]
    assert [len(due) for due in ticks] == [250, 250, 103]
    assert jobs <= {job_id for due in ticks for job_id in due}


def be_silent(redis: Redis, seconds: float = SILENCE_SECONDS + 1) -> None:
    """Let no worker have been heard for so many seconds."""
    redis.set("darkroom:ticked", redis_ms(redis) - int(seconds * 1000))


def test_after_an_outage_no_worker_is_taken_for_dead_before_it_could_renew_its_lease(
    repository: Repository, redis: Redis
) -> None:
    for name in (US, OTHER):
        repository.tick(name, {}, 0)
    job = send(repository, new(repository), OTHER)
    die(redis, US)
    die(redis, OTHER)
    be_silent(redis)
    tick = repository.tick(US, {}, 10)
    assert (tick.due, tick.living) == ((), {US, OTHER})
    assert 0 < redis.pttl("darkroom:grace") <= GRACE_SECONDS * 1000
    assert repository.held(OTHER) == (job.id,)
    redis.delete("darkroom:grace")
    assert repository.tick(US, {}, 10).due == (job.id,)


def test_a_worker_that_starts_after_an_outage_does_not_take_the_others_for_dead(
    repository: Repository, redis: Redis
) -> None:
    repository.tick(OTHER, {}, 0)
    send(repository, new(repository), OTHER)
    die(redis, OTHER)
    be_silent(redis)
    assert repository.tick(US, {}, 10).due == ()
    assert 0 < redis.pttl("darkroom:grace") <= GRACE_SECONDS * 1000
    repository.tick(OTHER, {}, 10)
    redis.delete("darkroom:grace")
    assert repository.tick(US, {}, 10).due == ()


def test_a_crash_loop_of_workers_does_not_delay_a_rescue(repository: Repository, redis: Redis) -> None:
    """While any worker is heard there is no outage, and no grace."""
    repository.tick(OTHER, {}, 0)
    job = send(repository, new(repository), OTHER)
    repository.tick("worker-1", {}, 10)
    die(redis, OTHER)
    assert repository.tick("worker-2", {}, 10).due == (job.id,)
    assert not redis.exists("darkroom:grace")


# --- due jobs ------------------------------------------------------------------------------------------------------


def test_due_jobs_are_taken_and_due_again_when_nobody_acts(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    redis.zadd("darkroom:due", {job.id: redis_ms(redis)})
    assert repository.tick(US, {}, 10).due == (job.id,)
    assert repository.tick(US, {}, 10).due == ()
    score = redis.zscore("darkroom:due", job.id)
    assert score is not None
    assert abs(score - redis_ms(redis) - SWEEP_LEASE_SECONDS * 1000) < 2000


def test_jobs_of_a_dead_worker_are_due_again_sooner(repository: Repository, redis: Redis) -> None:
    repository.tick(OTHER, {}, 0)
    job = send(repository, new(repository), OTHER)
    repository.tick(US, {}, 0)
    die(redis, OTHER)
    assert repository.tick(US, {}, 10).due == (job.id,)
    score = redis.zscore("darkroom:due", job.id)
    assert score is not None
    assert abs(score - redis_ms(redis) - RESCUE_LEASE_SECONDS * 1000) < 2000


def test_a_tick_takes_no_more_than_its_limit(repository: Repository, redis: Redis) -> None:
    redis.zadd("darkroom:due", {f"{number:032x}": number for number in range(5)})
    assert repository.tick(US, {}, 2).due == (f"{0:032x}", f"{1:032x}")
    assert repository.tick(US, {}, 0).due == ()
    assert len(repository.tick(US, {}, 10).due) == 3


def test_three_sweepers_take_each_job_once(repository: Repository, redis: Redis) -> None:
    redis.zadd("darkroom:due", {f"{number:032x}": number for number in range(3000)})

    def sweep(name: int) -> list[str]:
        popped: list[str] = []
        while due := repository.tick(f"worker-{name}", {}, 100).due:
            popped.extend(due)
        return popped

    with ThreadPoolExecutor(3) as pool:
        popped = [job_id for found in pool.map(sweep, range(3)) for job_id in found]
    assert len(popped) == len(set(popped)) == 3000


def test_a_job_is_taken_from_its_lane_once_and_not_before_its_time(repository: Repository, redis: Redis) -> None:
    now, later = new(repository), new(repository)
    redis.zadd("darkroom:lane:provider", {now.id: redis_ms(redis) - 10, later.id: redis_ms(redis) + 60_000})
    assert repository.take_from_lane("provider", 10) == (now.id,)
    assert repository.take_from_lane("provider", 10) == ()
    assert repository.take_from_lane("other", 10) == ()


def test_a_queued_job_is_due_at_its_deadline_only(repository: Repository, redis: Redis) -> None:
    """So a long backlog costs the sweep nothing."""
    job = new(repository)
    assert redis.zscore("darkroom:due", job.id) == due_ms(job.deadline_at)


def test_a_forgotten_job_can_be_removed_from_the_due_jobs(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    redis.delete(f"darkroom:job:{job.id}")
    repository.remove_due(job.id)
    assert redis.zcard("darkroom:due") == 0


# --- retention --------------------------------------------------------------------------------------------------------


def test_a_final_record_expires_after_its_retention(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    assert redis.ttl(f"darkroom:job:{job.id}") == -1
    cancel(repository, job)
    assert RETENTION - 5 <= redis.ttl(f"darkroom:job:{job.id}") <= RETENTION


def test_a_job_that_is_retried_does_not_expire(repository: Repository, redis: Redis) -> None:
    job = cancel(repository, new(repository))
    repository.update(job.id, lambda job, now: transitions.retried(job, now))
    assert redis.ttl(f"darkroom:job:{job.id}") == -1


def test_a_canceled_job_with_pending_images_does_not_expire(repository: Repository, redis: Redis) -> None:
    job = cancel(repository, send(repository, new(repository, keep_late=True)))
    change = repository.update(job.id, lambda job, now: transitions.reported(job, 1, SUCCESS, now))
    assert (change.after.status, redis.ttl(f"darkroom:job:{job.id}")) == (Status.CANCELED, -1)


def test_an_idempotency_key_outlives_its_job(repository: Repository, redis: Redis) -> None:
    """If the key expired before its job, the same order would be paid twice."""
    job = replace(new(repository), id=uuid.uuid4().hex)
    repository.create(job, idempotency_key="k", request_digest="d")
    (key,) = redis.keys("darkroom:idempotency:*")
    assert 0 <= RETENTION + job.deadline_seconds - redis.ttl(key) <= 5


def test_an_idempotency_key_whose_job_is_forgotten_is_free(repository: Repository, redis: Redis) -> None:
    first, second = (replace(new(repository), id=uuid.uuid4().hex) for _ in range(2))
    assert isinstance(repository.create(first, idempotency_key="k", request_digest="d"), Created)
    assert repository.create(second, idempotency_key="k", request_digest="d") == Existing((first.id,), "d")
    redis.delete(f"darkroom:job:{first.id}")
    assert isinstance(repository.create(second, idempotency_key="k", request_digest="d"), Created)


def test_forgotten_jobs_are_removed_from_the_lists(repository: Repository) -> None:
    old = repository.now() - timedelta(seconds=RETENTION + LONGEST_LIFE_SECONDS + 100)
    gone = cancel(repository, new(repository, created_at=old))
    stays = cancel(repository, new(repository))
    assert repository.prune() == 1
    assert [job.id for job in repository.list()] == [stays.id]
    assert gone.id != stays.id


def test_a_job_that_is_not_final_is_never_pruned(repository: Repository) -> None:
    old = new(repository, created_at=repository.now() - timedelta(days=30))
    assert repository.prune() == 0
    assert [job.id for job in repository.list()] == [old.id]


# --- versions ---------------------------------------------------------------------------------------------------------


def record_of(redis: Redis, job: Job) -> tuple[list[str], bytes]:
    """The fields of the header of a job's record, and its JSON."""
    header, _, body = redis.get(f"darkroom:job:{job.id}").partition(b" ")
    return header.decode().split("."), body


@pytest.mark.parametrize("status", ["queued", "storing"])
def test_a_claim_changes_only_the_header(repository: Repository, redis: Redis, status: str) -> None:
    job = new(repository)
    if status == "storing":
        job = send(repository, job)
        job = repository.update(job.id, lambda job, now: transitions.reported(job, 1, SUCCESS, now)).after
    assert (job.status, job.holder) == (status, None)
    (schema, writes, nonce, holder), body = record_of(redis, job)
    assert (f"{schema}.{writes}.{nonce}", holder) == (job.version, "")

    held = claim(repository, job)
    assert held == replace(job, holder=US)
    (schema, next_writes, _, holder), same_body = record_of(redis, job)
    assert (schema, int(next_writes), holder) == (str(SCHEMA), int(writes) + 1, US)
    assert same_body == body
    assert US.encode() not in body or status == "storing"  # the ledger names who sent an attempt


def test_a_script_claims_a_job_by_its_header(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    (schema, writes, _, _), body = record_of(redis, job)
    redis.set(f"darkroom:job:{job.id}", f"{schema}.{int(writes) + 1}.abcdef01.{US} ".encode() + body)
    held = repository.get(job.id)
    assert held == replace(job, holder=US)
    assert held.version == f"{schema}.{int(writes) + 1}.abcdef01"
    sent = repository.update(job.id, lambda job, now: transitions.submitting(job, US, now), known=held)
    assert sent.after.status is Status.SUBMITTING


@pytest.mark.parametrize(
    "header", ["3.1.abcdef01", f"{SCHEMA}.1.abcdef01", f"{SCHEMA}.1.abcdef01.w.new", "", "x.1.a.w"]
)
def test_a_record_with_another_header_is_not_read(repository: Repository, redis: Redis, header: str) -> None:
    job, other = new(repository), new(repository)
    _, body = record_of(redis, job)
    redis.set(f"darkroom:job:{job.id}", header.encode() + b" " + body)
    with pytest.raises(Unavailable, match="is damaged or was written by an older version"):
        repository.get(job.id)
    assert set(repository.get_many([job.id, other.id])) == {other.id}


def test_records_of_a_later_version_are_left_alone(repository: Repository, redis: Redis) -> None:
    job, other = new(repository), new(repository)
    later = f"{SCHEMA + 1}.9.abcdef01.{US}.account.permit " + json.dumps({"whatever": "it is"})
    redis.set(f"darkroom:job:{job.id}", later)
    with pytest.raises(Unavailable, match="upgrade this process"):
        repository.get(job.id)
    with pytest.raises(Unavailable):
        repository.update(job.id, transitions.canceled)
    with pytest.raises(Unavailable):
        repository.update(job.id, transitions.canceled, known=job)
    assert set(repository.get_many([job.id, other.id])) == {other.id}
    assert [found.id for found in repository.list()] == [other.id]
    assert redis.get(f"darkroom:job:{job.id}") == later.encode()


def test_a_damaged_record_stops_no_other_and_is_not_quoted(repository: Repository, redis: Redis) -> None:
    job, other = new(repository), new(repository)
    version, _, body = redis.get(f"darkroom:job:{job.id}").partition(b" ")
    redis.set(f"darkroom:job:{job.id}", version + b" " + json.dumps({**json.loads(body), "status": "canary"}).encode())
    with pytest.raises(Unavailable, match="is damaged") as failure:
        repository.get(job.id)
    assert "canary" not in str(failure.value)
    assert set(repository.get_many([job.id, other.id])) == {other.id}
    updates = [Update(each.id, transitions.canceled) for each in (job, other)]
    bad, good = repository.update_all(updates)
    assert isinstance(bad, Unavailable)
    assert isinstance(good, Change)
    assert good.after.status is Status.CANCELED


def test_a_field_of_a_later_version_survives_our_writes(repository: Repository, redis: Redis) -> None:
    job = new(repository)
    version, _, body = redis.get(f"darkroom:job:{job.id}").partition(b" ")
    redis.set(f"darkroom:job:{job.id}", version + b" " + json.dumps({**json.loads(body), "new": 1}).encode())
    assert repository.get(job.id) == job
    cancel(repository, send(repository, job))
    assert json.loads(json_of(redis.get(f"darkroom:job:{job.id}")))["new"] == 1
    assert repository.get(job.id).status is Status.CANCELED


# --- lists ----------------------------------------------------------------------------------------------------------


def test_pages_have_each_job_once_the_latest_first(in_memory: Repository) -> None:
    now = in_memory.now()
    jobs = [new(in_memory, created_at=now - timedelta(milliseconds=number // 3)) for number in range(25)]
    for job in jobs[::2]:
        cancel(in_memory, job)
    pages, before = [], None
    while page := in_memory.list(before=before, limit=10):
        pages.append(page)
        before = (float(ms(page[-1].created_at)), page[-1].id)
    assert [len(page) for page in pages] == [10, 10, 5]
    seen = [job for page in pages for job in page]
    assert {job.id for job in seen} == {job.id for job in jobs}
    assert seen == sorted(seen, key=lambda job: (ms(job.created_at), job.id), reverse=True)


def test_jobs_are_listed_by_status_and_unknown_outcome(repository: Repository) -> None:
    queued = new(repository)
    canceled = cancel(repository, new(repository))
    unknown_job = send(repository, new(repository))
    repository.update(unknown_job.id, lambda job, now: transitions.outcome_lost(job, US, now))
    assert [job.id for job in repository.list([Status.CANCELED])] == [canceled.id]
    assert {job.id for job in repository.list([Status.CANCELED, Status.QUEUED])} == {canceled.id, queued.id}
    assert [job.id for job in repository.list(unknown=True)] == [unknown_job.id]
    counted = repository.count()
    assert {name: number for name, number in counted.items() if number} == {
        "queued": 1,
        "canceled": 1,
        "failed": 1,
        "unknown": 1,
    }


# --- outages ------------------------------------------------------------------------------------------------------------


def test_the_clock_is_that_of_redis_and_is_asked_rarely(repository: Repository, redis: Redis) -> None:
    before = redis.info("commandstats").get("cmdstat_time", {}).get("calls", 0)
    assert abs(ms(repository.now()) - redis_ms(redis)) < 1000
    for _ in range(20):
        repository.now()
    assert redis.info("commandstats")["cmdstat_time"]["calls"] - before <= 2
    assert repository.now().tzinfo is UTC
    assert repository.ping() < 1


def test_an_absent_redis_is_an_error_at_once(free_port: int) -> None:
    repository = Repository.open(f"redis://127.0.0.1:{free_port}/0", retention_seconds=RETENTION)
    started = time.monotonic()
    for ask in (repository.ping, repository.now, lambda: repository.get("a" * 32), repository.list):
        with pytest.raises(RedisUnavailable, match="Connection refused"):
            ask()
    assert time.monotonic() - started < 2


def test_a_repository_with_patience_survives_a_restart_of_redis(server: Any) -> None:
    patient = Repository.open(server.url, retention_seconds=RETENTION, patience_seconds=20)
    impatient = Repository.open(server.url, retention_seconds=RETENTION)
    job = send(patient, new(patient))
    server.kill()
    with pytest.raises(RedisUnavailable):
        impatient.get(job.id)
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(
            patient.update, job.id, lambda job, now: transitions.reported(job, 1, SUCCESS, now), known=job
        )
        time.sleep(0.3)
        assert not change.done()
        server.start()
        assert change.result(timeout=20).after.status is Status.STORING
    assert impatient.get(job.id).status is Status.STORING


# --- cost ----------------------------------------------------------------------------------------------------


def test_a_parked_job_costs_little_memory(repository: Repository, redis: Redis) -> None:
    def parked() -> Job:
        job = send(
            repository,
            new(repository, params={"prompt": secrets.token_urlsafe(150), "image_urls": ["https://host/x.png"]}),
        )
        return repository.update(job.id, lambda job, now: transitions.reported(job, 1, Running("ext-1234"), now)).after

    for _ in range(100):
        parked()
    before = redis.info("memory")["used_memory"]
    for _ in range(400):
        parked()
    size = (redis.info("memory")["used_memory"] - before) / 400
    print(f"\n{size:.0f} bytes of Redis a parked job")
    assert size < 1000
