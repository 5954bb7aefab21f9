"""1,000 synchronous provider calls of 5 s in one worker process: calls per second against the ideal, memory and CPU per call.

The provider acknowledges after the 5 s, so that only the call is measured, and the three writes of the record around it (claimed,
submitting, reported); `whole-job` also fetches and stores the image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import psutil

from .harness import Bench, Loopback, Row, cpu_seconds, enqueue, environment, pss_bytes, until

IN_FLIGHT = 1000
CALL_SECONDS = 5.0
STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Make waves of 1,000 calls, after a warm-up."""
    count = IN_FLIGHT * bench.size(4, 2)
    bench.say("starting Redis, provider and worker")
    provider = bench.loopback(CALL_SECONDS, "-acknowledge")
    environ = provider.environ(bench.redis(), bench.folder)
    with environment(**environ), bench.worker(environ) as worker:
        bench.say("warming up")
        enqueue(20)
        until(lambda: provider.figures()["answered"] == 20, "the warm-up")
        time.sleep(1)
        provider.figures(keep=False)
        bench.say(f"{count:,} calls of {CALL_SECONDS:g} s")
        return _measure(provider, worker, count)


def _measure(provider: Loopback, worker: psutil.Process, count: int) -> Sequence[Row]:
    before, memory, peaks = cpu_seconds(worker), pss_bytes(worker), list[int]()
    feeding = threading.Thread(target=enqueue, args=(count,))
    feeding.start()

    def done() -> bool:
        peaks.append(pss_bytes(worker))
        return provider.figures()["answered"] == count

    until(done, "the calls", every_seconds=0.5)
    feeding.join()
    time.sleep(1)
    seen, cpu_ms = provider.figures(), (cpu_seconds(worker) - before) * 1000 / count
    rate = count / (seen["last_answer_at"] - seen["first_call_at"])
    ideal, kilobytes = IN_FLIGHT / CALL_SECONDS, (max(peaks) - memory) / seen["most_in_flight"] / 1000
    figure = f"in flight, {seen['most_in_flight']:,.0f} calls of {CALL_SECONDS:g} s"
    return [
        Row(
            f"{figure}: calls per second",
            f"{rate:.0f} calls/s",
            f"{ideal:.0f} calls/s, the ideal",
            f"{rate / ideal:.2f} x",
        ),
        Row(f"{figure}: memory per call", f"{kilobytes:.0f} kB", target="60 kB", met=kilobytes <= 60),
        Row(f"{figure}: worker CPU per call", f"{cpu_ms:.2f} ms", target="2 ms", met=cpu_ms <= 2),
    ]
