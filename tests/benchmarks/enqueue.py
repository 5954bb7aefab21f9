"""`jobs.enqueue` against Celery's own `delay()` of a task that does nothing, on the same Redis.

Ours checks the request, and writes the record, the sets of due jobs, lane and index, and the message.
"""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery

from .harness import Bench, Row, enqueue, environment, rate, side_by_side

STEPS = 2


def measure(bench: Bench) -> Sequence[Row]:
    """Run both sides in this process, in turn."""
    url = bench.redis()
    count = bench.size(2000, 500)
    bench.say("starting Redis")
    with environment(DARKROOM_REDIS_URL=url, DARKROOM_STORAGE_URL=f"file://{bench.folder}"):
        delay = _noop(url).delay
        enqueue(100), rate(delay, 100)
        bench.say("jobs.enqueue and delay() in turn")
        sides = side_by_side(bench.size(7, 3), lambda: enqueue(count), lambda: rate(delay, count))
    ours, other = sides.medians
    return [
        Row(
            "enqueue, against Celery's delay()",
            f"{ours:,.0f} jobs/s",
            f"{other:,.0f} tasks/s",
            f"{sides.ratio:.1f} x",
            "2 x",
            sides.ratio >= 2,
        )
    ]


def _noop(url: str) -> Celery:
    app = Celery("noop", broker=url, set_as_current=False)

    @app.task(name="noop")
    def noop() -> None:
        """Do nothing."""

    return noop
