"""Callbacks accepted per second, against a bare Flask route with the same number of Redis calls on the same server.

Each callback is the only one of a running job: its token is checked, its body is parsed, the record is written, and a message
is sent to a worker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from jobs import callback_url
from jobs.embedded import free_port

from .harness import HERE, Bench, Row, compared, side_by_side
from .jobs_in_redis import park

WORKERS, THREADS, CONNECTIONS = 1, 2, 8
SECRET = "a-secret-of-the-benchmarks"
STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Run both applications side by side; each round has jobs of its own."""
    rounds, count = bench.size(5, 2), bench.size(3000, 1000)
    bench.say("starting Redis and both applications")
    url = bench.redis()
    environ = {
        "DARKROOM_REDIS_URL": url,
        "DARKROOM_STORAGE_URL": f"file://{bench.folder}",
        "DARKROOM_SPOOL_DIR": str(bench.folder / "spool"),
        "DARKROOM_SECRET_KEYS": SECRET,
        "DARKROOM_PUBLIC_URL": "http://127.0.0.1:9",
    }
    ours, other = (
        _serve(bench, "webhooks:create_app", environ),
        _serve(bench, "tests.benchmarks.bare_flask:create_app", environ),
    )
    bench.say(f"parking {rounds * count:,} jobs")
    parked = iter(park(url, rounds * count + 200))
    _post(ours, [next(parked) for _ in range(200)])
    bench.say("callbacks in turn")

    def post() -> float:
        return _post(ours, [next(parked) for _ in range(count)])

    sides = side_by_side(rounds, post, lambda: _post(other, ["0" * 32] * count))
    figure, form = "callbacks, against a bare Flask route with as many Redis calls", "{:,.0f} per second"
    return [compared(figure, sides, form, form, goal=0.9, recorded=0.7)]


def _serve(bench: Bench, factory: str, environ: dict[str, str]) -> int:
    """Serve an application by granian; returns the port."""
    port = free_port()
    process = bench.python(
        f"granian-{port}", "granian", "--interface", "wsgi", "--factory", "--port", str(port), "--workers", str(WORKERS),
        "--blocking-threads", str(THREADS), "--no-access-log", factory, environ=environ,
    )  # fmt: skip
    process.await_ready(lambda: _answers(port))
    return port


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _post(port: int, job_ids: Sequence[str]) -> float:
    """Post a callback for each job; returns how many per second were answered with 200."""
    paths = [f"/webhooks/deepmode/{callback_url.sign('deepmode', job_id, 1, [SECRET])}" for job_id in job_ids]
    command = [sys.executable, "-m", "tests.benchmarks.load", str(port), str(CONNECTIONS)]
    done = subprocess.run(command, cwd=HERE, input="\n".join(paths), capture_output=True, check=True, text=True)
    rate, refused = json.loads(done.stdout)
    if refused:
        raise RuntimeError(f"{refused} of {len(paths)} callbacks were refused")
    return float(rate)
