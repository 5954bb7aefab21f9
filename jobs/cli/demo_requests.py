"""The requests of `darkroom demo`, made from the examples of the request models."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice, repeat
from typing import Any, Literal, get_args, get_origin

from PIL import Image, ImageDraw
from pydantic.fields import FieldInfo

from .. import providers
from ..request import Request

#: jobs of each operation: its example as it is, then with one switch changed at a time
JOBS_PER_OPERATION = 3
#: width and height of the images that are sent, in pixels
_SIDE = 384


def demo_requests(provider_names: Iterable[str]) -> Iterator[Request]:
    """Some requests for every operation of these providers, each with images of its own."""
    images = map(draw_image, count(1))
    operations = [one for name in provider_names for one in providers.provider(name).operations.values()]
    for operation in operations:
        model, example = operation.request, providers.examples(operation)[0]
        fields = example | {
            name: [next(images), next(images)] if isinstance(example.get(name), list) else next(images)
            for name in model.image_rules
        }
        # Each switch is changed once, so that every shape of a provider's answer occurs.
        changes = [
            {name: value} for name, field in model.model_fields.items() for value in _other(field, fields.get(name))
        ]
        for change in islice(chain([{}], reversed(changes), repeat({})), JOBS_PER_OPERATION):
            yield model.model_validate(fields | change)


def draw_image(number: int) -> bytes:
    """A PNG that shows a number, so that images can be told apart."""
    gradient = Image.linear_gradient("L").resize((_SIDE, _SIDE))
    bands = (Image.new("L", (_SIDE, _SIDE), (number * 47) % 256), gradient, gradient.rotate(90))
    image = Image.merge("HSV", bands).convert("RGB")
    ImageDraw.Draw(image).text((_SIDE // 3, _SIDE // 3), str(number), fill="white", font_size=_SIDE // 3)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _other(field: FieldInfo, now: Any) -> list[Any]:
    """The other value of a field that has two."""
    value = field.get_default() if now is None else now
    values: tuple[Any, ...] = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if field.annotation is bool:
        values = (False, True)
    return [other for other in values if other != value] if len(values) == 2 else []
