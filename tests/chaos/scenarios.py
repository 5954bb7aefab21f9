"""The scenarios of a chaos run: each operation in each way in which its provider can deliver the result."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image

from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.request import Request


@dataclass(frozen=True)
class Scenario:
    """One operation in one mode."""

    name: str
    #: makes the request with this prompt, by which the providers' ledger names the job
    request: Callable[[str], Request]
    images: int = 1
    #: what a worker needs in its environment for this mode
    environ: Mapping[str, str] = field(default_factory=dict)
    #: whether its result comes by callback, even if the answer to the submit was lost
    calls_back: bool = False
    #: whether it can be sent again with the provider's idempotency key
    has_key: bool = False


@lru_cache(maxsize=1)
def input_image() -> bytes:
    """A small input image."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "seagreen").save(buffer, "PNG")
    return buffer.getvalue()


def _generate(prompt: str) -> Request:
    return deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt=prompt, num_images=2, ratio="square")


def _face_id(prompt: str) -> Request:
    return deepmode.FaceIdRemix(
        identity_image=input_image(), artwork_image=input_image(), mask_image=input_image(), prompt=prompt
    )


def _ideogram(prompt: str) -> Request:
    return chainhub.IdeogramRemix(image_file=input_image(), prompt=prompt, num_images=2)


def _phota(prompt: str, response_mode: str) -> Request:
    return phota.Remix(
        input_image=input_image(),
        reference_image=input_image(),
        prompt=prompt,
        num_output_images=2,
        output_format="jpg",
        response_mode=response_mode,
    )


def _reve(prompt: str, *, by_url: bool) -> Request:
    # An image that stays a URL: the only request here that needs no storage before it is sent.
    return aimlapi.ReveRemix(prompt=prompt, image_urls=["https://example.com/a.png"], convert_base64_to_url=by_url)


GENERATE = Scenario("generate by callback", _generate, images=2, calls_back=True)
FACE_ID = Scenario("face-id-remix, sync", _face_id)
IDEOGRAM_CALLBACK = Scenario("ideogram-remix by callback", _ideogram, images=2, calls_back=True)
IDEOGRAM_POLL = Scenario("ideogram-remix, polled", _ideogram, images=2, environ={"CHAINHUB_CALLBACK_FIELD": "none"})
PHOTA_URLS = Scenario("phota.remix, sync", lambda prompt: _phota(prompt, "urls"), images=2)
PHOTA_ASYNC = Scenario(
    "phota.remix under its key",
    lambda prompt: _phota(prompt, "urls"),
    images=2,
    environ={"PHOTA_ASYNC": "1"},
    has_key=True,
)
PHOTA_BYTES = Scenario("phota.remix, base64", lambda prompt: _phota(prompt, "bytes"), images=2)
REVE_URL = Scenario("reve-remix, sync", lambda prompt: _reve(prompt, by_url=True))
REVE_BYTES = Scenario("reve-remix, base64", lambda prompt: _reve(prompt, by_url=False))
