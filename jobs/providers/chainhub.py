"""ChainHub: https://api.chainhub.tech

Ideogram's remix behind a gateway (`chainhub.ideogram-remix`). The gateway's family answers in several shapes, so what an
answer means is decided by its shape: a list in `data` is a finished result, an object with a task id is a task, and a
`code` that is neither 0 nor "success" is an error, even on HTTP 200. Task, updates and their signature are Kling's.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
    Abilities,
    Call,
    Context,
    OperationDefaults,
    Provider,
    ProviderOptions,
    Response,
    bearer,
    failed_by_status,
    file_part,
    told,
    unreadable,
)

_VENDOR = "ChainHub"
#: how long a result URL works
_URL_LIFE_SECONDS = 86400.0


class Options(ProviderOptions):
    """`CHAINHUB_...` in the environment."""

    #: how long a submit may hold the connection: sister gateways render before they answer
    timeout_seconds: float = Field(300.0, gt=0, le=3600, examples=["300"])
    #: where a task is asked for [unknown]
    task_path: str = Field("/ideogram/task/{task_id}", examples=["/ideogram/task/{task_id}"])
    #: the form field that carries the callback URL [inferred]; `none`: send none, poll only
    callback_field: str = Field("callback_url", examples=["callback_url"])
    #: the secret of signed updates, `whsec_...`; without one only the token in the callback's URL is checked
    webhook_secret: SecretStr = Field(SecretStr(""), examples=["whsec_dGVzdHNlY3JldA=="])

    @field_validator("task_path")
    @classmethod
    def _names_the_task(cls, value: str) -> str:
        if not value.startswith("/") or "{task_id}" not in value:
            raise ValueError("is no path that contains {task_id}")
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
            raise ValueError("is no webhook secret (whsec_ and base64)") from None
        return value


class Color(BaseModel):
    """One color of a palette of your own."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    color_hex: str = Field(pattern=r"^#[0-9A-Fa-f]{6}$", description="The color, for example #FF0000.")
    color_weight: float | None = Field(
        None, ge=0.05, le=1.0, strict=True, allow_inf_nan=False, description="Its weight, 0.05 to 1.0."
    )


class ColorPalette(BaseModel):
    """A preset palette by its name, or colors of your own: one of the two."""

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
        None, description="A preset palette; excludes `members`."
    )
    members: Sequence[Color] | None = Field(None, min_length=1, description="Your own colors; excludes `name`.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.name is None) == (self.members is None):
            raise ValueError("a palette has either `name` or `members`")
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
    ) = Field(None, description="Aspect ratio; excludes `resolution`.")
    resolution: str | None = Field(
        None,
        pattern=r"^RESOLUTION_[1-9][0-9]{2,3}_[1-9][0-9]{2,3}$",
        description="Width and height, for example RESOLUTION_1024_1024; excludes `aspect_ratio`.",
    )
    color_palette: ColorPalette | None = Field(None, description="A preset palette, or colors of your own.")
    image_weight: int = Field(
        50, ge=1, le=100, strict=True, description="How much of the source image stays, 1 to 100."
    )
    magic_prompt_option: Literal["AUTO", "ON", "OFF"] | None = Field(
        None, description="Whether Ideogram rewrites the prompt."
    )
    model: Literal["V_1", "V_1_TURBO", "V_2", "V_2_TURBO"] = Field("V_2", description="Version of Ideogram.")
    negative_prompt: str | None = Field(None, description="What to avoid.")
    num_images: int = Field(1, ge=1, le=8, strict=True, description="Number of images, 1 to 8.")
    seed: int | None = Field(None, ge=0, le=2147483647, strict=True, description="Random seed.")
    style_type: Literal["AUTO", "GENERAL", "REALISTIC", "DESIGN", "RENDER_3D", "ANIME"] | None = Field(
        None, description="Style."
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

    def abilities(self, request: IdeogramRemix, *, has_callback: bool, options: Options) -> Abilities:  # noqa: ARG002
        return Abilities(poll=True, callback=has_callback and bool(options.callback_field))

    def images_expected(self, request: IdeogramRemix) -> int:
        return request.num_images

    def price(self, request: IdeogramRemix) -> Cost | None:  # noqa: ARG002
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

    def read_answer(self, request: IdeogramRemix, response: Response) -> Report:  # noqa: ARG002
        body = parsing.mapping(response.document())
        if not response.ok or _is_error(body):
            return _refused(response, body)
        return _result(body) or unreadable(_VENDOR, response)

    def poll(self, external_id: str, context: Context) -> Call:
        path = context.options.task_path.replace("{task_id}", quote(external_id, safe=""))
        return Call("GET", path, headers=bearer(context), timeout_seconds=30.0)

    def read_poll(self, request: IdeogramRemix, response: Response) -> Report | None:  # noqa: ARG002
        """A refused poll says nothing of the task, except that its content was refused."""
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
        raise InvalidCallback("neither a task nor images")


# Tasks ------------------------------------------------------------------------------------------------------------

#: any other word means still running, until the deadline
_SUCCEEDED = frozenset({"succeed", "succeeded", "success", "completed", "complete", "finished", "done"})
_FAILED = frozenset({"failed", "fail", "failure", "error", "canceled", "cancelled"})


def _result(body: Mapping[str, Any]) -> Report | None:
    """A sync result, a task in its envelope, or a task flat as webhooks send it; None for anything else."""
    if isinstance(body.get("data"), list):
        return _pictures(body["data"], None)
    return _task(parsing.mapping(body.get("data"))) or _task(body)


def _task(task: Mapping[str, Any]) -> Report | None:
    status = parsing.text(parsing.first(task, "task_status", "status")).lower()
    external_id = parsing.identifier(task.get("task_id") or (status and task.get("id")))
    if external_id is None:
        return None
    if status in _FAILED:
        return _failed(task, external_id)
    images = next(_image_lists(task), None)
    if images is not None and (status in _SUCCEEDED or not status):
        return _pictures(images, external_id)
    return Running(external_id)  # a success without images too: an update may only announce what a poll then shows


def _image_lists(task: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Where the gateways put the images of a task; Kling's place first."""
    inner = parsing.mapping(task.get("data"))
    result = parsing.mapping(task.get("task_result"))
    for found in (result.get("images"), task.get("images"), task.get("data"), inner.get("data"), inner.get("images")):
        if parsing.items(found):
            yield parsing.items(found)


def _pictures(found: Any, external_id: str | None) -> Succeeded | Failed:
    offered = [item if isinstance(item, dict) else {"url": item} for item in parsing.items(found)]
    if not offered:
        message = f"{_VENDOR} answered without images"
        return Failed(Code.PROVIDER_ERROR, message, charged=Charged.UNKNOWN, external_id=external_id)
    places = _places([item.get("index") for item in offered])
    images = (_image(place, item) for place, item in zip(places, offered, strict=True))
    return Succeeded(tuple(sorted(images, key=lambda image: image.index)), external_id)


def _places(indices: list[Any]) -> Sequence[int]:
    """The vendor's own order where each image states its place, else the order they came in."""
    stated = [index for index in indices if type(index) is int and 0 <= index < parsing.MOST_IMAGES]
    return stated if len(set(stated)) == len(indices) else range(len(indices))


def _image(index: int, item: Mapping[str, Any]) -> Image:
    if item.get("is_image_safe") is False or not item.get("url"):
        return Image(index, refused=Code.MODERATED)
    url = parsing.url(item["url"])
    if url is None:
        return Image(index, refused=Code.RESULT_REJECTED)
    return Image(index, url=url, life_seconds=_URL_LIFE_SECONDS)


def _failed(task: Mapping[str, Any], external_id: str) -> Failed:
    words = parsing.text(parsing.first(task, "task_status_msg", "fail_reason")) or parsing.reason(task)
    message = told(f"{_VENDOR} reported a failed task", words)
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

#: Kling's codes and the gateways' words: what it is, whether a retry helps, and whether it may have been charged
_CODES: Mapping[str, tuple[Code, bool, Charged]] = {
    "1000": (Code.UNAUTHORIZED, False, Charged.NO),
    "1001": (Code.UNAUTHORIZED, False, Charged.NO),
    "1002": (Code.UNAUTHORIZED, False, Charged.NO),
    "1003": (Code.UNAUTHORIZED, False, Charged.NO),
    "1004": (Code.UNAUTHORIZED, False, Charged.NO),
    "1100": (Code.UNAUTHORIZED, False, Charged.NO),
    "1101": (Code.OUT_OF_CREDIT, False, Charged.NO),  # in arrears; comes as 429
    "1102": (Code.OUT_OF_CREDIT, False, Charged.NO),  # the package is used up; comes as 429
    "1103": (Code.UNAUTHORIZED, False, Charged.NO),
    "1200": (Code.INVALID_REQUEST, False, Charged.NO),
    "1201": (Code.INVALID_REQUEST, False, Charged.NO),
    "1202": (Code.INVALID_REQUEST, False, Charged.NO),
    "1203": (Code.INVALID_REQUEST, False, Charged.NO),
    "1300": (Code.MODERATED, False, Charged.NO),
    "1301": (Code.MODERATED, False, Charged.NO),
    "1302": (Code.RATE_LIMITED, True, Charged.NO),
    "1303": (Code.RATE_LIMITED, True, Charged.NO),
    "1304": (Code.UNAUTHORIZED, False, Charged.NO),  # the address is not on the allow list; comes as 429
    "5000": (Code.PROVIDER_ERROR, True, Charged.UNKNOWN),
    "5001": (Code.PROVIDER_ERROR, True, Charged.NO),  # unavailable, as 503
    "5002": (Code.TIMEOUT, True, Charged.UNKNOWN),
    "upstream_load_saturated": (Code.RATE_LIMITED, True, Charged.NO),
    "insufficient_user_quota": (Code.OUT_OF_CREDIT, False, Charged.NO),
    "task_not_exist": (Code.PROVIDER_ERROR, False, Charged.UNKNOWN),
}


def _is_error(body: Mapping[str, Any]) -> bool:
    """An `error` object, or a code that is not fine; but a failed task tells more than the code of its envelope."""
    is_task = _task(parsing.mapping(body.get("data"))) or _task(body)
    return not is_task and (bool(body.get("error")) or _code(body).lower() not in _FINE)


def _refused(response: Response, body: Mapping[str, Any]) -> Failed:
    """By the innermost code that is known, else by the status, which a gateway may write into `code`."""
    nested = list(_nested(body))
    codes = [code for code in map(_code, reversed(nested)) if code.lower() not in _FINE]
    answered = ", code ".join([f"{_VENDOR} answered {response.status}", *codes[:1]])
    message = told(answered, next(filter(None, map(parsing.reason, reversed(nested))), ""))
    by_status = failed_by_status(_stated(response, codes), message)
    if known := next((_CODES[code] for code in codes if code in _CODES), None):
        code, retryable, charged = known
        return replace(by_status, code=code, retryable=retryable, charged=charged)
    if parsing.is_moderation(message):
        return replace(by_status, code=Code.MODERATED, retryable=False)
    return by_status


def _stated(response: Response, codes: Sequence[str]) -> Response:
    """The answer with the error status that its body states, where HTTP said that all is well."""
    stated = next((int(code) for code in codes if re.fullmatch(r"[45][0-9]{2}", code)), response.status)
    return replace(response, status=stated) if response.ok else response


def _reported(body: Mapping[str, Any]) -> Failed:
    """An error that came after the submit was accepted: the codes say what it is, but not what it cost."""
    return replace(_refused(Response(200), body), charged=Charged.UNKNOWN)


def _nested(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The body, its `error` object, and what JSON their messages hold as text: an upstream's error, up to four layers."""
    for _ in range(4):
        yield body
        body = parsing.mapping(body.get("error")) or _inside(parsing.text(body.get("message")))
        if not body:
            return


def _inside(words: str) -> Mapping[str, Any]:
    try:
        return parsing.mapping(parsing.parsed(words)) if words.lstrip().startswith("{") else {}
    except ValueError:
        return {}


def _code(layer: Mapping[str, Any]) -> str:
    return parsing.text(layer.get("code"))


# Signed updates ---------------------------------------------------------------------------------------------------

#: how far a signature's time may be from ours, as Standard Webhooks has it
_TOLERANCE_SECONDS = 300


def verify(options: Options, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check the signature of an update by Standard Webhooks [inferred], if a secret is set. Raises InvalidCallback."""
    secret = options.webhook_secret.get_secret_value()
    if not secret:
        return
    given = {name.lower(): value for name, value in headers.items()}
    sent_at = _sent_at(given.get("webhook-timestamp", ""))
    if abs((now - sent_at).total_seconds()) > _TOLERANCE_SECONDS:
        raise InvalidCallback("the signature's time is more than 5 minutes from ours")
    expected = Webhook(secret).sign(given.get("webhook-id", ""), sent_at, _decoded(body))
    signatures = given.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in signatures):
        raise InvalidCallback("no signature of the webhook secret")


def _sent_at(timestamp: str) -> datetime:
    if not re.fullmatch(r"[0-9]{1,11}", timestamp):
        raise InvalidCallback("no webhook-timestamp")
    return datetime.fromtimestamp(int(timestamp), tz=UTC)


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidCallback("a body that is not UTF-8") from None


provider = Provider(
    name="chainhub",
    default_base_url="https://api.chainhub.tech",
    operations={_IdeogramRemix.name: _IdeogramRemix()},
    options=Options,
    verify=verify,
)
