"""The operations in each of the ways in which a vendor can answer them, as a chaos run asks for them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image

from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.request import Request


@dataclass(frozen=True)
class Kind:
    """One operation in one mode."""

    name: str
    #: the request with this prompt, which names the job in the vendors' books
    request: Callable[[str], Request]
    images: int = 1
    #: what the worker's environment needs for this mode
    environ: Mapping[str, str] = field(default_factory=dict)
    #: whether its result comes by callback, even when nobody saw the answer to the submit
    calls_back: bool = False
    #: whether it can be sent again under the vendor's own key
    keyed: bool = False


@lru_cache(maxsize=1)
def picture() -> bytes:
    """A small input image."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "seagreen").save(buffer, "PNG")
    return buffer.getvalue()


def _generate(prompt: str) -> Request:
    return deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt=prompt, num_images=2, ratio="square")


def _face_id(prompt: str) -> Request:
    return deepmode.FaceIdRemix(identity_image=picture(), artwork_image=picture(), mask_image=picture(), prompt=prompt)


def _ideogram(prompt: str) -> Request:
    return chainhub.IdeogramRemix(image_file=picture(), prompt=prompt, num_images=2)


def _phota(prompt: str, response_mode: str) -> Request:
    return phota.Remix(
        input_image=picture(),
        reference_image=picture(),
        prompt=prompt,
        num_output_images=2,
        output_format="jpg",
        response_mode=response_mode,
    )


def _reve(prompt: str, *, by_url: bool) -> Request:
    # An image that stays a URL: the only request here that needs nothing of the storage before it is sent.
    return aimlapi.ReveRemix(prompt=prompt, image_urls=["https://example.com/a.png"], convert_base64_to_url=by_url)


GENERATE = Kind("generate by callback", _generate, images=2, calls_back=True)
FACE_ID = Kind("face-id-remix, sync", _face_id)
IDEOGRAM_CALLBACK = Kind("ideogram-remix by callback", _ideogram, images=2, calls_back=True)
IDEOGRAM_POLL = Kind("ideogram-remix, polled", _ideogram, images=2, environ={"CHAINHUB_CALLBACK_FIELD": "none"})
PHOTA_URLS = Kind("phota.remix, sync", lambda prompt: _phota(prompt, "urls"), images=2)
PHOTA_ASYNC = Kind(
    "phota.remix under its key",
    lambda prompt: _phota(prompt, "urls"),
    images=2,
    environ={"PHOTA_ASYNC": "1"},
    keyed=True,
)
PHOTA_BYTES = Kind("phota.remix, base64", lambda prompt: _phota(prompt, "bytes"), images=2)
REVE_URL = Kind("reve-remix, sync", lambda prompt: _reve(prompt, by_url=True))
REVE_BYTES = Kind("reve-remix, base64", lambda prompt: _reve(prompt, by_url=False))
