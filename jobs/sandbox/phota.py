"""Phota Labs: synchronous or, with `async`, a job with an idempotent `client_request_id`.

Known: the request, the synchronous answer, 202 with `job_id` and `poll_url`, the statuses of errors, the price, that a
504 is refunded. Unknown, and chosen here: the states and bodies of a job (`queued`, `processing`, `completed`,
`failed`, with the synchronous answer under `result`), how `X-Phota-Signature` is encoded and keyed (hexadecimal
HMAC-SHA256 of the body under a secret), and that a failed job is refunded.
"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .callbacks import Callback
from .faults import Fault
from .images import Input, UnreadableInput
from .inputs import read_image
from .ledger import Submission
from .results import FileHost
from .routes import Route
from .vendor import Order, Refused, Vendor, spoiled
from .wire import Answer, Reply, Request, json_answer

REMIX = "phota.remix"
#: For one output image, and for one in which a trained profile was recognized. USD.
PRICE, PRICE_WITH_PROFILE = 0.12, 0.15
_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    402: "insufficient_credits",
    403: "missing_api_key",
    404: "not_found",
    422: "validation_error",
    429: "rate_limited",
    504: "timeout",
}


class _Remix(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    input_image: str = Field(min_length=1)
    reference_image: str = Field(min_length=1)
    profile_ids: list[str] = []
    prompt: str = ""
    num_output_images: int = Field(ge=1, le=4)
    output_format: Literal["jpg", "png"]
    response_mode: Literal["urls", "bytes"]
    async_: bool = Field(default=False, alias="async")
    client_request_id: str = ""
    callback_url: str = Field(default="", pattern="^(https?://.+)?$")

    @model_validator(mode="after")
    def _async_is_urls_only(self) -> "_Remix":
        if self.async_ and self.response_mode != "urls":
            raise ValueError("async supports response_mode 'urls' only")
        return self


class Phota(Vendor):
    """api.photalabs.com"""

    name = "phota"
    operation = REMIX
    own_refusals = ("moderated",)
    own_lasting_faults = ("images-as-urls", "job-failed")
    uncharged_faults = frozenset({"job-failed"})
    refunded_statuses = frozenset({504})
    _extensions: ClassVar[Mapping[str, str]] = {"JPEG": "jpg", "PNG": "png"}

    def routes(self) -> Iterable[Route]:
        yield "POST", "/v1/phota/remix", self.remix
        yield "GET", "/v1/phota/jobs/{job_id}", self.job

    def authorize(self, request: Request) -> None:
        if "x-api-key" not in request.headers:
            raise Refused(self.error(403, "Not authenticated"))
        if not self.world.key_is_good(request.headers["x-api-key"]):
            raise Refused(self.error(401, "Invalid API key"))

    def error(self, status: int, message: str) -> Answer:
        code = _CODES.get(status, "internal_error")
        return json_answer(status, {"code": code, "detail": message, "request_id": str(uuid.uuid4())})

    def own_refusal(self, fault: Fault) -> Answer:
        body = {
            "code": fault.kind.name,
            "detail": "The input was refused by moderation",
            "request_id": str(uuid.uuid4()),
        }
        return json_answer(400, body)

    def file_host(self, submission: Submission) -> FileHost:
        assert submission.recipe is not None
        return FileHost("outputs", self._extensions[submission.recipe.format], life_seconds=24 * 3600, signed=True)

    async def remix(self, request: Request) -> Reply:
        """POST /v1/phota/remix: the images, or 202 and a job; a repeated `client_request_id` gets the first job."""
        return await self.submit(request, self.read, self.answer)

    async def job(self, request: Request, job_id: str) -> Reply:
        """GET /v1/phota/jobs/{job_id}"""
        submission = self.world.ledger.by_task(job_id)
        if not submission or submission.vendor != self.name or not submission.details["async"]:
            return await self.poll(request, lambda: self.error(404, "Job not found"))
        return await self.poll(request, lambda: json_answer(200, self._job(submission)))

    def lasting_faults(self, order: Order) -> tuple[str, ...]:
        names = super().lasting_faults(order)
        return names if order.details["async"] else tuple(name for name in names if name != "job-failed")

    def earlier(self, order: Order) -> Submission | None:
        if not (order.client_request_id and order.details["async"]):
            return None
        return self.world.ledger.by_request_id(self.name, order.client_request_id)

    def updates(self, submission: Submission) -> list[tuple[str, float]]:
        return [("completed", submission.ready_at)]

    def callback(self, submission: Submission, callback: Callback) -> tuple[bytes, Mapping[str, str]]:
        body = spoiled(json.dumps(self._job(submission, done=True)).encode(), callback.faults)
        headers = {"content-type": "application/json"}
        if secret := self.world.settings.webhook_secrets.get(self.name):
            key = "another" if "callback-bad-signature" in callback.faults else secret
            headers["x-phota-signature"] = hmac.digest(key.encode(), body, hashlib.sha256).hex()
        return body, headers

    def read(self, request: Request) -> Order:
        """The order in a request; raises `Refused`."""
        try:
            asked = _Remix.model_validate(self.read_json(request), strict=True)
        except ValidationError as error:
            details = [
                {"loc": ["body", *one["loc"]], "msg": one["msg"], "type": one["type"]}
                for one in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise Refused(json_answer(422, {"detail": details})) from None
        content, style = self._image(asked.input_image), self._image(asked.reference_image)
        return Order(
            operation=REMIX,
            prompt=asked.prompt,
            inputs=(content, style),
            ratio=content.ratio,
            format="PNG" if asked.output_format == "png" else "JPEG",
            asked=asked.num_output_images,
            unit="USD",
            price=PRICE_WITH_PROFILE if asked.profile_ids else PRICE,
            per_image=True,
            wait=not asked.async_,
            callback_url=asked.callback_url if asked.async_ else "",
            # Only asynchronous submissions are documented to be idempotent.
            client_request_id=asked.client_request_id if asked.async_ else "",
            details={
                "async": asked.async_,
                "profile_ids": asked.profile_ids,
                "inline": asked.response_mode == "bytes",
            },
        )

    def _image(self, text: str) -> Input:
        try:
            return read_image(text, data_uri=False)
        except UnreadableInput as error:
            raise Refused(self.error(400, str(error))) from None

    def answer(self, submission: Submission) -> Answer:
        """The images, or 202 and a job."""
        if not submission.details["async"]:
            return json_answer(200, self._result(submission))
        poll_url = f"{submission.base_url}/phota/v1/phota/jobs/{submission.task_id}"
        return json_answer(202, {"job_id": submission.task_id, "status": "queued", "poll_url": poll_url})

    def _job(self, submission: Submission, *, done: bool = False) -> dict[str, Any]:
        named = {"job_id": submission.task_id, "client_request_id": submission.client_request_id or None}
        if not done and time.time() < submission.ready_at:
            return named | {"status": "processing"}
        if "job-failed" in submission.faults:
            return named | {"status": "failed", "error": {"code": "generation_failed", "detail": "Generation failed"}}
        return named | {"status": "completed", "result": self._result(submission)}

    def _result(self, submission: Submission) -> dict[str, Any]:
        counts = dict.fromkeys(submission.details["profile_ids"], submission.images)
        result: dict[str, Any] = {"known_subjects": {"counts": counts}}
        places = range(submission.images)
        if submission.details["inline"]:
            contents = [self.results.inline(submission, index) for index in places]
            return result | {"images": [base64.b64encode(one).decode() for one in contents], "download_urls": []}
        urls = [self.results.url(submission, index, self.file_host(submission)) for index in places]
        if "images-as-urls" in submission.faults:
            return result | {"images": urls}
        return result | {"images": [], "download_urls": urls}
