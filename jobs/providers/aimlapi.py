"""AIML API: https://api.aimlapi.com

Reve's remix of up to four images by a prompt (`aimlapi.reve-remix`). Synchronous only; a failed request is never charged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from ..report import Charged, Code, Cost, Failed, Image, Report, Succeeded, Unit
from ..request import ImageInput, ImageRule, Request
from . import _parsing as parsing
from ._contract import (
    OVERLOADED,
    Abilities,
    Call,
    Context,
    Meaning,
    OperationDefaults,
    Provider,
    ProviderOptions,
    Response,
    bearer,
    error_message,
    failed_by_status,
    unreadable,
)

_PROVIDER = "AIML API"


class Options(ProviderOptions):
    """`AIMLAPI_...` in the environment."""

    timeout_seconds: float = Field(
        default=300.0,
        gt=0,
        le=3600,
        examples=["300"],
        description="How long a call may hold the connection, in seconds.",
    )


class ReveRemix(Request):
    """One image out of one to four, by a prompt that says how they are combined."""

    operation: ClassVar[str] = "aimlapi.reve-remix"
    image_rules: ClassVar[Mapping[str, ImageRule]] = {"image_urls": ImageRule()}
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_urls": ["https://example.com/t-rex.png", "https://example.com/blue-mug.jpg"],
                    "prompt": "The T-Rex of <img>0</img> in a business suit, drinking from the mug of <img>1</img>.",
                    "aspect_ratio": "3:2",
                }
            ]
        }
    )

    model: Literal["reve/remix-edit-image"] = Field(
        default="reve/remix-edit-image", description="The provider's model."
    )
    image_urls: Sequence[ImageInput] = Field(min_length=1, max_length=4, description="The images to combine, 1 to 4.")
    prompt: str = Field(
        min_length=1,
        max_length=2560,
        pattern=r"\S",
        description="How the images are combined; it may name them as `<img>0</img>`, `<img>1</img>`.",
    )
    aspect_ratio: Literal["16:9", "9:16", "3:2", "2:3", "4:3", "3:4", "1:1"] = Field(
        default="3:2", description="Aspect ratio of the image."
    )
    convert_base64_to_url: bool = Field(
        default=True, strict=True, description="True: the answer holds a URL; false: the image itself."
    )


class _ReveRemix(OperationDefaults):
    name = ReveRemix.operation
    request: type[Request] = ReveRemix
    deadline_seconds = 600.0

    def abilities(self, request: ReveRemix, *, has_callback: bool, options: Options) -> Abilities:
        return Abilities(inline_images=True)  # `url` may be null and `b64_json` set, also when URLs were asked for

    def images_expected(self, request: ReveRemix) -> int:
        return 1

    def price(self, request: ReveRemix) -> Cost | None:
        return None

    def submit(self, request: ReveRemix, context: Context) -> Call:
        # A staged image goes as a `data:` URI, since the field's format is `uri`.
        given = {name: f"data:{image.content_type};base64,{image.base64()}" for name, image in context.inputs.items()}
        return Call(
            "POST",
            "/v1/images/generations",
            headers=bearer(context),
            json=request.params() | {"image_urls": [given.get(str(image), str(image)) for image in request.image_urls]},
            timeout_seconds=context.options.timeout_seconds,
        )

    def read_answer(self, request: ReveRemix, response: Response) -> Report:
        body = parsing.mapping(response.document())
        if not response.ok or (parsing.first(body, "statusCode", "error") and not body.get("data")):
            return _refused(response, body)
        return _result(body) if "data" in body else unreadable(_PROVIDER, response)


def _result(body: Mapping[str, Any]) -> Report:
    """What a 2xx with `data` means. Without an image it is free only where the body documents that: usage may be absent."""
    # Units of which 2,000,000 are a dollar; older answers call them tokens, newer ones credits.
    usage = parsing.mapping(parsing.mapping(body.get("meta")).get("usage"))
    stated = (parsing.number(usage.get(name)) for name in ("tokens_used", "credits_used"))
    cost = next((Cost(amount, Unit.TOKEN) for amount in stated if amount is not None), None)
    images = tuple(_image(index, parsing.mapping(item)) for index, item in enumerate(parsing.items(body["data"])))
    if any(image.refused is None for image in images):
        return Succeeded(images, cost=cost)
    used = Charged.YES if cost and cost.amount else Charged.UNKNOWN
    if any(image.refused is Code.MODERATED for image in images):
        charged = Charged.NO if cost and not cost.amount else used
        return Failed(Code.MODERATED, f"{_PROVIDER} withheld the image for its content", charged=charged)
    return Failed(
        Code.PROVIDER_ERROR,
        f"{_PROVIDER} answered without an image",
        retryable=used is Charged.UNKNOWN,
        charged=used,
    )


def _image(index: int, item: Mapping[str, Any]) -> Image:
    if item.get("content_violation") is True:
        return Image(index, refused=Code.MODERATED)
    if url := parsing.url(item.get("url")):
        return Image(index, url=url)  # how long it works is not documented
    content = parsing.content(item.get("b64_json"))
    return Image(index, content=content, refused=None if content else Code.RESULT_REJECTED)


# Errors -----------------------------------------------------------------------------------------------------------

#: what a status means here and not elsewhere; where a word is given, only if the message holds it
_MEANINGS: Sequence[tuple[int, str, Meaning]] = (
    (500, "partner_api_token_rate_limit_exceeded", OVERLOADED),
    (500, "api key", Meaning(Code.UNAUTHORIZED)),
    (500, "api_key", Meaning(Code.UNAUTHORIZED)),
    (403, "", Meaning(Code.OUT_OF_CREDIT)),
)

#: the documented failures: none of them is ever charged
_NEVER_CHARGED = frozenset({400, 401, 403, 404, 429, 500, 502, 503, 504})
_ERROR_STATUSES = frozenset(str(status) for status in range(400, 600))


def _refused(response: Response, body: Mapping[str, Any]) -> Failed:
    """By the status that the body states, as a number or a string, else by the HTTP status."""
    stated = parsing.text(body.get("statusCode"))
    response = replace(response, status=int(stated) if stated in _ERROR_STATUSES else response.status)
    message = error_message(_PROVIDER, response)
    words = parsing.reason(body).lower()
    for status, word, meaning in _MEANINGS:
        if response.status == status and word in words:
            return meaning.failure(response, message)
    failure = failed_by_status(response, message)
    return replace(failure, charged=Charged.NO) if response.status in _NEVER_CHARGED else failure


provider = Provider(
    name="aimlapi",
    default_base_url="https://api.aimlapi.com",
    operations={_ReveRemix.name: _ReveRemix()},
    options=Options,
)
