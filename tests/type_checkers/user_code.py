"""A user's program: checked by type checkers, never run. Lines marked `# error` are the only faults."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import jobs
from jobs.providers import aimlapi, chainhub, deepmode, phota

job = jobs.enqueue(
    deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt="a lake at dawn", num_images=3, ratio="square"),
    idempotency_key="order-17",
    metadata={"user": "42", "tags": ["lake", "dawn"], "size": {"width": 7}},
    deadline_seconds=600,
    on_unknown="charge_again",
    keep_late=True,
    webhook_url="https://app.example.com/darkroom",
    webhook_events=["succeeded", jobs.Status.FAILED],
)

# Each request, with its required fields alone and with some of the others.
requests: list[jobs.Request] = [
    deepmode.Generate(model_id="b8a9", prompt="a lake"),
    deepmode.Generate(model_id="b8a9", prompt="a lake", negative_prompt="rain", upscale=True, ratio="portrait"),
    deepmode.FaceIdRemix(
        identity_image="https://example.com/face.jpg", artwork_image=Path("artwork.png"), mask_image=b"\x89PNG"
    ),
    deepmode.FaceIdRemix(
        identity_image="https://example.com/face.jpg",
        artwork_image=Path("artwork.png"),
        mask_image=b"\x89PNG",
        prompt="cartoon",
        negative_prompt="photo",
        mode="async",
    ),
    chainhub.IdeogramRemix(image_file="https://example.com/beach.png", prompt="a beach"),
    chainhub.IdeogramRemix(
        image_file=Path("beach.png"),
        prompt="a beach",
        color_palette=chainhub.ColorPalette(name="FRESH"),
        num_images=2,
        seed=7,
    ),
    phota.Remix(
        input_image="https://example.com/photo.jpg",
        reference_image="https://example.com/style.jpg",
        num_output_images=1,
        output_format="jpg",
        response_mode="urls",
    ),
    phota.Remix(
        input_image=Path("photo.jpg"),
        reference_image=b"\xff\xd8",
        num_output_images=4,
        output_format="png",
        response_mode="bytes",
        prompt="in oil",
        profile_ids=["abc123"],
    ),
    aimlapi.ReveRemix(image_urls=["https://example.com/a.png", Path("b.png"), b"\x89PNG"], prompt="both"),
    aimlapi.ReveRemix(image_urls=["https://example.com/a.png"], prompt="one", aspect_ratio="1:1"),
]

batch: tuple[jobs.Job, ...] = jobs.enqueue_many(
    [jobs.NewJob(requests[0]), jobs.NewJob(requests[1], metadata={"user": "42"}, on_unknown=jobs.OnUnknown.FAIL)],
    idempotency_key="batch-17",
)

with Path("photo.jpg").open("rb") as file:
    jobs.enqueue(aimlapi.ReveRemix(image_urls=[file], prompt="a file"))

job = jobs.get(job.id)
job = jobs.wait(job.id, timeout=120)
for seen in jobs.watch(job.id, timeout=120):
    print(seen.status, seen.provider, seen.created_at.isoformat())

page: jobs.Page = jobs.list(status=["failed", jobs.Status.CANCELED], operation="deepmode.generate", limit=10)
page = jobs.list("failed", metadata={"user": "42"}, created_after=datetime.now(UTC), cursor=page.next_cursor)
page = jobs.list(code=jobs.Code.MODERATED, unknown=True)
for listed in page:
    print(listed.id, len(page), listed.metadata.get("user"))

canceled: jobs.Job = jobs.cancel(job.id)
retried: jobs.Job = jobs.retry(job.id, may_charge_again=True)
redelivered: jobs.Job = jobs.redeliver(job.id, job.deliveries[0].id)

for artifact in job.artifacts:
    Path(f"{artifact.index}.png").write_bytes(artifact.read())
    print(artifact.url(), artifact.sha256.upper(), artifact.width * artifact.height)
for missing in job.missing:
    print(missing.index + 1, missing.code.value, missing.message)
for attempt in job.attempts:
    if attempt.cost and attempt.cost.unit is jobs.Unit.USD and attempt.charged is jobs.Charged.YES:
        print(f"${attempt.cost.amount:.2f}", attempt.outcome is jobs.Outcome.SUCCEEDED)
for event in job.timeline:
    print(event.at.isoformat(), event.what, event.times + 1)
if job.error:
    print(job.error.code.value, job.error.message)

for operation in jobs.operations():
    print(operation.name, operation.price, [field.type for field in operation.fields])

try:
    jobs.enqueue(requests[0])
except jobs.InvalidRequest as error:
    print([f"{fault.field}: {fault.message} ({fault.allowed})" for fault in error.errors])
except jobs.IdempotencyConflict as conflict:
    print(conflict.job_id)
except (jobs.RedisUnavailable, jobs.StorageError) as away:
    print(away)

jobs.enqueue(requests[0], metdata={"user": "42"})  # error
deepmode.Generate(model_id="b8a9", prompt="a lake", ratio="round")  # error
