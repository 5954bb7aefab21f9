"""DeepMode: callbacks that only their URL ties to a job, and image ids that return fresh URLs.

Known: the requests, the answers, the lookup by image id. Unknown to the public, and chosen here: all error bodies
(`{"message": ...}`), what `mode=async` of face-id-remix answers (the same object, `processing`, without a URL), and that
it takes a `callback` field. A lost callback is lost: there is no lookup by job.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .callbacks import Callback
from .images import UnreadableInput, read_input
from .inputs import read_form
from .ledger import Submission
from .results import FileHost
from .routes import Route
from .vendor import Order, Refused, Vendor, spoiled
from .wire import Answer, Reply, Request, json_answer

#: Both operations cost one credit, however many images they make.
CREDITS = 1.0
GENERATE = "deepmode.generate"
FACE_ID_REMIX = "deepmode.face-id-remix"
_FILES = ("identity_image", "artwork_image", "mask_image")


class _Generate(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    negative_prompt: str = ""
    num_images: int = Field(default=1, ge=1, le=8)
    upscale: bool = False
    ratio: Literal["portrait", "square"] = "portrait"
    callback: str = Field(default="", pattern="^(https?://.+)?$")


class DeepMode(Vendor):
    """api.deepmode.ai"""

    name = "deepmode"
    operation = GENERATE
    _folders: ClassVar[Mapping[str, str]] = {
        GENERATE: "deepmode-user-image",
        FACE_ID_REMIX: "face-id-remix-generation",
    }

    def routes(self) -> Iterable[Route]:
        yield "POST", "/api/images/generate", self.generate
        yield "POST", "/api/face-id-remix", self.face_id_remix
        yield "GET", "/api/images/{id}", self.image

    def authorize(self, request: Request) -> None:
        self.bearer(request)

    def error(self, status: int, message: str) -> Answer:
        return json_answer(status, {"message": message})

    def file_host(self, submission: Submission) -> FileHost:
        return FileHost(self._folders[submission.operation], "jpeg", life_seconds=3600, signed=True)

    async def generate(self, request: Request) -> Reply:
        """POST /api/images/generate: an acknowledgement without any id, or all images when no callback is given."""
        return await self.submit(request, self.read_generate, self.answer_generate)

    async def face_id_remix(self, request: Request) -> Reply:
        """POST /api/face-id-remix: one flat object."""
        return await self.submit(request, self.read_face_id_remix, self.answer_face_id_remix)

    async def image(self, request: Request, id: str) -> Reply:
        """GET /api/images/{id}: one image with a fresh URL."""
        found = self.world.ledger.by_image(id)
        if not found or found[0].vendor != self.name:
            return await self.poll(request, lambda: self.error(404, "Image not found"))
        return await self.poll(request, lambda: json_answer(200, self._object(*found)))

    def updates(self, submission: Submission) -> list[tuple[str, float]]:
        return [("completed", submission.ready_at)]

    def callback(self, submission: Submission, callback: Callback) -> tuple[bytes, Mapping[str, str]]:
        flat = "callback-flat" in callback.faults or submission.operation == FACE_ID_REMIX
        value = self._object(submission, 0, done=True) if flat else self._images(submission)
        return spoiled(json.dumps(value).encode(), callback.faults), {"content-type": "application/json"}

    def operation_of(self, request: Request) -> str:
        return FACE_ID_REMIX if request.path.endswith("face-id-remix") else GENERATE

    def read_generate(self, request: Request) -> Order:
        """The order in a request for `generate`; raises `Refused`."""
        try:
            asked = _Generate.model_validate(self.read_json(request), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Refused(self.error(400, f"{where}: {first['msg']}")) from None
        return Order(
            operation=GENERATE,
            prompt=asked.prompt,
            inputs=(),
            ratio=1.0 if asked.ratio == "square" else 0.75,
            format="JPEG",
            asked=asked.num_images,
            unit="credit",
            price=CREDITS,
            per_image=False,
            wait=not asked.callback,
            callback_url=asked.callback,
            details=asked.model_dump(include={"model_id", "negative_prompt", "upscale"}),
        )

    def read_face_id_remix(self, request: Request) -> Order:
        """The order in a request for `face-id-remix`; raises `Refused`."""
        form = read_form(request)
        if form is None:
            raise Refused(self.error(400, "expected multipart/form-data"))
        if unknown := (form.fields.keys() | form.files.keys()) - {*_FILES, *_FIELDS}:
            raise Refused(self.error(400, f"unknown fields: {', '.join(sorted(unknown))}"))
        mode = form.fields.get("mode", "sync")
        if mode not in {"sync", "async"}:
            raise Refused(self.error(400, "mode: must be sync or async"))
        inputs = []
        for name in _FILES:
            if name not in form.files:
                raise Refused(self.error(400, f"{name}: a file is required"))
            try:
                inputs.append(read_input(form.files[name]))
            except UnreadableInput:
                raise Refused(self.error(400, f"{name}: not an image")) from None
        return Order(
            operation=FACE_ID_REMIX,
            prompt=form.fields.get("prompt", ""),
            inputs=tuple(inputs),
            ratio=inputs[1].ratio,
            format="JPEG",
            asked=1,
            unit="credit",
            price=CREDITS,
            per_image=False,
            wait=mode == "sync",
            callback_url=form.fields.get("callback", "") if mode == "async" else "",
            details={"mode": mode},
        )

    def answer_generate(self, submission: Submission) -> Answer:
        """An acknowledgement without any id, or all images when no callback is given."""
        if submission.callback_url:
            return json_answer(200, {"message": "Generating images..."})
        return json_answer(200, self._images(submission))

    def answer_face_id_remix(self, submission: Submission) -> Answer:
        """One flat object."""
        return json_answer(200, self._object(submission, 0, done=submission.details["mode"] == "sync"))

    def _images(self, submission: Submission) -> dict[str, Any]:
        return {"images": [self._object(submission, index) for index in range(submission.images)]}

    def _object(self, submission: Submission, index: int, *, done: bool = False) -> dict[str, Any]:
        named = {
            "id": submission.image_id(index),
            "file_name": submission.file_name(index, self.file_host(submission).extension),
        }
        if submission.operation == FACE_ID_REMIX:
            created = datetime.fromtimestamp(submission.received_at, UTC).isoformat(timespec="microseconds")
            times = {"created_at": created.replace("+00:00", "Z")}
            # A timer may end slightly early: a sync answer and a callback always say completed.
            if not done and datetime.now(UTC).timestamp() < submission.ready_at:
                return named | {"status": "processing"} | times
            named |= {"status": "completed"} | times
        url = self.results.url(submission, index, self.file_host(submission))
        if submission.operation == FACE_ID_REMIX:
            return named | {"image_url": url}
        return named | {
            "model_id": submission.details["model_id"],
            "image_url": url,
            "prompt": submission.recipe.prompt if submission.recipe else "",
            "negative_prompt": submission.details["negative_prompt"],
            "upscaled": submission.details["upscale"],
            # The vendor's own example asks for `square`, and its answer says `portrait`.
            "ratio": "portrait",
        }


_FIELDS = ("prompt", "negative_prompt", "mode", "callback")
