"""What people use today, in its careful form: the opponents of the scoreboard.

`celery -A tests.chaos.celery_today worker -c 8`. Acknowledged late, rejected when the worker is lost, prefetching one, retried with
back-off. The visibility timeout, after which Redis' messages of dead workers come back, is 30 s instead of the default hour:
five times the longest call here, for a shorter one runs tasks twice by itself. With CHAOS_CHECK=1 each task makes the usual
check before it pays: what is stored is not made again, and of two runs only one goes on (SET NX).
"""

from __future__ import annotations

import os
from typing import Any

import boto3
import httpx
from botocore.exceptions import ClientError
from celery import Celery, Task
from redis import Redis

#: seconds
VISIBILITY_TIMEOUT = 30

_environ = os.environ
redis = Redis.from_url(_environ.get("BROKER_URL", "redis://127.0.0.1:6379/0"))
app = Celery("today", broker=_environ.get("BROKER_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
    },
)


class Counted(Task):  # type: ignore[misc]
    """Records which tasks have succeeded or failed, for the scoreboard."""

    def on_success(self, _value: Any, _id: str, args: Any, _kwargs: Any) -> None:
        redis.sadd("ended", args[0])

    def on_failure(self, _error: Any, _id: str, args: Any, _kwargs: Any, _info: Any) -> None:
        redis.sadd("ended", args[0])


@app.task(base=Counted, autoretry_for=(Exception,), retry_backoff=1, retry_backoff_max=8, max_retries=3)
def render(prompt: str) -> None:
    """Buy one image and store it."""
    if _environ.get("CHAOS_CHECK"):
        _checked(prompt)
    else:
        _bought(prompt)


def _checked(prompt: str) -> None:
    lock = f"rendering:{prompt}"
    if _stored(prompt) or not redis.set(lock, 1, nx=True, ex=3600):
        return
    try:
        _bought(prompt)
    except Exception:
        redis.delete(lock)
        raise


def _bought(prompt: str) -> None:
    answer = httpx.post(
        _environ["AIMLAPI_BASE_URL"] + "/v1/images/generations",
        headers={"Authorization": "Bearer " + _environ["AIMLAPI_API_KEY"]},
        json={"model": "reve/remix-edit-image", "prompt": prompt, "image_urls": ["https://example.com/a.png"]},
        timeout=60,
    )
    url = answer.raise_for_status().json()["data"][0]["url"]
    content = httpx.get(url).raise_for_status().content
    _s3().put_object(Bucket=_environ["CHAOS_BUCKET"], Key=prompt, Body=content, ContentType="image/png")


def _stored(prompt: str) -> bool:
    try:
        _s3().head_object(Bucket=_environ["CHAOS_BUCKET"], Key=prompt)
    except ClientError:
        return False
    return True


def _s3() -> boto3.client:
    global _client
    _client = _client or boto3.client("s3")
    return _client


_client: boto3.client | None = None
