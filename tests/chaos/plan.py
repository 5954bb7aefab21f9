"""What will happen in a run, drawn from one seed: who asks for what, what dies when, how the vendors misbehave."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .scenarios import FACE_ID, GENERATE, IDEOGRAM_CALLBACK, PHOTA_ASYNC, PHOTA_BYTES, REVE_BYTES, REVE_URL, Kind

#: between two deaths
KILL_SECONDS = 2.0
#: our processes, each with its share of the deaths
TARGETS = {"worker-1": 3, "worker-2": 3, "receiver-1": 1, "receiver-2": 1, "redis": 2}
#: All operations in all modes. `phota.remix` by URL is under its key here, for a worker has one setting for it; whether
#: `ideogram-remix` is called back or only polled depends on the worker that sends it.
KINDS: Sequence[Kind] = (
    GENERATE,
    GENERATE,
    FACE_ID,
    IDEOGRAM_CALLBACK,
    PHOTA_ASYNC,
    PHOTA_BYTES,
    REVE_URL,
    REVE_BYTES,
)
#: What befalls calls, callbacks and results, with its chance in percent; a refused callback is sent again for a minute.
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
class Order:
    """One job that somebody enqueues."""

    #: seconds from the start
    at: float
    kind: Kind
    prompt: str


@dataclass(frozen=True)
class Blow:
    """One thing that goes wrong."""

    #: seconds from the start
    at: float
    #: `kill`, `storage away`, `storage back`, `skew`, `no skew`
    what: str
    #: the process that dies; the vendor whose clock is wrong
    target: str = ""


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    #: how long things go wrong
    seconds: float
    #: of each job
    deadline_seconds: float
    orders: tuple[Order, ...]
    blows: tuple[Blow, ...]
    faults: tuple[str, ...]


def planned(seed: int, seconds: float, jobs: int) -> Plan:
    """The plan of this seed: the same arguments always give the same."""
    chance = random.Random(seed)
    last_order = seconds * 0.85
    orders = [
        Order(chance.uniform(0, last_order), chance.choice(KINDS), f"chaos {seed} job {number}")
        for number in range(jobs)
    ]
    blows = (*_kills(chance, seconds), *_storage(chance, seconds), *_skew(chance, seconds))
    return Plan(
        seed=seed,
        seconds=seconds,
        deadline_seconds=min(max(15.0, seconds), 90.0),
        orders=tuple(sorted(orders, key=lambda order: order.at)),
        blows=tuple(sorted(blows, key=lambda blow: blow.at)),
        faults=tuple(FAULTS),
    )


def _kills(chance: random.Random, seconds: float) -> list[Blow]:
    names, weights = list(TARGETS), list(TARGETS.values())
    count = int((seconds - 1) / KILL_SECONDS)
    return [Blow(1 + KILL_SECONDS * turn, "kill", chance.choices(names, weights)[0]) for turn in range(count)]


def _storage(chance: random.Random, seconds: float) -> list[Blow]:
    """Away once: a minute of a run of two, a quarter of a shorter one."""
    away = 60.0 if seconds >= 120 else seconds / 4
    at = chance.uniform(seconds * 0.1, seconds * 0.9 - away)
    return [Blow(at, "storage away"), Blow(at + away, "storage back")]


def _skew(chance: random.Random, seconds: float) -> list[Blow]:
    """The clock of a vendor that signs its URLs runs ahead for a while: they are not valid yet."""
    at = chance.uniform(0, seconds * 0.6)
    return [Blow(at, "skew", "deepmode"), Blow(at + seconds * 0.3, "no skew", "deepmode")]
