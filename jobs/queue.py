"""The Celery application, the task's name, and dispatch.

A message is only a wake-up call that carries a job id; it may be lost, doubled or late. So the broker's own
acknowledgements are off: recovery is the record's business. Where broker and record are one Redis, the script that writes the
record pushes the message too; Celery itself renders the envelope, once, and we put the ids into it.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu import Connection, Exchange, Queue

from . import schedule
from .job import Job
from .settings import Settings
from .state.repository import Message

log = logging.getLogger(__name__)

#: the one task: whatever a job needs next
TASK = "darkroom.run"

_HOLE = "00000000000000000000000000000000"
_TAG = "11111111111111111111111111111111"


def application(settings: Settings) -> Celery:
    """The Celery application for these settings; producers and workers share its configuration."""
    # A producer may use Celery itself: the current application of its process stays its own.
    app = Celery("darkroom", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="darkroom",
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_transport_options=_redis_options() if settings.broker.startswith("redis") else {},
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1},
    )
    return app


def _redis_options() -> dict[str, Any]:
    return {
        "ack_emulation": False,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def queue_name(provider: str) -> str:
    """The queue whose messages are for workers that serve this provider."""
    return f"darkroom.{provider}"


def queue(provider: str) -> Queue:
    """The same as Celery declares it."""
    name = queue_name(provider)
    return Queue(name, Exchange("darkroom", type="direct"), routing_key=name)


@dataclass(frozen=True)
class Dispatch:
    """Sends jobs' messages."""

    app: Celery
    broker_is_redis: bool

    def message(self, job: Job) -> Message | None:
        """What the script that writes the record pushes along, when the job needs a worker now."""
        if not self.broker_is_redis or not needs_worker(job):
            return None
        name = queue_name(job.provider)
        return Message(name, _envelope(name).filled(job.id))

    def publish(self, job: Job) -> bool:
        """Sends the message by itself, where the broker is not the record's Redis; False: it did not take it.

        Never raises: the record is written, and a caller who is told otherwise enqueues, and pays, again. Without its
        message a worker takes the job from its line.
        """
        if self.broker_is_redis or not needs_worker(job):
            return True
        try:
            self.app.send_task(TASK, args=(job.id,), task_id=job.id, queue=queue_name(job.provider), ignore_result=True)
        except Exception as error:  # noqa: BLE001 - each broker's client has its own
            log.warning("job %s: the broker did not take its message: %s", job.id, type(error).__name__)
            return False
        return True


def needs_worker(job: Job) -> bool:
    """Whether a worker should act on the job at once."""
    free = job.holder is None and (schedule.lane_at(job) is not None or bool(job.pending))
    return free and job.wake_at is not None and job.wake_at <= job.updated_at


@dataclass(frozen=True)
class Envelope:
    """A message as Celery rendered it, with holes for the ids."""

    head: bytes
    body: str
    tail: bytes

    def filled(self, job_id: str) -> bytes:
        """The message for this job."""
        body = base64.b64encode(self.body.replace(_HOLE, job_id).encode())
        tail = self.tail.replace(_HOLE.encode(), job_id.encode()).replace(_TAG.encode(), secrets.token_hex(16).encode())
        return self.head + body + tail


@lru_cache
def _envelope(queue: str) -> Envelope:
    rendered = _rendered(queue)
    body = rendered["body"]
    rendered["properties"]["delivery_tag"] = _TAG
    head, _, tail = json.dumps(rendered).partition(body)
    return Envelope(head.encode(), base64.b64decode(body).decode(), tail.encode())


def _rendered(name: str) -> dict[str, Any]:
    """Has Celery send a message through a transport that lives in memory, and takes it out again."""
    app = Celery("darkroom", set_as_current=False)
    with Connection("memory://") as memory, memory.channel() as channel:
        app.send_task(TASK, args=(_HOLE,), task_id=_HOLE, queue=Queue(name), ignore_result=True, connection=memory)
        message: dict[str, Any] = channel._get(name)
    return message
