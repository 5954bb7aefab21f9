"""The same job as a taskiq task, on asyncio: a POST, a GET and a PUT, with one HTTP session for each worker process.

`taskiq worker tests.benchmarks.taskiq_task:broker`, with taskiq's other defaults: two processes, 100 tasks at once in each.
"""

from __future__ import annotations

import asyncio
import os

import aiohttp
import boto3
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["BROKER_URL"])


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    state.session = aiohttp.ClientSession()
    state.s3 = boto3.client("s3")


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state: TaskiqState) -> None:
    await state.session.close()


@broker.task
async def render(prompt: str, context: Context = TaskiqDepends()) -> None:  # noqa: B008 - taskiq's way
    session, s3 = context.state.session, context.state.s3
    url = os.environ["DEEPMODE_BASE_URL"] + "/api/images/generate"
    headers = {"Authorization": "Bearer " + os.environ["DEEPMODE_API_KEY"]}
    body = {"model_id": "b8a9f7e5d1c3a2f91e3d5", "prompt": prompt}
    async with session.post(url, headers=headers, json=body, raise_for_status=True) as response:
        answer = await response.json()
    for image in answer["images"]:
        async with session.get(image["image_url"], raise_for_status=True) as response:
            content = await response.read()
        key = context.message.task_id
        await asyncio.to_thread(s3.put_object, Bucket="images", Key=key, Body=content, ContentType="image/jpeg")
