"""The processes of a run, their supervisor, and the incidents."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from jobs.darkroom import Darkroom
from jobs.embedded import Command, Process, Processes, free_port
from jobs.embedded.redis import is_up
from jobs.errors import DarkroomError
from jobs.job import Job

from . import servers
from .plan import Enqueue, Incident, Plan
from .recovery import RecoveryWatch
from .tcp_proxy import TcpProxy
from .verdict import Book, Evidence

log = logging.getLogger("chaos")

#: the pause before a dead process is started again, in seconds
RESTART_SECONDS = 0.5
#: how long a run waits for its jobs after the last deadline, in seconds
END_SECONDS = 60.0
_PRODUCERS = 8


@dataclass
class Supervisor:
    """Starts processes again after they were killed, or ended by themselves. Thread-safe."""

    processes: Processes
    commands: Mapping[str, Command]
    #: the names of processes that ended without a kill of ours
    crashed: list[str] = field(default_factory=list)
    killed: int = 0
    _running: dict[str, Process] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self, *names: str) -> None:
        """Start processes; they may not be ready yet."""
        with self._lock:
            for name in names:
                self._running[name] = self.processes.start(self.commands[name])

    def kill(self, name: str) -> int | None:
        """Send SIGKILL, and return the process id; None if the process was dead already."""
        with self._lock:
            process = self._running.get(name)
            if process is None or name in self._due:
                return None
            self.processes.kill(process)
            self.killed += 1
            self._due[name] = time.monotonic() + RESTART_SECONDS
            return process.pid

    def restart_ended(self) -> None:
        """Start processes whose pause is over. To be called often."""
        with self._lock:
            for name, process in self._running.items():
                if name not in self._due and not process.is_alive:
                    self.crashed.append(name)
                    self.processes.kill(process)
                    self._due[name] = time.monotonic() + RESTART_SECONDS
            for name in [name for name, at in self._due.items() if at <= time.monotonic()]:
                del self._due[name]
                self.start(name)


@dataclass(frozen=True)
class Cluster:
    """All processes of a run, and what was enqueued."""

    folder: Path
    supervisor: Supervisor
    proxy: TcpProxy
    watch: RecoveryWatch
    darkroom: Darkroom
    sandbox_url: str
    s3_url: str
    #: the ids of accepted jobs by their prompts
    accepted: dict[str, str] = field(default_factory=dict)

    # --- the run ---------------------------------------------------------------------------------------------------

    def run(self, plan: Plan) -> Evidence:
        """Execute the plan, wait until all jobs are complete, and return the evidence."""
        started = time.monotonic()
        self._control("POST", "faults", {"faults": list(plan.faults)})
        with ThreadPoolExecutor(_PRODUCERS) as producers, _thread(self._supervise):
            incidents = threading.Thread(target=self._cause_all, args=(plan.incidents, started))
            incidents.start()
            for enqueue in plan.enqueues:
                _sleep_until(started + enqueue.at)
                producers.submit(self._enqueue, enqueue, plan)
            incidents.join()
            _sleep_until(started + plan.seconds)
            self._control("DELETE", "faults")
            self._await_the_end(plan)
            producers.shutdown()
        return self._evidence()

    def _supervise(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            self.supervisor.restart_ended()

    def _enqueue(self, enqueue: Enqueue, plan: Plan) -> None:
        """Enqueue until the job is accepted, with one idempotency key, as a careful client does."""
        request = enqueue.scenario.request(enqueue.prompt)
        give_up_at = time.monotonic() + 120
        while time.monotonic() < give_up_at:
            try:
                job = self.darkroom.enqueue(
                    request, idempotency_key=enqueue.prompt, deadline_seconds=plan.deadline_seconds
                )
            except DarkroomError as error:
                log.info("enqueue: %s", type(error).__name__)
                time.sleep(0.3)
            else:
                self.accepted[enqueue.prompt] = job.id
                return

    def _cause_all(self, incidents: Iterable[Incident], started: float) -> None:
        for incident in incidents:
            _sleep_until(started + incident.at)
            log.info("%5.1f s: %s %s", time.monotonic() - started, incident.what, incident.target)
            self._cause(incident)

    def _cause(self, incident: Incident) -> None:
        match incident.what:
            case "kill":
                pid = self.supervisor.kill(incident.target)
                if pid is not None and incident.target.startswith("worker"):
                    self.watch.record_kill(incident.target, pid)
            case "storage away":
                self.proxy.close()
                self.watch.storage_away = True
            case "storage back":
                self.proxy.open()
                self.watch.storage_away = False
            case "skew":
                self._control("POST", "faults", {"faults": [f"clock-skew=2@{incident.target}"]})
            case "no skew":
                self._control("DELETE", "faults?name=clock-skew")

    def _await_the_end(self, plan: Plan) -> None:
        give_up_at = time.monotonic() + plan.deadline_seconds + END_SECONDS
        while time.monotonic() < give_up_at:
            with suppress(DarkroomError):
                jobs = self._jobs().values()
                ended = all(job is None or (job.status.is_final and not job.pending) for job in jobs)
                if ended and len(jobs) == len(plan.enqueues) and self._owed() == 0:
                    return
            time.sleep(0.5)

    # --- the evidence --------------------------------------------------------------------------------------------

    def _evidence(self) -> Evidence:
        self.watch.stop()
        books: list[Book] = self._control("GET", "ledger")["submissions"]
        return Evidence(self._jobs(), books, self._bucket(), self.watch.deaths, self.watch.recoveries)

    def _jobs(self) -> Mapping[str, Job | None]:
        ids = dict(self.accepted)
        found = self.darkroom.repository.get_many(tuple(ids.values()))
        return {prompt: found.get(job_id) for prompt, job_id in ids.items()}

    def _bucket(self) -> Mapping[str, str]:
        """Return the SHA-256 of each object's bytes, by key."""
        client = servers.s3_client(self.s3_url)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=servers.BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]

        def digest(key: str) -> str:
            return hashlib.sha256(client.get_object(Bucket=servers.BUCKET, Key=key)["Body"].read()).hexdigest()

        with ThreadPoolExecutor(4) as pool:
            return dict(zip(keys, pool.map(digest, keys), strict=True))

    def _owed(self) -> int:
        return int(self._control("GET", "traffic")["callbacks_owed"])

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.sandbox_url}/_sandbox/{path}", json=body, timeout=60, trust_env=False)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def start_cluster(folder: Path, plan: Plan, *, fsync: str = "always") -> Iterator[Cluster]:
    """Start all processes and wait until they are ready; at the end only the folder is left."""
    redis_port, s3_port, proxy_port, sandbox_port, receiver_port = (free_port() for _ in range(5))
    redis_url = f"redis://127.0.0.1:{redis_port}/0"
    s3_url = f"http://127.0.0.1:{s3_port}"
    sandbox_url = f"http://127.0.0.1:{sandbox_port}"
    environ = servers.environment(
        redis_url=redis_url,
        storage_url=f"s3://{servers.BUCKET}",
        s3_url=f"http://127.0.0.1:{proxy_port}",
        sandbox_url=sandbox_url,
        public_url=f"http://127.0.0.1:{receiver_port}",
        spool=folder / "spool",
    )
    environ |= {"PHOTA_ASYNC": "true"}
    polling = {**environ, "CHAINHUB_CALLBACK_FIELD": "none"}
    state = ("--state", str(folder / "sandbox.journal"))
    look = ("--latency", "0.2-2", "--seed", str(plan.seed), "--image-size", "128")
    commands = {
        "redis": servers.redis(folder / "redis", redis_port, fsync=fsync),
        "s3": servers.s3(folder / "s3", s3_port),
        "sandbox": servers.sandbox(folder, sandbox_port, *state, *look),
        "worker-1": servers.worker("worker-1", folder, environ),
        "worker-2": servers.worker("worker-2", folder, polling),
        "receiver-1": servers.receiver("receiver-1", folder, environ, receiver_port),
        "receiver-2": servers.receiver("receiver-2", folder, environ, receiver_port),
    }
    with Processes(folder / "logs") as processes, TcpProxy(proxy_port, s3_port) as proxy:
        supervisor = Supervisor(processes, commands)
        supervisor.start("redis", "s3", "sandbox")
        _await(lambda: is_up(redis_url), "Redis")
        _await(lambda: servers.listens(s3_port) and servers.listens(sandbox_port), "S3 and sandbox")
        servers.s3_client(s3_url).create_bucket(Bucket=servers.BUCKET)
        supervisor.start("worker-1", "worker-2", "receiver-1", "receiver-2")
        darkroom = servers.darkroom(environ, patience_seconds=1.0)
        _await(lambda: servers.listens(receiver_port), "receivers")
        _await(lambda: len(darkroom.repository.workers()) == 2, "workers")
        watch = RecoveryWatch(darkroom)
        watch.start()
        yield Cluster(folder, supervisor, proxy, watch, darkroom, sandbox_url, s3_url)


def _await(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    give_up_at = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{what} did not answer within {seconds:g} s")
        time.sleep(0.05)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


@contextmanager
def _thread(target: Callable[[threading.Event], None]) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=target, args=(stopping,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def abbreviated(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
