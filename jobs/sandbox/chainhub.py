"""ChainHub: a task envelope now, a poll or updates later, and errors in many shapes.

Known: the request, the envelope, the codes and the errors of sister gateways. Inferred: the poll and the updates (from
Kling, whose envelope this is). Unknown, and chosen here: the poll's path, the `callback_url` field, the price (booked
as one `task`, given back when it fails) and the statuses of validation errors.
"""

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from standardwebhooks import Webhook

from .callbacks import Callback
from .faults import Fault
from .images import Input, UnreadableInput, read_input
from .inputs import Form, read_form
from .ledger import Submission
from .results import FileHost
from .routes import Route
from .vendor import Order, Refused, Vendor, spoiled
from .wire import Answer, Reply, Request, json_answer

IDEOGRAM_REMIX = "chainhub.ideogram-remix"
#: Largest `image_file`. Bytes.
MAX_FILE = 10 * 1024 * 1024
_FORMATS = ("JPEG", "PNG", "WEBP")
_STEPS = ("submitted", "processing", "succeed")
_OTHER_WORDS = {"submitted": "queued", "processing": "in_progress", "succeed": "completed", "failed": "error"}
_MESSAGES = {"1303": "parallel task over resource pack limit", "1301": "content policy violation"}


class _Member(BaseModel):
    model_config = ConfigDict(extra="forbid")

    color_hex: str = Field(pattern="^#[0-9A-Fa-f]{6}$")
    color_weight: float | None = Field(default=None, ge=0.05, le=1.0)


class _Palette(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["EMBER", "FRESH", "JUNGLE", "MAGIC", "MELON", "MOSAIC", "PASTEL", "ULTRAMARINE"] | None = None
    members: Annotated[list[_Member], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _preset_or_custom(self) -> "_Palette":
        if (self.name is None) == (self.members is None):
            raise ValueError("either name or members is required")
        return self


class _ImageRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1)
    aspect_ratio: (
        Annotated[str, Field(pattern="^ASPECT_(10_16|16_10|9_16|16_9|3_2|2_3|4_3|3_4|1_1|1_3|3_1)$")] | None
    ) = None
    resolution: Annotated[str, Field(pattern=r"^RESOLUTION_\d{3,4}_\d{3,4}$")] | None = None
    color_palette: _Palette | None = None
    image_weight: int = Field(default=50, ge=1, le=100)
    magic_prompt_option: Literal["AUTO", "ON", "OFF"] = "AUTO"
    model: Literal["V_1", "V_1_TURBO", "V_2", "V_2_TURBO"] = "V_2"
    negative_prompt: str = ""
    num_images: int = Field(default=1, ge=1, le=8)
    seed: int = Field(default=0, ge=0, le=2_147_483_647)
    style_type: Literal["AUTO", "GENERAL", "REALISTIC", "DESIGN", "RENDER_3D", "ANIME"] = "AUTO"

    @model_validator(mode="after")
    def _one_size(self) -> "_ImageRequest":
        if self.aspect_ratio and self.resolution:
            raise ValueError("resolution cannot be used together with aspect_ratio")
        return self

    def ratio(self, of_the_image: float) -> float:
        size = self.resolution or self.aspect_ratio
        if size is None:
            return of_the_image
        width, height = size.split("_")[1:]
        return int(width) / int(height)


class ChainHub(Vendor):
    """api.chainhub.tech"""

    name = "chainhub"
    operation = IDEOGRAM_REMIX
    own_refusals = (
        "code",
        "code-429",
        "string-code",
        "fetch-failed",
        "upstream-saturated",
        "user-quota",
        "error-object",
    )
    own_lasting_faults = (
        "sync-body",
        "no-data",
        "task-failed",
        "unsafe",
        "empty-url",
        "unknown-status",
        "other-words",
        "updates-flat",
        "updates-shuffled",
        "updates-repeated",
    )
    sync_faults = frozenset({"sync-body"})
    uncharged_faults = frozenset({"task-failed"})

    def routes(self) -> Iterable[Route]:
        yield "POST", "/ideogram/remix", self.remix
        yield "GET", "/ideogram/task/{task_id}", self.task

    def authorize(self, request: Request) -> None:
        self.bearer(request)

    def error(self, status: int, message: str) -> Answer:
        kind = "invalid_request_error" if status in {400, 401} else "chainhub_error"
        return json_answer(status, {"error": {"message": message, "message_zh": message, "type": kind}})

    def own_refusal(self, fault: Fault) -> Answer:
        match fault.kind.name:
            case "code" | "code-429":
                message = _MESSAGES.get(fault.value, "request refused")
                body = _envelope(int(fault.value), message, None)
                return json_answer(200 if fault.kind.name == "code" else 429, body)
            case "string-code":
                return _failure(400, "task_not_exist", "task_not_exist")
            case "error-object":
                return json_answer(
                    200, {"error": {"message": "upstream error", "type": "upstream_error", "code": "bad"}}
                )
            case name:
                status, code, message = _UPSTREAM[name]
                upstream = {"error": {"message": message, "type": "new_api_error", "code": code}}
                return _failure(status, "fail_to_fetch_task", json.dumps(upstream))

    def file_host(self, _submission: Submission) -> FileHost:
        return FileHost("fal/files", "jpeg", life_seconds=24 * 3600, signed=False)

    async def remix(self, request: Request) -> Reply:
        """POST /ideogram/remix: a task envelope, or the images where the gateway answers synchronously."""
        return await self.submit(request, self.read, self.answer)

    async def task(self, request: Request, task_id: str) -> Reply:
        """GET /ideogram/task/{task_id}"""
        submission = self.world.ledger.by_task(task_id)
        if not submission or submission.vendor != self.name:
            return await self.poll(request, lambda: _failure(404, "task_not_exist", "task_not_exist"))
        return await self.poll(request, lambda: self._state(submission))

    def lasting_faults(self, order: Order) -> tuple[str, ...]:
        names = super().lasting_faults(order)
        return names if order.callback_url else tuple(name for name in names if not name.startswith("updates-"))

    def updates(self, submission: Submission) -> list[tuple[str, float]]:
        if "sync-body" in submission.faults:
            return []
        steps = (*_STEPS[:2], self._last(submission))
        span = submission.ready_at - submission.received_at
        # Slightly apart even when the work takes no time, which keeps their order.
        times = [submission.received_at + span * part + 0.02 * place for place, part in enumerate((0, 0.5, 1))]
        if "updates-shuffled" in submission.faults:
            times = [submission.ready_at + 0.02 * place for place in (2, 1, 0)]
        often = 3 if "updates-repeated" in submission.faults else 1
        return [pair for pair in zip(steps, times, strict=True) for _ in range(often)]

    def callback(self, submission: Submission, callback: Callback) -> tuple[bytes, Mapping[str, str]]:
        data = self._data(submission, callback.step)
        flat = "updates-flat" in callback.faults
        body = json.dumps(data if flat else _envelope(0, "SUCCEED", data)).encode()
        body, headers = spoiled(body, callback.faults), {"content-type": "application/json"}
        if secret := self.world.settings.webhook_secrets.get(self.name):
            if "callback-bad-signature" in callback.faults:
                secret = "whsec_" + "bm90IHRoZSBzZWNyZXQ="
            now, name = self.world.now(self.name), f"msg_{callback.number}"
            headers |= {
                "webhook-id": name,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(secret).sign(name, now, body.decode()),
            }
        return body, headers

    def read(self, request: Request) -> Order:
        """The order in a request; raises `Refused`."""
        form = read_form(request)
        if form is None:
            raise Refused(self.error(400, "expected multipart/form-data"))
        if unknown := form.fields.keys() - {"image_request", "callback_url"} | form.files.keys() - {"image_file"}:
            raise Refused(self.error(400, f"unknown fields: {', '.join(sorted(unknown))}"))
        image = self._read_file(form)
        try:
            asked = _ImageRequest.model_validate_json(form.fields.get("image_request", ""), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(("image_request", *(str(part) for part in first["loc"])))
            raise Refused(self.error(400, f"{where}: {first['msg']}")) from None
        return Order(
            operation=IDEOGRAM_REMIX,
            prompt=asked.prompt,
            inputs=(image,),
            ratio=asked.ratio(image.ratio),
            format="JPEG",
            asked=asked.num_images,
            unit="task",
            price=1.0,
            per_image=False,
            wait=False,
            callback_url=form.fields.get("callback_url", ""),
            details={"seed": asked.seed, "style_type": asked.style_type},
        )

    def _read_file(self, form: Form) -> Input:
        data = form.files.get("image_file")
        if data is None:
            raise Refused(self.error(400, "image_file: a file is required"))
        if len(data) > MAX_FILE:
            raise Refused(self.error(400, "image_file: larger than 10MB"))
        try:
            image = read_input(data)
        except UnreadableInput:
            raise Refused(self.error(400, "image_file: not an image")) from None
        if image.format not in _FORMATS:
            raise Refused(self.error(400, "image_file: must be JPEG, PNG or WebP"))
        return image

    def answer(self, submission: Submission) -> Answer:
        """A task envelope, or the images where the gateway answers synchronously."""
        if "sync-body" in submission.faults:
            created = datetime.fromtimestamp(submission.received_at, UTC).isoformat()
            return json_answer(200, {"created": created, "data": [dict(one) for one in self._images(submission)]})
        return json_answer(200, _envelope(0, "SUCCEED", self._data(submission, "submitted")))

    def _state(self, submission: Submission) -> Answer:
        if (left := int(float(submission.faults.get("no-data", 0)))) > 0:
            faults = {**submission.faults, "no-data": str(left - 1)}
            self.world.ledger.change(submission, faults=faults)
            body = _envelope(0, "SUCCEED", None)
            del body["data"]
            return json_answer(200, body)
        now, started, ready = time.time(), submission.received_at, submission.ready_at
        if now >= ready:
            status = self._last(submission)
        else:
            status = "submitted" if now < started + (ready - started) / 3 else "processing"
        return json_answer(200, _envelope(0, "SUCCEED", self._data(submission, status)))

    def _last(self, submission: Submission) -> str:
        return "failed" if "task-failed" in submission.faults else "succeed"

    def _data(self, submission: Submission, status: str) -> dict[str, Any]:
        shown = _OTHER_WORDS[status] if "other-words" in submission.faults else status
        if "unknown-status" in submission.faults and status in _STEPS[:2]:
            shown = submission.faults["unknown-status"]
        moment = self.world.now(self.name).timestamp()
        data: dict[str, Any] = {
            "task_id": submission.task_id,
            "task_status": shown,
            "task_status_msg": submission.faults.get("task-failed", "") if status == "failed" else "",
            "created_at": int(submission.received_at * 1000),
            "updated_at": int(moment * 1000),
        }
        if status == "succeed":
            data["task_result"] = {
                "images": [
                    {"index": place, "url": one["url"]} | ({} if one["is_image_safe"] else {"is_image_safe": False})
                    for place, one in enumerate(self._images(submission))
                ]
            }
        return data

    def _images(self, submission: Submission) -> Iterable[dict[str, Any]]:
        recipe = submission.recipe
        assert recipe is not None
        # Without the fault, no image has this index.
        unsafe, empty = (int(float(submission.faults.get(name, -1))) for name in ("unsafe", "empty-url"))
        for index in range(submission.images):
            url = self.results.url(submission, index, self.file_host(submission))
            yield {
                "url": "" if index in {unsafe, empty} else url,
                "prompt": recipe.prompt,
                "resolution": f"{recipe.width}x{recipe.height}",
                "seed": submission.details["seed"],
                "style_type": submission.details["style_type"],
                "is_image_safe": index != unsafe,
            }


_UPSTREAM: Mapping[str, tuple[int, str, str]] = {
    "fetch-failed": (500, "bad_response_status_code", "bad response status code 500"),
    "upstream-saturated": (403, "upstream_load_saturated", "upstream load is saturated, try again later"),
    "user-quota": (403, "insufficient_user_quota", "user quota is not enough"),
}


def _failure(status: int, code: str, message: str) -> Answer:
    return json_answer(status, {"code": code, "message": message, "data": None})


def _envelope(code: int, message: str, data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": str(uuid.uuid4()), "data": data}
