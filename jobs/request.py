"""What every request model has in common, and the image fields.

A request is a frozen pydantic model whose fields are the vendor's own. An image field takes an https URL, `bytes`, a
`pathlib.Path`, a file object, or the reference of an image that was staged before (`staged:<sha256>.<extension>`); from
JSON also base64. What is not a URL is a `LocalImage` until it is staged at enqueue.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, WithJsonSchema

#: an image that lies in our storage under its digest
STAGED = re.compile(r"staged:(?P<sha256>[0-9a-f]{64})\.(?P<extension>[a-z]{3,4})")

_DATA_URI = re.compile(r"data:image/[a-z+.-]+;base64,", re.IGNORECASE)
_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class LocalImage:
    """An image given as bytes, not staged yet."""

    content: bytes = field(repr=False)


@dataclass(frozen=True)
class ImageRule:
    """What a provider takes in an image field."""

    max_bytes: int = 20 * _MEBIBYTE
    content_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    #: the provider wants the bytes even where a URL was given, so a worker fetches it
    wants_bytes: bool = False


def _image(value: Any, info: ValidationInfo) -> str | LocalImage:
    if isinstance(value, LocalImage):
        return value
    if isinstance(value, str):
        return _image_from_text(value, info)
    if isinstance(value, bytes | bytearray | memoryview):
        return LocalImage(bytes(value))
    if isinstance(value, Path):
        return LocalImage(_read(value))
    if callable(read := getattr(value, "read", None)):
        return _from_file(read())
    kind = type(value).__name__
    raise ValueError(f"a {kind} is no image; allowed: an https URL, bytes, a pathlib.Path or a file object")


def _image_from_text(text: str, info: ValidationInfo) -> str | LocalImage:
    if STAGED.fullmatch(text):
        return text
    if text.lower().startswith(("https://", "http://")):
        return _url(text)
    if info.mode == "json" or (info.context or {}).get("base64_images"):
        return LocalImage(_base64(text))
    raise ValueError("text that is no https URL; allowed: an https URL, bytes, a pathlib.Path or a file object")


def _url(text: str) -> str:
    if not text.isascii() or any(char.isspace() or ord(char) < 0x20 for char in text):
        raise ValueError("a URL with spaces, control characters or letters that are not ASCII; percent-encode them")
    if not urlsplit(text).hostname:
        raise ValueError("a URL without a host")
    return text


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(_DATA_URI.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("neither an https URL, an upload reference nor base64") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None


def _from_file(content: Any) -> LocalImage:
    if not isinstance(content, bytes):
        raise ValueError("a file object that was not opened in binary mode; open it with mode 'rb'")  # noqa: TRY004
    return LocalImage(content)


if TYPE_CHECKING:
    #: the type of an image field: what may be written there; what stands there afterwards is a str or a LocalImage
    ImageInput = str | bytes | Path | BinaryIO | LocalImage
else:
    ImageInput = Annotated[
        str | LocalImage,
        BeforeValidator(_image),
        WithJsonSchema(
            {
                "type": "string",
                "description": "An https URL, an upload reference (staged:<sha256>.<extension>) or base64.",
                "minLength": 1,
                # A name of ours: which text is an image no pattern can say.
                "format": "image-source",
            }
        ),
    ]


class Request(BaseModel):
    """The root of all request models."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)

    #: the operation's name, for example `deepmode.generate`
    operation: ClassVar[str]
    #: the image fields, and what the provider takes in them
    image_rules: ClassVar[Mapping[str, ImageRule]] = {}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Neither prompts nor where images lie: what is shown of a request ends in logs."""
        for name, value in super().__repr_args__():
            private = name is not None and ("prompt" in name or name in self.image_rules)
            yield name, "…" if private and value is not None else value

    def images(self) -> Iterator[tuple[str, ImageRule, str | LocalImage]]:
        """Each image: its path (`image_file`, `image_urls.0`), its rule, and a URL, a reference or a LocalImage."""
        for name, rule in self.image_rules.items():
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                yield from ((f"{name}.{index}", rule, item) for index, item in enumerate(value))
            elif value is not None:
                yield name, rule, value

    def with_images(self, references: Mapping[str, str]) -> Self:
        """The request with the images at these paths replaced by URLs or references."""
        changed: dict[str, Any] = {}
        for name in self.image_rules:
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                changed[name] = type(value)(references.get(f"{name}.{i}", item) for i, item in enumerate(value))
            elif name in references:
                changed[name] = references[name]
        return self.model_copy(update=changed)

    def params(self) -> dict[str, Any]:
        """The fields as JSON values, without nulls: what a record keeps. Every image must have been staged."""
        return self.model_dump(mode="json", exclude_none=True)
