"""DeepMode: https://api.deepmode.ai

Images of a trained model (`deepmode.generate`) and a remix with one face (`deepmode.face-id-remix`), 1 credit a call each.
Its acknowledgement holds no id: only the callback URL says which job a result belongs to. It does not sign callbacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote, unquote

from pydantic import ConfigDict, Field

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
    bearer,
    error_message,
    failed_by_status,
    file_part,
    quoted,
    unreadable,
)

_PROVIDER = "DeepMode"
#: how long a result URL works
_URL_LIFE_SECONDS = 3600.0
_AS_FILE = ImageRule(wants_bytes=True)


class Options(ProviderOptions):
    """`DEEPMODE_...` in the environment."""

    timeout_seconds: float = Field(
        default=600.0, gt=0, le=3600, examples=["600"], description="How long a synchronous call may take, in seconds."
    )
    face_id_result: Literal["poll", "callback"] = Field(
        default="poll",
        examples=["poll"],
        description="How the result of a face-id remix with `mode=async` comes: by the image lookup or by callback.",  # [unknown]
    )


class Generate(Request):
    """Images of a trained model, from a prompt. DeepMode calls back; without a public URL the call is synchronous."""

    operation: ClassVar[str] = "deepmode.generate"
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_id": "b8a9f7e5d1c3a2f91e3d5",
                    "prompt": "A beautiful landscape with mountains and a river.",
                    "negative_prompt": "rainy, foggy",
                    "num_images": 3,
                    "upscale": True,
                    "ratio": "square",
                }
            ]
        }
    )

    model_id: str = Field(min_length=1, description="Unique identifier of the trained model.")
    prompt: str = Field(min_length=1, pattern=r"\S", description="What to render.")
    negative_prompt: str | None = Field(default=None, description="What to avoid.")
    num_images: int = Field(default=1, ge=1, le=8, strict=True, description="Number of images, 1 to 8.")
    upscale: bool = Field(default=False, strict=True, description="Fourfold super-resolution.")
    ratio: Literal["portrait", "square"] = Field(default="portrait", description="Shape of the images.")


class FaceIdRemix(Request):
    """An artwork with the face of another image, without a trained model."""

    operation: ClassVar[str] = "deepmode.face-id-remix"
    image_rules: ClassVar[Mapping[str, ImageRule]] = {
        "identity_image": _AS_FILE,
        "artwork_image": _AS_FILE,
        "mask_image": _AS_FILE,
    }
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "identity_image": "https://example.com/identity.jpg",
                    "artwork_image": "https://example.com/artwork.jpg",
                    "mask_image": "https://example.com/mask.jpg",
                    "prompt": "cartoon, pixar, 3d animation",
                    "negative_prompt": "oversaturated, realistic, photo, deformed",
                }
            ]
        }
    )

    identity_image: ImageInput = Field(description="Image containing the identity to remix.")
    artwork_image: ImageInput = Field(description="Image to be used as artwork.")
    mask_image: ImageInput = Field(description="Image containing the mask.")
    prompt: str = Field(default="", description="What to render.")
    negative_prompt: str = Field(default="", description="What to avoid.")
    mode: Literal["sync", "async"] = Field(
        default="sync", description="`sync`: the answer holds the image; `async`: the result comes later."
    )


class _Operation(OperationDefaults):
    """What both operations share: the shapes of their answers, and fresh URLs for images."""

    def price(self, request: Any) -> Cost | None:
        """1 credit a call, for any number of images."""
        return Cost(1.0, Unit.CREDIT)

    def read_answer(self, request: Any, response: Response) -> Report:
        if not response.ok:
            return failed_by_status(response, error_message(_PROVIDER, response))
        body = parsing.mapping(response.document())
        if report := _result(body):
            return report
        # The acknowledgement of a submit, or an image that is not finished.
        accepted = body.get("message") or body.get("status") or body.get("id")
        return Running(_safe_id(body.get("id"))) if accepted else unreadable(_PROVIDER, response)

    def read_callback(self, body: Any) -> Report:
        if report := _result(parsing.mapping(body)):
            return report
        raise InvalidCallback("expected `images` or an image with an `image_url`")

    def remint(self, image: Image, context: Context) -> Call | None:
        image_id = _safe_id(image.external_id)
        return _lookup(image_id, context) if image_id else None

    def read_remint(self, response: Response) -> Image | None:
        found = _result(parsing.mapping(response.document())) if response.ok else None
        images = found.images if isinstance(found, Succeeded) else ()
        return next((image for image in images if image.url), None)


class _Generate(_Operation):
    name = Generate.operation
    request: type[Request] = Generate
    deadline_seconds = 900.0

    def abilities(self, request: Generate, *, has_callback: bool, options: Options) -> Abilities:
        return Abilities(callback=has_callback)

    def images_expected(self, request: Generate) -> int:
        return request.num_images

    def submit(self, request: Generate, context: Context) -> Call:
        callback = {"callback": context.callback_url} if context.callback_url else {}
        return Call(
            "POST",
            "/api/images/generate",
            headers=bearer(context),
            json=request.params() | callback,
            timeout_seconds=60.0 if callback else context.options.timeout_seconds,
        )


class _FaceIdRemix(_Operation):
    name = FaceIdRemix.operation
    request: type[Request] = FaceIdRemix
    deadline_seconds = 900.0

    def abilities(self, request: FaceIdRemix, *, has_callback: bool, options: Options) -> Abilities:
        return Abilities(callback=_calls_back(request, options) and has_callback, poll=True)

    def images_expected(self, request: FaceIdRemix) -> int:
        return 1

    def submit(self, request: FaceIdRemix, context: Context) -> Call:
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt, "mode": request.mode}
        if _calls_back(request, context.options) and context.callback_url:
            texts["callback"] = context.callback_url  # [inferred] from generate: the page names no such field
        return Call(
            "POST",
            "/api/face-id-remix",
            headers=bearer(context),
            form={name: value for name, value in texts.items() if value},
            files=[file_part(field, context.inputs[str(image)]) for field, _, image in request.images()],
            timeout_seconds=60.0 if request.mode == "async" else context.options.timeout_seconds,
        )

    def poll(self, external_id: str, context: Context) -> Call:
        return _lookup(external_id, context)  # [inferred]: the page does not say how an async result comes

    def read_poll(self, request: Any, response: Response) -> Report | None:
        return _result(parsing.mapping(response.document())) if response.ok else None


def _calls_back(request: FaceIdRemix, options: Options) -> bool:
    return request.mode == "async" and options.face_id_result == "callback"


def _result(body: Mapping[str, Any]) -> Succeeded | Failed | None:
    """A sync answer, a callback (`images`, or one flat image), a lookup, or a failure; None for anything else."""
    if isinstance(body.get("images"), list):
        return _succeeded([parsing.mapping(item) for item in parsing.items(body["images"])], None)
    if body.get("image_url"):
        return _succeeded([body], _safe_id(body.get("id")))
    if body.get("error") or body.get("success") is False or parsing.text(body.get("status")).lower() in _FAILED:
        words = parsing.reason(body)
        moderated = parsing.is_moderation(words)
        code = Code.MODERATED if moderated else Code.PROVIDER_ERROR
        message = quoted(f"{_PROVIDER} reported a failure", words)
        return Failed(code, message, retryable=not moderated, charged=Charged.UNKNOWN)
    return None


#: words of `status` that end an image without a URL [inferred]; the page shows `completed` only
_FAILED = frozenset({"failed", "failure", "error", "rejected", "canceled", "cancelled"})


def _succeeded(found: list[Mapping[str, Any]], external_id: str | None) -> Succeeded | Failed:
    if not found:
        return Failed(Code.PROVIDER_ERROR, f"{_PROVIDER} answered without images", charged=Charged.UNKNOWN)
    return Succeeded(tuple(_image(index, item) for index, item in enumerate(found)), external_id)


def _image(index: int, item: Mapping[str, Any]) -> Image:
    url, external_id = parsing.url(item.get("image_url")), _safe_id(item.get("id"))
    if url is None:
        return Image(index, external_id=external_id, refused=Code.RESULT_REJECTED)
    return Image(index, url=url, external_id=external_id, expires_at=_signed_until(url), life_seconds=_URL_LIFE_SECONDS)


#: the end of an Azure signature, in a URL
_SIGNED_UNTIL = re.compile(r"[?&]se=([^&#]*)")


def _signed_until(url: str) -> datetime | None:
    """The end of an Azure signature (`se=2024-07-11T00%3A34%3A17Z`), or None."""
    found = _SIGNED_UNTIL.search(url)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(unquote(found[1]))
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _safe_id(value: Any) -> str | None:
    """An image id that is safe in a path; it may come from a callback's body, which anybody can write."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value) else None


def _lookup(image_id: str, context: Context) -> Call:
    """The call for one image object with a freshly signed URL."""
    return Call("GET", f"/api/images/{quote(image_id, safe='')}", headers=bearer(context), timeout_seconds=30.0)


provider = Provider(
    name="deepmode",
    default_base_url="https://api.deepmode.ai",
    operations={operation.name: operation for operation in (_Generate(), _FaceIdRemix())},
    options=Options,
)
