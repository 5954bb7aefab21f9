"""ChainHub: https://api.chainhub.tech

Ideogram's remix behind a gateway (`chainhub.ideogram-remix`). Gateways of this family answer in several shapes, so the
shape decides what an answer means: a list in `data` is a finished result, an object with a task id is a task, and a `code`
that is neither 0 nor "success" is an error, even on HTTP 200. Tasks, updates and their signatures are those of Kling.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from ..errors import InvalidCallback
from ..report import Charged, Code, Cost, Failed, Image, Report, Running, Succeeded
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
    failed_by_status,
    file_part,
    quoted,
    unreadable,
)

_PROVIDER = "ChainHub"
#: how long a result URL works
_URL_LIFE_SECONDS = 86400.0


class Options(ProviderOptions):
    """`CHAINHUB_...` in the environment."""

    timeout_seconds: float = Field(
        default=300.0,
        gt=0,
        le=3600,
        examples=["300"],
        description="How long a submit may take, in seconds: other gateways of the family render before they answer.",
    )
    task_path: str = Field(
        default="/ideogram/task/{task_id}",
        examples=["/ideogram/task/{task_id}"],
        description="The path of a poll.",  # [unknown]
    )
    callback_field: str = Field(
        default="callback_url",
        examples=["callback_url"],
        description="The form field of the callback URL; `none`: send no callback URL, only poll.",  # [inferred]
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        examples=["whsec_dGVzdHNlY3JldA=="],
        description="The secret that signs updates, `whsec_...`; without it only the token in the callback's URL is checked.",
    )

    @field_validator("task_path")
    @classmethod
    def _names_the_task(cls, value: str) -> str:
        if not value.startswith("/") or "{task_id}" not in value:
            raise ValueError("must be a path that contains {task_id}")
        return value

    @field_validator("callback_field")
    @classmethod
    def _none_is_empty(cls, value: str) -> str:
        return "" if value.lower() == "none" else value

    @field_validator("webhook_secret")
    @classmethod
    def _is_a_secret(cls, value: SecretStr) -> SecretStr:
        try:
            if value.get_secret_value():
                Webhook(value.get_secret_value())
        except (EmptyWebhookSecretError, binascii.Error, ValueError):
            raise ValueError("must be a webhook secret: whsec_ and base64") from None
        return value


class Color(BaseModel):
    """One color of a custom palette."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    color_hex: str = Field(pattern=r"^#[0-9A-Fa-f]{6}$", description="The color, for example #FF0000.")
    color_weight: float | None = Field(
        default=None, ge=0.05, le=1.0, strict=True, allow_inf_nan=False, description="Its weight, 0.05 to 1.0."
    )


class ColorPalette(BaseModel):
    """Either a preset palette (`name`) or custom colors (`members`)."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={
            "oneOf": [
                {"required": ["name"], "properties": {"name": {"type": "string"}}},
                {"required": ["members"], "properties": {"members": {"type": "array"}}},
            ]
        },
    )

    name: Literal["EMBER", "FRESH", "JUNGLE", "MAGIC", "MELON", "MOSAIC", "PASTEL", "ULTRAMARINE"] | None = Field(
        default=None, description="A preset palette; excludes `members`."
    )
    members: Sequence[Color] | None = Field(default=None, min_length=1, description="Custom colors; excludes `name`.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.name is None) == (self.members is None):
            raise ValueError("a palette needs either `name` or `members`")
        return self


class IdeogramRemix(Request):
    """A new image from an image and a prompt, by Ideogram."""

    operation: ClassVar[str] = "chainhub.ideogram-remix"
    image_rules: ClassVar[Mapping[str, ImageRule]] = {"image_file": ImageRule(max_bytes=10_000_000, wants_bytes=True)}
    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "required": ["aspect_ratio", "resolution"],
                "properties": {"aspect_ratio": {"type": "string"}, "resolution": {"type": "string"}},
            },
            "examples": [
                {
                    "image_file": "https://example.com/beach.png",
                    "prompt": "A serene tropical beach",
                    "negative_prompt": "brush strokes, painting",
                    "aspect_ratio": "ASPECT_10_16",
                    "color_palette": {"name": "FRESH"},
                    "magic_prompt_option": "AUTO",
                    "seed": 12345,
                    "style_type": "REALISTIC",
                }
            ],
        }
    )

    image_file: ImageInput = Field(description="The source image: JPEG, PNG or WebP of at most 10 MB.")
    prompt: str = Field(min_length=1, pattern=r"\S", description="What to render.")
    aspect_ratio: (
        Literal[
            "ASPECT_10_16",
            "ASPECT_16_10",
            "ASPECT_9_16",
            "ASPECT_16_9",
            "ASPECT_3_2",
            "ASPECT_2_3",
            "ASPECT_4_3",
            "ASPECT_3_4",
            "ASPECT_1_1",
            "ASPECT_1_3",
            "ASPECT_3_1",
        ]
        | None
    ) = Field(default=None, description="Aspect ratio; excludes `resolution`.")
    resolution: str | None = Field(
        default=None,
        pattern=r"^RESOLUTION_[1-9][0-9]{2,3}_[1-9][0-9]{2,3}$",
        description="Width and height, for example RESOLUTION_1024_1024; excludes `aspect_ratio`.",
    )
    color_palette: ColorPalette | None = Field(default=None, description="A preset palette, or custom colors.")
    image_weight: int = Field(
        default=50, ge=1, le=100, strict=True, description="How strongly the source image is kept, 1 to 100."
    )
    magic_prompt_option: Literal["AUTO", "ON", "OFF"] | None = Field(
        default=None, description="Whether Ideogram rewrites the prompt."
    )
    model: Literal["V_1", "V_1_TURBO", "V_2", "V_2_TURBO"] = Field(default="V_2", description="Version of Ideogram.")
    negative_prompt: str | None = Field(default=None, description="What to avoid.")
    num_images: int = Field(default=1, ge=1, le=8, strict=True, description="Number of images, 1 to 8.")
    seed: int | None = Field(default=None, ge=0, le=2147483647, strict=True, description="Random seed.")
    style_type: Literal["AUTO", "GENERAL", "REALISTIC", "DESIGN", "RENDER_3D", "ANIME"] | None = Field(
        default=None, description="Style."
    )

    @field_validator("resolution")
    @classmethod
    def _one_shape(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("aspect_ratio") is not None:
            raise ValueError("`resolution` and `aspect_ratio` exclude each other")
        return value


class _IdeogramRemix(OperationDefaults):
    name = IdeogramRemix.operation
    request: type[Request] = IdeogramRemix
    deadline_seconds = 900.0

    def abilities(self, request: IdeogramRemix, *, has_callback: bool, options: Options) -> Abilities:
        return Abilities(poll=True, callback=has_callback and bool(options.callback_field))

    def images_expected(self, request: IdeogramRemix) -> int:
        return request.num_images

    def price(self, request: IdeogramRemix) -> Cost | None:
        return None

    def submit(self, request: IdeogramRemix, context: Context) -> Call:
        fields = {name: value for name, value in request.params().items() if name != "image_file"}
        form = {"image_request": json.dumps(fields, ensure_ascii=False)}
        if context.options.callback_field and context.callback_url:
            form[context.options.callback_field] = context.callback_url
        return Call(
            "POST",
            "/ideogram/remix",
            headers=bearer(context),
            form=form,
            files=[file_part("image_file", context.inputs[str(request.image_file)])],
            timeout_seconds=context.options.timeout_seconds,
        )

    def read_answer(self, request: IdeogramRemix, response: Response) -> Report:
        body = parsing.mapping(response.document())
        if not response.ok or _is_error(body):
            return _refused(response, body)
        return _result(body) or unreadable(_PROVIDER, response)

    def poll(self, external_id: str, context: Context) -> Call:
        path = context.options.task_path.replace("{task_id}", quote(external_id, safe=""))
        return Call("GET", path, headers=bearer(context), timeout_seconds=30.0)

    def read_poll(self, request: IdeogramRemix, response: Response) -> Report | None:
        """What a poll says of the task; a refused poll says nothing, unless it says that the content was refused."""
        body = parsing.mapping(response.document())
        if not response.ok or _is_error(body):
            failure = _reported(body)
            return failure if failure.code is Code.MODERATED else None
        return _result(body)

    def read_callback(self, body: Any) -> Report:
        update = parsing.mapping(body)
        if _is_error(update):
            return _reported(update)
        if report := _result(update):
            return report
        raise InvalidCallback("expected a task or images")


# Tasks ------------------------------------------------------------------------------------------------------------

#: statuses of a finished task; any other status means that it is still running, until the deadline
_SUCCEEDED = frozenset({"succeed", "succeeded", "success", "completed", "complete", "finished", "done"})
_FAILED = frozenset({"failed", "fail", "failure", "error", "canceled", "cancelled"})


def _result(body: Mapping[str, Any]) -> Report | None:
    """A synchronous result, a task in its envelope, or a task without one, as webhooks send it; None for anything else."""
    if isinstance(body.get("data"), list):
        return _images(body["data"], None)
    return _task(parsing.mapping(body.get("data"))) or _task(body)


def _task(task: Mapping[str, Any]) -> Report | None:
    status = parsing.text(parsing.first(task, "task_status", "status")).lower()
    external_id = parsing.identifier(task.get("task_id") or (status and task.get("id")))
    if external_id is None:
        return None
    if status in _FAILED:
        return _failed(task, external_id)
    # The lists in which gateways put the images of a task, Kling's first.
    inner, result = parsing.mapping(task.get("data")), parsing.mapping(task.get("task_result"))
    lists = (result.get("images"), task.get("images"), task.get("data"), inner.get("data"), inner.get("images"))
    images = next(filter(None, map(parsing.items, lists)), None)
    if images and (status in _SUCCEEDED or not status):
        return _images(images, external_id)
    return Running(external_id)  # even a success without images: an update may announce what only a poll shows


def _images(found: Any, external_id: str | None) -> Succeeded | Failed:
    offered = [item if isinstance(item, dict) else {"url": item} for item in parsing.items(found)]
    if not offered:
        message = f"{_PROVIDER} answered without images"
        return Failed(Code.PROVIDER_ERROR, message, charged=Charged.UNKNOWN, external_id=external_id)
    # The provider's own order where each image states its index, else the order of the list.
    stated = [
        item["index"] for item in offered if type(item.get("index")) is int and 0 <= item["index"] < parsing.MAX_IMAGES
    ]
    indexes = stated if len(set(stated)) == len(offered) else range(len(offered))
    images = (_image(index, item) for index, item in zip(indexes, offered, strict=True))
    return Succeeded(tuple(sorted(images, key=lambda image: image.index)), external_id)


def _image(index: int, item: Mapping[str, Any]) -> Image:
    if item.get("is_image_safe") is False or not item.get("url"):
        return Image(index, refused=Code.MODERATED)
    url = parsing.url(item["url"])
    if url is None:
        return Image(index, refused=Code.RESULT_REJECTED)
    return Image(index, url=url, life_seconds=_URL_LIFE_SECONDS)


def _failed(task: Mapping[str, Any], external_id: str) -> Failed:
    words = parsing.text(parsing.first(task, "task_status_msg", "fail_reason")) or parsing.reason(task)
    message = quoted(f"{_PROVIDER} reported a failed task", words)
    moderated = parsing.is_moderation(words)
    return Failed(
        Code.MODERATED if moderated else Code.PROVIDER_ERROR,
        message,
        retryable=not moderated,
        charged=Charged.UNKNOWN,
        external_id=external_id,
    )


# Errors -----------------------------------------------------------------------------------------------------------

_FINE = frozenset({"", "0", "200", "success"})

#: what Kling's codes and the gateways' words mean, with any HTTP status
_CODES: Mapping[str, Meaning] = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004", "1100", "1103"), Meaning(Code.UNAUTHORIZED)),
    "1101": Meaning(Code.OUT_OF_CREDIT),  # in arrears; comes as 429
    "1102": Meaning(Code.OUT_OF_CREDIT),  # the package is used up; comes as 429
    **dict.fromkeys(("1200", "1201", "1202", "1203"), Meaning(Code.INVALID_REQUEST)),
    **dict.fromkeys(("1300", "1301"), Meaning(Code.MODERATED)),
    **dict.fromkeys(("1302", "1303"), OVERLOADED),
    "1304": Meaning(Code.UNAUTHORIZED),  # the address is not on the allow list; comes as 429
    "5000": Meaning(Code.PROVIDER_ERROR, retryable=True, charged=Charged.UNKNOWN),
    "5001": Meaning(Code.PROVIDER_ERROR, retryable=True, not_now=True),  # unavailable; comes as 503
    "5002": Meaning(Code.TIMEOUT, retryable=True, charged=Charged.UNKNOWN),
    "upstream_load_saturated": OVERLOADED,
    "insufficient_user_quota": Meaning(Code.OUT_OF_CREDIT),
    "task_not_exist": Meaning(Code.PROVIDER_ERROR, charged=Charged.UNKNOWN),
}


def _is_error(body: Mapping[str, Any]) -> bool:
    """An `error` object, `success: false` or an error code; but a failed task says more than the code of its envelope."""
    is_task = _task(parsing.mapping(body.get("data"))) or _task(body)
    refused = body.get("success") is False and not body.get("data")
    failed = bool(body.get("error")) or refused or _code(body).lower() not in _FINE
    return failed and not is_task


def _refused(response: Response, body: Mapping[str, Any]) -> Failed:
    """By the innermost known code, else by the status, which a gateway may write into `code`."""
    nested = list(_nested(body))
    codes = [code for code in map(_code, reversed(nested)) if code.lower() not in _FINE]
    subject = ", code ".join([f"{_PROVIDER} answered {response.status}", *codes[:1]])
    message = quoted(subject, next(filter(None, map(parsing.reason, reversed(nested))), ""))
    if meaning := next((_CODES[code] for code in codes if code in _CODES), None):
        return meaning.failure(response, message)
    stated = next((int(code) for code in codes if re.fullmatch(r"[45][0-9]{2}", code)), response.status)
    failure = failed_by_status(replace(response, status=stated) if response.ok else response, message)
    if parsing.is_moderation(message):
        failure = replace(failure, code=Code.MODERATED, retryable=False)
    # A status that a 2xx states in its body is not documented to be free.
    return replace(failure, charged=Charged.UNKNOWN, not_now=False) if response.ok else failure


def _reported(body: Mapping[str, Any]) -> Failed:
    """An error that came after the submit was accepted: its codes say what failed, not what it cost."""
    return replace(_refused(Response(200), body), charged=Charged.UNKNOWN, not_now=False)


def _nested(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The body, its `error` object, and the JSON in their messages (the upstream's own error), up to four layers."""
    for _ in range(4):
        yield body
        words = parsing.text(body.get("message"))
        body = parsing.mapping(body.get("error"))
        if not body and words.lstrip().startswith("{"):
            with suppress(ValueError):
                body = parsing.mapping(parsing.parse_json(words))
        if not body:
            return


def _code(layer: Mapping[str, Any]) -> str:
    return parsing.text(layer.get("code"))


# Signed updates ---------------------------------------------------------------------------------------------------

#: how far a signature's time may be from ours, by Standard Webhooks
_TOLERANCE_SECONDS = 300


def verify(options: Options, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check an update's signature by Standard Webhooks [inferred], if `CHAINHUB_WEBHOOK_SECRET` is set."""
    secret = options.webhook_secret.get_secret_value()
    if not secret:
        return
    given = {name.lower(): value for name, value in headers.items()}
    if not re.fullmatch(r"[0-9]{1,11}", timestamp := given.get("webhook-timestamp", "")):
        raise InvalidCallback("webhook-timestamp is missing or not a number")
    sent_at = datetime.fromtimestamp(int(timestamp), tz=UTC)
    if abs((now - sent_at).total_seconds()) > _TOLERANCE_SECONDS:
        raise InvalidCallback("the signature's time is more than 5 minutes from ours")
    try:
        expected = Webhook(secret).sign(given.get("webhook-id", ""), sent_at, body.decode())
    except UnicodeDecodeError:
        raise InvalidCallback("the body is not UTF-8") from None
    signatures = given.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in signatures):
        raise InvalidCallback("the signature does not match the webhook secret")


provider = Provider(
    name="chainhub",
    default_base_url="https://api.chainhub.tech",
    operations={_IdeogramRemix.name: _IdeogramRemix()},
    options=Options,
    verify=verify,
)
