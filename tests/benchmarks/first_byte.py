"""An idle system: the time from `jobs.enqueue` to the call's first byte at the provider, against plain Celery's from `delay()`.

One job at a time, a pause after each, so that nothing is awake when the next one comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .harness import Bench, Loopback, Row, Sides, enqueue, environment, in_turn, quantile, until
from .peers import celery_worker

#: between two jobs, in seconds
PAUSE_SECONDS = 0.1
#: the goals, in milliseconds
MEDIAN_GOAL, P99_GOAL = 5, 20
STEPS = 2


def measure(bench: Bench) -> Sequence[Row]:
    """Measure both sides in turn."""
    bench.say("starting Redis, provider and workers")
    side = bench.loopback(0.0)
    environ = dict(side.environ(bench.redis(), bench.folder))
    with environment(**environ), bench.worker(environ), celery_worker(bench, environ, 1) as (_, delay):
        for send in (enqueue, delay):  # the first one also waits for the worker's start
            for _ in range(5):
                _first_byte_ms(side, send)
        bench.say("a job of each, one after the other")
        turns = in_turn(bench.size(300, 30), lambda: _first_byte_ms(side, enqueue), lambda: _first_byte_ms(side, delay))
    sides = Sides(*turns)
    return [_row("p50", sides, 0.5, MEDIAN_GOAL), _row("p99", sides, 0.99, P99_GOAL)]


def _first_byte_ms(side: Loopback, send: Callable[[int], object]) -> float:
    """Send one job; returns the milliseconds until the provider has the first byte of its call."""
    side.figures(keep=False)
    time.sleep(PAUSE_SECONDS)
    started = time.monotonic()
    send(1)
    until(lambda: bool(side.figures()["puts"]), "the job", every_seconds=0.02)
    return (side.figures()["first_call_at"] - started) * 1000


def _row(name: str, sides: Sides, part: float, goal: int) -> Row:
    ours, other = quantile(sides.ours, part), quantile(sides.other, part)
    figure = f"idle system, enqueue to the call's first byte: {name}, against plain Celery's delay()"
    return Row(figure, f"{ours:.1f} ms", f"{other:.1f} ms", ours / other, f"{goal} ms", ours <= goal)
