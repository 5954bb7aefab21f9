"""The plain Celery task: a POST, a GET and a PUT in one process for each call.

`celery -A tests.benchmarks.first_task worker -c 16`, with Celery's other defaults.
"""

from __future__ import annotations

import os

import boto3
import httpx
from celery import Celery

app = Celery("first", broker=os.environ["BROKER_URL"])
s3 = boto3.client("s3")


@app.task
def render(prompt: str) -> None:
    answer = httpx.post(
        os.environ["DEEPMODE_BASE_URL"] + "/api/images/generate",
        headers={"Authorization": "Bearer " + os.environ["DEEPMODE_API_KEY"]},
        json={"model_id": "b8a9f7e5d1c3a2f91e3d5", "prompt": prompt},
        timeout=600,
    )
    for image in answer.raise_for_status().json()["images"]:
        content = httpx.get(image["image_url"]).raise_for_status().content
        s3.put_object(Bucket="images", Key=render.request.id, Body=content, ContentType="image/jpeg")
