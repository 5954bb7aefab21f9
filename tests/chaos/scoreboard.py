"""`python -m tests.chaos.scoreboard`: the same faults with plain Celery, and with Darkroom.

Each contestant has two worker processes, a Redis that is not killed, the same vendor (synchronous, without an idempotency key)
with the same faults, and the same kills: SIGKILL for one worker and all its children, again and again. What counts is what the
vendor's books and the bucket say in the end. Calls are under way at a kill: who pays again has a picture, who does not has a job
that says `unknown`. A last column shows what becomes of that with a vendor that has a key.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from celery import Celery
from redis import Redis
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from jobs.embedded import Command, Processes, free_port
from jobs.embedded.redis import is_up
from jobs.job import Job

from . import servers
from .celery_today import VISIBILITY_TIMEOUT
from .cluster import Supervisor
from .scenarios import PHOTA_ASYNC, REVE_URL, Scenario

#: the provider's faults
FAULTS = ("drop%4", "reset%2", "429%3", "503%3", "latency=5%5", "result-500%3")
WORKERS = ("worker-1", "worker-2")
#: calls that a worker may have in flight: the same number for each contestant, since a kill loses what is in flight
SLOTS = 8
#: how long a contestant has after the last kill, in seconds
END_SECONDS = 3 * VISIBILITY_TIMEOUT + 30.0


@dataclass(frozen=True)
class Score:
    """The results of one contestant."""

    name: str
    jobs: int
    pictures: int
    paid_twice: int
    #: charged, no image, and nothing says so
    lost: int
    #: no image, and the job says that it may have been charged
    unknown: int
    #: not final at the end
    stuck: int

    def per_thousand(self, count: int) -> str:
        return f"{1000 * count / self.jobs:.0f}"


@dataclass(frozen=True)
class Race:
    """The conditions, the same for all contestants."""

    seed: int
    seconds: float
    #: the time between two kills, in seconds
    every_seconds: float
    jobs: int

    @property
    def prompts(self) -> list[str]:
        return [f"scoreboard-{self.seed}-{number}" for number in range(self.jobs)]

    @property
    def kills(self) -> list[tuple[float, str]]:
        chance = random.Random(self.seed)
        count = int(self.seconds / self.every_seconds)
        return [(self.every_seconds * (turn + 1), chance.choice(WORKERS)) for turn in range(count)]


@dataclass(frozen=True)
class Ground:
    """The servers of one contestant, on their ports."""

    folder: Path
    redis_url: str
    s3_url: str
    sandbox_url: str

    @property
    def environ(self) -> dict[str, str]:
        own = servers.environment(
            redis_url=self.redis_url,
            storage_url=f"s3://{servers.BUCKET}",
            s3_url=self.s3_url,
            sandbox_url=self.sandbox_url,
            public_url="",
            spool=self.folder / "spool",
        )
        return own | {"BROKER_URL": self.redis_url, "CHAOS_BUCKET": servers.BUCKET}


@dataclass(frozen=True)
class Contestant:
    """One way to buy images."""

    name: str
    worker: Callable[[str, Ground], Command]
    enqueue: Callable[[Ground], Callable[[str], None]]
    #: the prompts of final jobs
    ended: Callable[[Ground], set[str]]
    #: the prompts whose images are in the bucket
    stored: Callable[[Ground], set[str]]
    #: the prompts that are reported as possibly charged
    doubted: Callable[[Ground], set[str]] = lambda _: set()
    ours: bool = False


def _celery(check: str) -> Callable[[str, Ground], Command]:
    def command(name: str, ground: Ground) -> Command:
        options = ["-A", "tests.chaos.celery_today", "worker", "-c", str(SLOTS), "-l", "INFO", "-n", f"{name}@%h"]
        environ = {**ground.environ, "PYTHONPATH": str(servers.ROOT), "CHAOS_CHECK": check}
        return Command(name, [sys.executable, "-m", "celery", *options], environ, ground.folder)

    return command


def _send(ground: Ground) -> Callable[[str], None]:
    app = Celery("producer", broker=ground.redis_url)
    return lambda prompt: app.send_task("tests.chaos.celery_today.render", args=(prompt,), ignore_result=True) and None


def _ended(ground: Ground) -> set[str]:
    with Redis.from_url(ground.redis_url, decode_responses=True) as redis:
        return set(redis.smembers("ended"))


def _keys(ground: Ground) -> set[str]:
    client = servers.s3_client(ground.s3_url)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=servers.BUCKET)
    return {item["Key"] for page in pages for item in page.get("Contents", ())}


def _jobs(ground: Ground, **options: Any) -> Sequence[Job]:
    return servers.darkroom(ground.environ).repository.list(limit=100_000, **options)


def _final(ground: Ground) -> set[str]:
    return {job.params["prompt"] for job in _jobs(ground) if job.status.is_final}


def _kept(ground: Ground) -> set[str]:
    keys = _keys(ground)
    done = [job for job in _jobs(ground) if job.artifacts and all(one.key in keys for one in job.artifacts)]
    return {job.params["prompt"] for job in done}


def _unknown(ground: Ground) -> set[str]:
    return {job.params["prompt"] for job in _jobs(ground, unknown=True) if not job.artifacts}


def _darkroom(name: str, scenario: Scenario) -> Contestant:
    def worker(name: str, ground: Ground) -> Command:
        limit = {"DARKROOM_MAX_CALLS_IN_FLIGHT": str(SLOTS)}
        return servers.worker(name, ground.folder, {**ground.environ, **scenario.environ, **limit})

    def enqueue(ground: Ground) -> Callable[[str], None]:
        darkroom = servers.darkroom(ground.environ)
        return lambda prompt: darkroom.enqueue(scenario.request(prompt), deadline_seconds=600) and None

    return Contestant(name, worker, enqueue, _final, _kept, _unknown, ours=True)


CONTESTANTS = (
    Contestant("Celery, acks_late and retries", _celery(""), _send, _ended, _keys),
    Contestant("the same, with the usual check", _celery("1"), _send, _ended, _keys),
    _darkroom("Darkroom", REVE_URL),
    _darkroom("Darkroom, vendor with a key", PHOTA_ASYNC),
)


def run_race(contestant: Contestant, race: Race, folder: Path, say: Callable[[str], None]) -> Score:
    """Run the race with one contestant."""
    redis_port, s3_port, sandbox_port = free_port(), free_port(), free_port()
    ports = [f"://127.0.0.1:{port}" for port in (redis_port, s3_port, sandbox_port)]
    ground = Ground(folder, f"redis{ports[0]}/0", f"http{ports[1]}", f"http{ports[2]}")
    look = ("--latency", "0.3-2", "--seed", str(race.seed), "--image-size", "64")
    commands = {
        "redis": servers.redis(folder / "redis", redis_port, fsync="everysec"),
        "s3": servers.s3(folder / "s3", s3_port),
        "sandbox": servers.sandbox(folder, sandbox_port, *look, *(f"--fault={fault}" for fault in FAULTS)),
        **{name: contestant.worker(name, ground) for name in WORKERS},
    }
    with Processes(folder / "logs") as processes, ExitStack() as ending:
        supervisor = Supervisor(processes, commands)
        supervisor.start("redis", "s3", "sandbox")
        ready = (lambda: is_up(ground.redis_url), *(_listening(port) for port in (s3_port, sandbox_port)))
        _await(lambda: all(one() for one in ready), 60)
        servers.s3_client(ground.s3_url).create_bucket(Bucket=servers.BUCKET)
        supervisor.start(*WORKERS)
        ending.callback(_supervise(supervisor))
        _race(contestant, race, ground, supervisor)
        say(f"{contestant.name}: the kills are over")
        _await(lambda: len(contestant.ended(ground)) == race.jobs, END_SECONDS)
        time.sleep(3)  # what is still being written
        return _score(contestant, race, ground)


def _race(contestant: Contestant, race: Race, ground: Ground, supervisor: Supervisor) -> None:
    enqueue, started = contestant.enqueue(ground), time.monotonic()
    kills = list(race.kills)
    for number, prompt in enumerate(race.prompts):
        at = race.seconds * 0.9 * number / race.jobs
        while kills and kills[0][0] <= at:
            _kill(kills.pop(0), started, supervisor)
        time.sleep(max(0.0, started + at - time.monotonic()))
        enqueue(prompt)
    for kill in kills:
        _kill(kill, started, supervisor)


def _kill(kill: tuple[float, str], started: float, supervisor: Supervisor) -> None:
    time.sleep(max(0.0, started + kill[0] - time.monotonic()))
    supervisor.kill(kill[1])


def _score(contestant: Contestant, race: Race, ground: Ground) -> Score:
    books: Sequence[Mapping[str, Any]] = httpx.get(
        f"{ground.sandbox_url}/_sandbox/ledger?digests=0", timeout=60, trust_env=False
    ).json()["submissions"]
    charges: dict[str, int] = {}
    for book in books:
        if book["charged"] and not book["refunded"]:
            charges[book["prompt"]] = charges.get(book["prompt"], 0) + 1
    stored, ended, doubted = contestant.stored(ground), contestant.ended(ground), contestant.doubted(ground)
    prompts = race.prompts
    return Score(
        name=contestant.name,
        jobs=race.jobs,
        pictures=sum(prompt in stored for prompt in prompts),
        paid_twice=sum(charges.get(prompt, 0) > 1 for prompt in prompts),
        lost=sum(prompt in charges and prompt in ended and prompt not in stored | doubted for prompt in prompts),
        unknown=sum(prompt in doubted for prompt in prompts),
        stuck=sum(prompt not in ended for prompt in prompts),
    )


def _supervise(supervisor: Supervisor) -> Callable[[], None]:
    stopping = threading.Event()

    def look() -> None:
        while not stopping.wait(0.1):
            supervisor.restart_ended()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join()

    return stop


def _listening(port: int) -> Callable[[], bool]:
    return lambda: servers.listens(port)


def _await(ready: Callable[[], bool], seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while not ready() and time.monotonic() < give_up_at:
        time.sleep(0.5)


def table(scores: Sequence[Score]) -> Table:
    """Return the table."""
    drawn = Table(box=MARKDOWN)
    drawn.add_column(f"of 1,000 jobs ({scores[0].jobs} run)", overflow="fold")
    for score in scores:
        drawn.add_column(score.name, justify="right", overflow="fold")
    rows: Mapping[str, Callable[[Score], int]] = {
        "paid twice": lambda score: score.paid_twice,
        "lost (paid, no picture)": lambda score: score.lost,
        "stuck": lambda score: score.stuck,
        "unknown, and says so": lambda score: score.unknown,
        "pictures": lambda score: score.pictures,
    }
    for name, figure in rows.items():
        drawn.add_row(name, *(score.per_thousand(figure(score)) for score in scores))
    return drawn


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--seconds", default=80.0, show_default=True, help="How long workers are killed.")
@click.option("--every", default=8.0, show_default=True, help="Seconds between two kills.")
@click.option("--jobs", default=300, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put data and logs; kept.")
def main(seed: int, seconds: float, every: float, jobs: int, folder: Path | None) -> None:
    """Run all contestants one after the other, and print the table."""
    race = Race(seed, seconds, every, jobs)
    home = folder or Path(tempfile.mkdtemp(prefix="darkroom-scoreboard-"))
    console = Console(width=None if Console().is_terminal else 160)
    scores = []
    for number, contestant in enumerate(CONTESTANTS):
        console.print(f"{contestant.name} ...")
        scores.append(run_race(contestant, race, home / str(number), console.print))
    console.print(table(scores))
    if folder is None:
        shutil.rmtree(home)
    pairs = zip(CONTESTANTS, scores, strict=True)
    raise SystemExit(any(one.ours and (score.paid_twice or score.lost or score.stuck) for one, score in pairs))


if __name__ == "__main__":
    main()
