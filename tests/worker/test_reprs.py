"""The repr of a value holds no secret, no prompt and no image, since it ends in logs and tracebacks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs import providers
from jobs.delivery import Delivery, Try
from jobs.images import AtUrl, PendingImage
from jobs.job import Job, Status
from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.providers._contract import Call, Context, FilePart, InputImage, Response
from jobs.report import Image, Succeeded
from jobs.request import LocalImage
from jobs.settings import ProviderSettings, Settings
from jobs.storage import S3Access, S3Storage
from worker.calls import Submission

URL = "https://cdn.example/a.png?sig=canary"
BYTES = b"canary of a picture"
NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
GENERATE = deepmode.Generate(model_id="m", prompt="a canary")
CALL = Call(
    "POST",
    "/x",
    headers={"X-API-Key": "canary"},
    json={"prompt": "canary"},
    files=[FilePart("f", "f.png", BYTES, "image/png")],
)


def a_job() -> Job:
    return Job(
        id="0" * 32,
        operation="deepmode.generate",
        params={"prompt": "a canary"},
        status=Status.STORING,
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW,
        deadline_seconds=600,
        images_expected=1,
        wake_at=NOW,
        pending=(PendingImage(0, 1, AtUrl(URL)),),
        webhook_url="https://app.example/hook?token=canary",
        deliveries=(Delivery("msg_1", "failed", NOW, NOW, log=(Try(NOW, 500),)),),
    )


VALUES: dict[str, Callable[[], Any]] = {
    "a job": a_job,
    "a call": lambda: CALL,
    "a response": lambda: Response(200, {"set-cookie": "canary"}, BYTES),
    "a context": lambda: Context("a-1", "https://d.example/webhooks/deepmode/canary", "canary", {"x": InputImage(BYTES, "image/png", "x.png")}),
    "a report": lambda: Succeeded((Image(0, url=URL), Image(1, content=BYTES))),
    "a local image": lambda: LocalImage(BYTES),
    "a generate request": lambda: GENERATE,
    "a face request": lambda: deepmode.FaceIdRemix(identity_image=URL, artwork_image=URL, mask_image=BYTES, prompt="canary"),
    "an ideogram request": lambda: chainhub.IdeogramRemix(image_file=URL, prompt="canary", negative_prompt="canary"),
    "a phota request": lambda: phota.Remix(
        input_image=URL, reference_image=URL, prompt="canary", num_output_images=1, output_format="jpg", response_mode="urls"
    ),
    "a reve request": lambda: aimlapi.ReveRemix(image_urls=[URL, BYTES], prompt="canary"),
    "a submission": lambda: Submission(
        1, CALL, "https://api.example/x", GENERATE, providers.operation("deepmode.generate"), None  # type: ignore[arg-type]
    ),
    "settings": lambda: Settings(
        redis_url="redis://:canary@127.0.0.1/0", broker_url="amqp://a:canary@b//", secret_keys="canary", api_keys="canary",
        webhook_url=URL, webhook_secrets="whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
    ),
    "a provider's settings": lambda: ProviderSettings(
        api_key="canary", base_url="https://api.example", options=providers.provider("chainhub").options(webhook_secret="whsec_Y2FuYXJ5")  # type: ignore[arg-type]
    ),
    "a bucket": lambda: S3Storage("b", "p", S3Access("https://s3.example", "us-east-1", "AKIA", "canary")),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_no_repr_shows_what_is_secret(name: str) -> None:
    shown = repr(VALUES[name]()) + str(VALUES[name]())
    assert "canary" not in shown
    assert "Y2FuYXJ5" not in shown
