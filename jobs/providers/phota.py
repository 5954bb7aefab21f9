"""Phota Labs: https://api.photalabs.com

One photo in the look of another (`phota.remix`). It is synchronous, as in its guide. With `PHOTA_ASYNC` it returns a job id,
takes our key for the attempt (`client_request_id`: a repeated submit is not charged again), is polled and calls back. The
states and bodies of those jobs are not documented.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import ConfigDict, Field, SecretStr, create_model

from ..errors import InvalidCallback
from ..report import Charged, Code, Cost, Failed, Image, Report, Running, Succeeded, Unit
from ..request import ImageInput, ImageRule, Request
from . import _parsing as parsing
from ._contract import (
    Abilities,
    Call,
    Context,
    OperationDefaults,
    Provider,
    ProviderOptions,
    Response,
    error_message,
    failed_by_status,
    quoted,
    unreadable,
)

_PROVIDER = "Phota"
#: how long a result URL works
_URL_LIFE_SECONDS = 86400.0

#: dollars for one output image, and for one in which a trained profile is recognized
_PRICE = 0.12
_PRICE_WITH_PROFILE = 0.15


class _Options(ProviderOptions):
    """`PHOTA_...` in the environment."""

    timeout_seconds: float = Field(
        default=600.0, gt=0, le=3600, examples=["600"], description="How long a synchronous call may take, in seconds."
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        examples=["a-long-random-string"],
        description="The secret that signs callbacks; without it only the token in the callback's URL is checked.",
    )

    @property
    def is_async(self) -> bool:
        return bool(getattr(self, "async"))


#: PHOTA_ASYNC; Python's grammar keeps a field of this name out of a class
_ASYNC: dict[str, Any] = {
    "async": (
        bool,
        Field(
            default=False,
            examples=["true"],
            description='Whether Phota acknowledges at once, and calls back or is polled. Only for `response_mode="urls"`.',
        ),
    )
}
Options = create_model("Options", __base__=_Options, **_ASYNC)


class Remix(Request):
    """The content of one photo in the style of another; the people in it stay who they are."""

    operation: ClassVar[str] = "phota.remix"
    image_rules: ClassVar[Mapping[str, ImageRule]] = {"input_image": ImageRule(), "reference_image": ImageRule()}
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input_image": "https://example.com/photo.jpg",
                    "reference_image": "https://example.com/reference.jpg",
                    "profile_ids": ["abc123"],
                    "num_output_images": 2,
                    "output_format": "jpg",
                    "response_mode": "urls",
                }
            ]
        }
    )

    input_image: ImageInput = Field(description="The content photo.")
    reference_image: ImageInput = Field(description="The style source.")
    profile_ids: Sequence[str] | None = Field(
        default=None, description="Profiles to preserve the identity of recognized people."
    )
    prompt: str | None = Field(default=None, description="What to keep or to emphasize.")
    # The upper bound is that of the sibling operations [inferred].
    num_output_images: int = Field(ge=1, le=4, strict=True, description="Number of variations, 1 to 4.")
    output_format: Literal["jpg", "png"] = Field(description="Format of the images.")
    response_mode: Literal["urls", "bytes"] = Field(
        description="`urls`: signed download URLs; `bytes`: the images inside the answer."
    )


class _Remix(OperationDefaults):
    name = Remix.operation
    request: type[Request] = Remix
    deadline_seconds = 900.0

    def abilities(self, request: Remix, *, has_callback: bool, options: _Options) -> Abilities:
        if _is_async(request, options):
            return Abilities(idempotent=True, poll=True, callback=has_callback)
        # The answer to a synchronous submit may be a job too, and that job can be polled.
        return Abilities(poll=True, inline_images=request.response_mode == "bytes")

    def images_expected(self, request: Remix) -> int:
        return request.num_output_images

    def price(self, request: Remix) -> Cost | None:
        """$0.12 an image; the answer says whether it was $0.15, for a recognized profile."""
        return _dollars(request.num_output_images, _PRICE)

    def submit(self, request: Remix, context: Context) -> Call:
        body = request.params() | {
            "input_image": _image_value(request.input_image, context),
            "reference_image": _image_value(request.reference_image, context),
        }
        if not _is_async(request, context.options):
            return _remix(body, context, context.options.timeout_seconds)
        callback = {"callback_url": context.callback_url} if context.callback_url else {}
        return _remix(body | {"async": True, "client_request_id": context.attempt_key} | callback, context, 60.0)

    def read_answer(self, request: Remix, response: Response) -> Report:
        if not response.ok:
            return _refused(response)
        return _report(parsing.mapping(response.document())) or unreadable(_PROVIDER, response)

    def poll(self, external_id: str, context: Context) -> Call:
        path = f"/v1/phota/jobs/{quote(external_id, safe='')}"
        return Call("GET", path, headers=_headers(context), timeout_seconds=30.0)

    def read_poll(self, request: Remix, response: Response) -> Report | None:
        """What a poll says of the job; a refused poll says nothing."""
        return _report(parsing.mapping(response.document())) if response.ok else None

    def read_callback(self, body: Any) -> Report:
        if report := _report(parsing.mapping(body)):
            return report
        raise InvalidCallback("expected a job or images")


# Requests ---------------------------------------------------------------------------------------------------------


def _is_async(request: Remix, options: _Options) -> bool:
    return options.is_async and request.response_mode == "urls"


def _headers(context: Context) -> dict[str, str]:
    return {"X-API-Key": context.api_key, "Accept": "application/json"}


def _remix(body: dict[str, Any], context: Context, timeout_seconds: float) -> Call:
    path = "/v1/phota/remix"
    return Call("POST", path, headers=_headers(context), json=body, timeout_seconds=timeout_seconds)


def _image_value(image: Any, context: Context) -> str:
    """The URL as it is, and a staged image as raw base64, since a `data:` prefix is not accepted."""
    given = context.inputs.get(str(image))
    return given.base64() if given else str(image)


# Answers ----------------------------------------------------------------------------------------------------------

#: states of a failed job [inferred]; in any other state it succeeded if it holds images, and is running if not
_FAILED = frozenset(
    {"failed", "failure", "error", "errored", "canceled", "cancelled", "expired", "timed_out", "timeout"}
)


def _report(body: Mapping[str, Any]) -> Report | None:
    """A result, a job (with its result beside its state, or in `result`), or None for anything else."""
    state = parsing.text(parsing.first(body, "status", "state")).lower()
    job_id = parsing.identifier(body.get("job_id") or (state and body.get("id")))
    if state in _FAILED:
        return _failed(body, job_id)
    for result in (body, *(parsing.mapping(body.get(name)) for name in ("result", "response", "output"))):
        # `images` holds base64 or, as the guide says, URLs.
        found = parsing.items(result.get("download_urls")) or parsing.items(result.get("images"))
        if found:
            images = tuple(_image(index, item) for index, item in enumerate(found))
            counts = parsing.mapping(parsing.mapping(result.get("known_subjects")).get("counts"))
            recognized = any(parsing.number(count) for count in counts.values())
            return Succeeded(images, job_id, _dollars(len(images), _PRICE_WITH_PROFILE if recognized else _PRICE))
    if "images" in body and not job_id:
        return Failed(Code.PROVIDER_ERROR, f"{_PROVIDER} answered without images", charged=Charged.UNKNOWN)
    return Running(job_id) if job_id else None


def _image(index: int, item: Any) -> Image:
    if url := parsing.url(item):
        return Image(index, url=url, life_seconds=_URL_LIFE_SECONDS)
    content = parsing.content(item)
    return Image(index, content=content, refused=None if content else Code.RESULT_REJECTED)


def _dollars(images: int, price: float) -> Cost:
    return Cost(round(images * price, 2), Unit.USD)


def _failed(body: Mapping[str, Any], job_id: str | None) -> Failed:
    words = parsing.reason(body)
    moderated = parsing.is_moderation(words) or _is_moderation_code(body)
    return Failed(
        Code.MODERATED if moderated else Code.PROVIDER_ERROR,
        quoted(f"{_PROVIDER} reported a failed job", words),
        retryable=not moderated,
        charged=Charged.UNKNOWN,
        external_id=job_id,
    )


def _refused(response: Response) -> Failed:
    """By the status; the code of a 400 may say moderation, and a 504 is refunded."""
    message = error_message(_PROVIDER, response)
    body = parsing.mapping(response.document())
    if response.status == 400 and _is_moderation_code(body):
        return Failed(Code.MODERATED, message, charged=Charged.NO)
    if response.status == 504:
        return Failed(Code.TIMEOUT, message, retryable=True, charged=Charged.NO)
    return failed_by_status(response, message)


def _is_moderation_code(body: Mapping[str, Any]) -> bool:
    inner = parsing.mapping(body.get("detail")) or parsing.mapping(body.get("error"))
    return any(parsing.is_moderation(parsing.text(layer.get("code"))) for layer in (body, inner))


# Signed callbacks -------------------------------------------------------------------------------------------------


def verify(options: _Options, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check `X-Phota-Signature`, an HMAC-SHA256 in hex or base64 [unknown which], if `PHOTA_WEBHOOK_SECRET` is set."""
    secret = options.webhook_secret.get_secret_value()
    if not secret:
        return
    given = next((value for name, value in headers.items() if name.lower() == "x-phota-signature"), "")
    expected = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    for read in (bytes.fromhex, base64.b64decode):
        with suppress(ValueError):
            if hmac.compare_digest(expected, read(given.removeprefix("sha256="))):
                return
    raise InvalidCallback("the signature does not match the webhook secret")


provider = Provider(
    name="phota",
    default_base_url="https://api.photalabs.com",
    operations={_Remix.name: _Remix()},
    options=Options,
    verify=verify,
)
