"""Synchronous provider calls of 5 s, 1,000 and 5,000 in one worker process: calls per second against the ideal, memory and CPU.

The provider acknowledges after the 5 s, so that only the call is measured, and the three writes of the record around it (claimed,
submitting, reported); `whole-job` also fetches and stores the image. More jobs wait than the worker takes at once: the calls of one
wave follow those of the one before, and the rate is that of the median wave.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .harness import Bench, Row, cpu_seconds, enqueue_many, environment, pss_bytes, until

CALL_SECONDS = 5.0
QUICK_CALL_SECONDS = 2
#: the goals: the part of the ideal rate, and for each call kilobytes and milliseconds of CPU
RATE_GOAL, MEMORY_GOAL, CPU_GOAL = 0.95, 40, 1.2
#: waves that are counted, after the first one
WAVES = 5
#: the part of the ideal rate in a quick run
RECORDED = 0.9
STEPS = 4


@dataclass(frozen=True)
class InFlight:
    """What so many calls at once took."""

    calls: int
    #: calls per second, measured and ideal
    rate: float
    ideal: float
    #: of each call
    kilobytes: float
    cpu_ms: float


def measure(bench: Bench) -> Sequence[Row]:
    """Measure both numbers of calls, each with a worker of its own."""
    return [row for calls in ((200,) if bench.quick else (1000, 5000)) for row in _rows(measure_calls(bench, calls))]


def measure_calls(bench: Bench, calls: int) -> InFlight:
    """Make waves of so many calls, after a warm-up."""
    bench.say(f"{calls:,} calls in flight")
    seconds, waves = (QUICK_CALL_SECONDS, 2) if bench.quick else (CALL_SECONDS, WAVES)
    provider = bench.loopback(seconds, "-acknowledge")
    limit = {"DARKROOM_MAX_CALLS_IN_FLIGHT": str(calls)}
    environ = {**provider.environ(bench.redis(), bench.folder), **limit}
    with environment(**environ), bench.worker(environ) as worker:
        enqueue_many(100)
        until(lambda: provider.figures()["answered"] == 100, "the warm-up")
        time.sleep(1)
        provider.figures(keep=False)
        before, memory, peaks = cpu_seconds(worker), pss_bytes(worker), list[int]()
        count = calls * (1 + waves)
        feeding = threading.Thread(target=enqueue_many, args=(count,))
        feeding.start()

        def done() -> bool:
            peaks.append(pss_bytes(worker))
            return bool(provider.figures()["answered"] == count)

        until(done, "the calls", every_seconds=0.5)
        feeding.join()
        time.sleep(1)  # until the last records are written
        seen, cpu = provider.figures(), cpu_seconds(worker) - before
    in_flight = seen["most_in_flight"]
    return InFlight(
        in_flight, _rate(seen, calls), calls / seconds, (max(peaks) - memory) / in_flight / 1000, cpu * 1000 / count
    )


def _rate(seen: Mapping[str, list[float]], calls: int) -> float:
    """The calls per second of the median wave."""
    ends = seen["hundredths_at"][calls // 100 - 1 :: calls // 100]
    return calls / statistics.median(end - start for start, end in pairwise(ends))


def _rows(seen: InFlight) -> Sequence[Row]:
    figure, part = f"in flight, {seen.calls:,} calls", seen.rate / seen.ideal
    rate, ideal = f"{seen.rate:.0f} calls/s", f"{seen.ideal:.0f} calls/s, the ideal"
    return [
        Row(f"{figure}: calls per second", rate, ideal, part, f"{RATE_GOAL:g} x", part >= RATE_GOAL, RECORDED),
        Row(
            f"{figure}: memory per call",
            f"{seen.kilobytes:.0f} kB",
            goal=f"{MEMORY_GOAL} kB",
            met=seen.kilobytes <= MEMORY_GOAL,
        ),
        Row(
            f"{figure}: worker CPU per call",
            f"{seen.cpu_ms:.2f} ms",
            goal=f"{CPU_GOAL} ms",
            met=seen.cpu_ms <= CPU_GOAL,
        ),
    ]
