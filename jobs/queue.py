"""The Celery application, its one task, and the messages about jobs.

A message is only a wake-up call that carries a job id; it may be lost, doubled or late. So the broker's acknowledgements are off:
recovery is up to the job's record. Where the broker is the Redis of the records, the script that writes a record pushes its
message too: Celery builds the message once, and we put the ids into it.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
from dataclasses import dataclass
from functools import lru_cache

from celery import Celery
from kombu import Connection, Exchange, Queue

from . import schedule
from .job import Job
from .settings import Settings
from .state.repository import Message

log = logging.getLogger(__name__)

#: the name of the task that does the next step of a job
TASK = "darkroom.run"

#: stand for the job id and the delivery tag in the message that Celery builds
_JOB_ID = "0" * 32
_DELIVERY_TAG = "1" * 32


#: of kombu's transport, in seconds
_REDIS_OPTIONS = {
    "ack_emulation": False,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


def application(settings: Settings) -> Celery:
    """The Celery application for these settings; producers and workers share its configuration."""
    # The calling process may have a Celery application of its own, which stays the current one.
    app = Celery("darkroom", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="darkroom",
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_transport_options=_REDIS_OPTIONS if settings.broker.startswith("redis") else {},
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1},
    )
    return app


def queue_name(provider: str) -> str:
    """The name of the queue for workers that serve this provider."""
    return f"darkroom.{provider}"


def queue(provider: str) -> Queue:
    """The queue for workers that serve this provider, as Celery declares it."""
    name = queue_name(provider)
    return Queue(name, Exchange("darkroom", type="direct"), routing_key=name)


@dataclass(frozen=True)
class Dispatch:
    """Sends messages about jobs."""

    app: Celery
    #: whether the broker is the Redis of the records
    broker_is_redis: bool

    def message(self, job: Job) -> Message | None:
        """The message for the script that writes the record to push; None when no worker is needed now, or not this way."""
        if not self.broker_is_redis or not needs_worker(job):
            return None
        name = queue_name(job.provider)
        return Message(name, _envelope(name).filled(job.id))

    def publish(self, job: Job) -> bool:
        """Send the message about a job whose record is written, where the script could not push it.

        Returns False when the broker did not take it, and never raises: a caller who saw an error would enqueue, and pay,
        again, while a worker takes the job from its lane without a message.
        """
        if self.broker_is_redis or not needs_worker(job):
            return True
        try:
            self.app.send_task(TASK, args=(job.id,), task_id=job.id, queue=queue_name(job.provider), ignore_result=True)
        except Exception as error:  # noqa: BLE001 - the client of each broker has errors of its own
            log.warning(
                "job %s: the broker did not take its message (%s); a worker will take the job from its lane",
                job.id,
                type(error).__name__,
            )
            return False
        return True


def needs_worker(job: Job) -> bool:
    """Whether a worker should act on the job at once."""
    free = job.holder is None and (schedule.lane_at(job) is not None or bool(job.pending))
    return free and job.wake_at is not None and job.wake_at <= job.updated_at


@dataclass(frozen=True)
class Envelope:
    """A message as Celery builds it for one queue, with places for the ids."""

    #: before the body, which is base64 of a JSON text
    head: bytes
    body: str
    tail: bytes

    def filled(self, job_id: str) -> bytes:
        """The message about this job."""
        body = base64.b64encode(self.body.replace(_JOB_ID, job_id).encode())
        tail = self.tail.replace(_JOB_ID.encode(), job_id.encode())
        return self.head + body + tail.replace(_DELIVERY_TAG.encode(), secrets.token_hex(16).encode())


@lru_cache
def _envelope(name: str) -> Envelope:
    """Have Celery send a message to a queue in memory, and read it there."""
    app = Celery("darkroom", set_as_current=False)
    with Connection("memory://") as memory, memory.channel() as channel:
        app.send_task(TASK, args=(_JOB_ID,), task_id=_JOB_ID, queue=Queue(name), ignore_result=True, connection=memory)
        message = channel.basic_get(name, no_ack=True).serializable()
    message["properties"]["delivery_tag"] = _DELIVERY_TAG
    head, _, tail = json.dumps(message).partition(message["body"])
    return Envelope(head.encode(), base64.b64decode(message["body"]).decode(), tail.encode())
