"""AIML API: Reve's remix, always synchronous, never charged when it fails.

Known: request, answer, the shape of errors and their statuses. Chosen here: what a data URI may look like, and that
`content_violation` and an empty `data` are free, since failed requests are never charged.
"""

import base64
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .faults import Fault
from .images import UnreadableInput
from .inputs import read_image
from .ledger import Submission
from .results import FileHost
from .routes import Route
from .vendor import Order, Refused, Vendor
from .wire import Answer, Reply, Request, json_answer

#: What the vendor's example answer says one image took; 2,000,000 are $1.
TOKENS = 210_000.0
REVE_REMIX = "aimlapi.reve-remix"


class _ReveRemix(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Literal["reve/remix-edit-image"]
    image_urls: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=4)
    prompt: str = Field(max_length=2560)
    aspect_ratio: Literal["16:9", "9:16", "3:2", "2:3", "4:3", "3:4", "1:1"] = "3:2"
    convert_base64_to_url: bool = True


class AimlApi(Vendor):
    """api.aimlapi.com"""

    name = "aimlapi"
    operation = REVE_REMIX
    own_refusals = ("partner-rate-limit", "api-key-500")
    own_lasting_faults = ("credits-used", "no-meta", "no-usage", "data-null", "data-empty", "violation", "created")
    uncharged_faults = frozenset({"data-null", "data-empty", "violation"})
    phrases: ClassVar[Mapping[int, str]] = {403: "You have run out of credits"}
    refunded_statuses = frozenset({500, 504})
    _own: ClassVar[Mapping[str, str]] = {
        "partner-rate-limit": "PARTNER_API_TOKEN_RATE_LIMIT_EXCEEDED",
        "api-key-500": "Partner API key is invalid",
    }

    def routes(self) -> Iterable[Route]:
        yield "POST", "/v1/images/generations", self.generations

    def authorize(self, request: Request) -> None:
        self.bearer(request)

    def error(self, status: int, message: str) -> Answer:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {
            "message": message,
            "path": "/v1/images/generations",
            "requestId": str(uuid.uuid4()),
            # It is a number in one example of the vendor's and a string in another.
            "statusCode": status if status < 500 else str(status),
            "timestamp": now,
        }
        return json_answer(status, body)

    def own_refusal(self, fault: Fault) -> Answer:
        return self.error(500, self._own[fault.kind.name])

    def file_host(self, _submission: Submission) -> FileHost:
        return FileHost("generations/phoenix", "png", life_seconds=24 * 3600, signed=False)

    async def generations(self, request: Request) -> Reply:
        """POST /v1/images/generations"""
        return await self.submit(request, self.read, self.answer)

    def read(self, request: Request) -> Order:
        """The order in a request; raises `Refused`."""
        try:
            asked = _ReveRemix.model_validate(self.read_json(request), strict=True)
            inputs = tuple(read_image(one, data_uri=True) for one in asked.image_urls)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Refused(self.error(400, f"{where}: {first['msg']}")) from None
        except UnreadableInput as error:
            raise Refused(self.error(400, f"image_urls: {error}")) from None
        width, height = asked.aspect_ratio.split(":")
        return Order(
            operation=REVE_REMIX,
            prompt=asked.prompt,
            inputs=inputs,
            ratio=int(width) / int(height),
            format="PNG",
            asked=1,
            unit="token",
            price=TOKENS,
            per_image=True,
            wait=True,
            details={"inline": not asked.convert_base64_to_url},
        )

    def answer(self, submission: Submission) -> Answer:
        """The image, by URL or inline, and what it cost."""
        faults = submission.faults
        word = "credits_used" if "credits-used" in faults else "tokens_used"
        usage = {word: int(submission.amount) if submission.charged else 0}
        meta = None if "no-meta" in faults else {"usage": None if "no-usage" in faults else usage}
        return json_answer(201 if "created" in faults else 200, {"data": self._data(submission), "meta": meta})

    def _data(self, submission: Submission) -> list[dict[str, Any]] | None:
        if "data-null" in submission.faults:
            return None
        if "data-empty" in submission.faults:
            return []
        violation = "violation" in submission.faults
        content: dict[str, str | None] = {"url": None, "b64_json": None}
        if not violation and submission.details["inline"]:
            content["b64_json"] = base64.b64encode(self.results.inline(submission, 0)).decode()
        elif not violation:
            content["url"] = self.results.url(submission, 0, self.file_host(submission))
        return [content | {"request_id": f"rsid-{submission.image_id(0)}", "content_violation": violation}]
