"""The endpoints of the how-to guide, started as the guide says: they take what we sign, once, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from documentation.pages import page

from jobs.embedded.ports import free_port
from worker.deliveries import signed_headers

pytestmark = pytest.mark.journey

FILES = {
    name: block.text
    for block in page("docs/how-to/receive-webhooks.md").blocks
    if (name := block.mark("file")) is not None
}
STARTS = [
    block.text
    for block in page("docs/how-to/receive-webhooks.md").blocks
    if block.language == "sh" and ("5000" in block.text or "npm" in block.text)
]
SECRET = "whsec_bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldyBzZWNyZXQ="
JOB = {"id": "7e4368a1feb1005b19ba2196eff1c5f3", "status": "succeeded"}
SECONDS = 60


@contextmanager
def started(commands: str, folder: Path) -> Iterator[str]:
    """The URL of an endpoint that was started by the guide's own commands."""
    port = free_port()
    *before, last = commands.replace("5000", str(port)).strip().splitlines()
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DARKROOM_WEBHOOK_SECRETS": SECRET,
        "PORT": str(port),
    }
    with (folder / "log").open("w") as log:
        script = "\n".join([*before, f"exec {last}"])
        process = subprocess.Popen(["sh", "-eu", "-c", script], cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/darkroom"
            give_up_at = time.monotonic() + SECONDS
            while not answers(url):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < give_up_at, (folder / "log").read_text()
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(SECONDS)


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def sent(url: str, at: datetime, *, secret: str = SECRET) -> int:
    body = json.dumps(JOB).encode()
    headers = signed_headers([secret], "msg_1", at, body)
    return httpx.post(url, content=body, headers=headers, timeout=10, trust_env=False).status_code


@pytest.mark.parametrize("file", FILES, ids=str)
def test_takes_what_is_signed_and_nothing_else(tmp_path: Path, file: str) -> None:
    if file.endswith(".mjs") and shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    (tmp_path / file).write_text(FILES[file])
    [commands] = [text for text in STARTS if Path(file).stem in text]
    now = datetime.now(UTC)
    with started(commands, tmp_path) as url:
        assert sent(url, now) == 204
        assert sent(url, now) == 204
        assert sent(url, now, secret="whsec_b2xkIHNlY3JldCBvbGQgc2VjcmV0IG9sZCBzZWNyZXQ=") == 401
        assert sent(url, now - timedelta(minutes=6)) == 401
    assert (tmp_path / "log").read_text().count(f"{JOB['id']}: succeeded") == 1


def test_there_is_one_for_each_framework() -> None:
    assert set(FILES) == {"flask_endpoint.py", "fastapi_endpoint.py", "express_endpoint.mjs"}
    assert len(STARTS) == len(FILES)
