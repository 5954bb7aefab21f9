"""The plan of a run, drawn from one seed: the jobs, the incidents, and the faults of the providers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .scenarios import FACE_ID, GENERATE, IDEOGRAM_CALLBACK, PHOTA_ASYNC, PHOTA_BYTES, REVE_BYTES, REVE_URL, Scenario

#: the time between two kills, in seconds
KILL_SECONDS = 2.0
#: the processes that are killed, with their relative frequency
TARGETS = {"worker-1": 3, "worker-2": 3, "receiver-1": 1, "receiver-2": 1, "redis": 2}
#: All operations in all modes. `phota.remix` by URL has its idempotency key here, since a worker has one setting for it; whether
#: `ideogram-remix` is called back or only polled depends on the worker that sends it.
SCENARIOS: Sequence[Scenario] = (
    GENERATE,
    GENERATE,
    FACE_ID,
    IDEOGRAM_CALLBACK,
    PHOTA_ASYNC,
    PHOTA_BYTES,
    REVE_URL,
    REVE_BYTES,
)
#: The faults of calls, callbacks and results, with their chance in percent; a refused callback is sent again for a minute.
FAULTS: Sequence[str] = (
    "callback-retries=120",
    "callback-twice%20",
    "callback-first%10",
    "callback-late=2%15",
    "updates-shuffled%15@chainhub",
    "updates-repeated%15@chainhub",
    "drop%5",
    "reset%2",
    "truncated%1",
    "hang=1.5%1",
    "500-late%1",
    "429%3",
    "429-retry-after=1%2",
    "503%3",
    "latency=4%5",
    "poll-500%5",
    "poll-drop%5",
    "poll-truncated%2",
    "result-500%3",
    "result-drop%3",
    "result-truncated%2",
    "result-slow=1.5%5",
)


@dataclass(frozen=True)
class Enqueue:
    """One job to be enqueued."""

    #: when, in seconds from the start
    at: float
    scenario: Scenario
    prompt: str


@dataclass(frozen=True)
class Incident:
    """One thing that goes wrong, or ends going wrong."""

    #: when, in seconds from the start
    at: float
    #: `kill`, `storage away`, `storage back`, `skew`, `no skew`
    what: str
    #: the process that is killed, or the provider whose clock is wrong
    target: str = ""


@dataclass(frozen=True)
class Plan:
    """The plan of one run."""

    seed: int
    #: how long incidents happen
    seconds: float
    #: the deadline of each job, in seconds
    deadline_seconds: float
    enqueues: tuple[Enqueue, ...]
    incidents: tuple[Incident, ...]
    faults: tuple[str, ...]


def make_plan(seed: int, seconds: float, jobs: int) -> Plan:
    """Draw the plan of a seed; the same arguments always give the same plan."""
    chance = random.Random(seed)
    last_enqueue = seconds * 0.85
    enqueues = [
        Enqueue(chance.uniform(0, last_enqueue), chance.choice(SCENARIOS), f"chaos {seed} job {number}")
        for number in range(jobs)
    ]
    incidents = (*_kills(chance, seconds), *_storage(chance, seconds), *_skew(chance, seconds))
    return Plan(
        seed=seed,
        seconds=seconds,
        deadline_seconds=min(max(15.0, seconds), 90.0),
        enqueues=tuple(sorted(enqueues, key=lambda enqueue: enqueue.at)),
        incidents=tuple(sorted(incidents, key=lambda incident: incident.at)),
        faults=tuple(FAULTS),
    )


def _kills(chance: random.Random, seconds: float) -> list[Incident]:
    names, weights = list(TARGETS), list(TARGETS.values())
    count = int((seconds - 1) / KILL_SECONDS)
    return [Incident(1 + KILL_SECONDS * turn, "kill", chance.choices(names, weights)[0]) for turn in range(count)]


def _storage(chance: random.Random, seconds: float) -> list[Incident]:
    """The storage is away once: for a minute in a run of two, for a quarter of a shorter one."""
    away = 60.0 if seconds >= 120 else seconds / 4
    at = chance.uniform(seconds * 0.1, seconds * 0.9 - away)
    return [Incident(at, "storage away"), Incident(at + away, "storage back")]


def _skew(chance: random.Random, seconds: float) -> list[Incident]:
    """The clock of a provider that signs its URLs is ahead for a while, so that they are not valid yet."""
    at = chance.uniform(0, seconds * 0.6)
    return [Incident(at, "skew", "deepmode"), Incident(at + seconds * 0.3, "no skew", "deepmode")]
