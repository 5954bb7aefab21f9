"""The base of all request models, the type of their image fields, and their faults in our words.

A request is a frozen pydantic model whose fields are the provider's own. An image field takes an https URL, `bytes`, a
`pathlib.Path`, a file object, or the reference of an image that was staged before (`staged:<sha256>.<extension>`); from
JSON also base64. An image that is not a URL is a `LocalImage` until it is staged at enqueue.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar, Self, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, WithJsonSchema
from pydantic_core import ErrorDetails

from .errors import FieldError, InvalidRequest, did_you_mean

#: the longest value that an error message repeats, in characters
MAX_SHOWN_CHARACTERS = 80

#: the reference of an image that we keep under its SHA-256
STAGED = re.compile(r"staged:(?P<sha256>[0-9a-f]{64})\.(?P<extension>[a-z]{3,4})")

#: any JSON value
JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

#: what pydantic says in the words of Python's types, in ours
_RULES = {
    "sequence_str": "be a list",
    "is_instance_of Sequence": "be a list",
    "list_type": "be a list",
    "tuple_type": "be a list",
    "dict_type": "be an object",
    "model_type": "be an object",
    "greater_than_equal": "be at least {ge}",
    "less_than_equal": "be at most {le}",
}
_QUOTED = re.compile(r"'([^']*)'")

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
    match value:
        case LocalImage():
            return value
        case str():
            return _image_from_text(value, info)
        case bytes() | bytearray() | memoryview():
            return LocalImage(bytes(value))
        case Path():
            try:
                return LocalImage(value.read_bytes())
            except OSError as error:
                raise ValueError(f"the file {value} cannot be read: {error.strerror}") from None
    read = getattr(value, "read", None)
    if not callable(read):
        kind = type(value).__name__
        raise ValueError(f"{kind} is not an image; pass an https URL, bytes, a pathlib.Path or a file object")  # noqa: TRY004 - pydantic collects only ValueErrors
    try:
        content = read()
    except OSError as error:
        raise ValueError(f"the file object cannot be read: {error.strerror or error}") from None
    if not isinstance(content, bytes):
        raise ValueError("the file object is not in binary mode; open it with mode 'rb'")  # noqa: TRY004 - pydantic collects only ValueErrors
    return LocalImage(content)


def _image_from_text(text: str, info: ValidationInfo) -> str | LocalImage:
    context = info.context or {}
    if STAGED.fullmatch(text):
        return text
    if text.lower().startswith(("https://", "http://")):
        if not text.isascii() or any(char.isspace() or ord(char) < 0x20 for char in text):
            raise ValueError("the URL has spaces, control characters or letters outside ASCII; percent-encode them")
        if not urlsplit(text).hostname:
            raise ValueError("the URL has no host; write it as https://example.com/photo.jpg")
        return text
    if info.mode == "json" or context.get("base64_images"):
        try:
            return LocalImage(base64.b64decode(_DATA_URI.sub("", text, count=1), validate=True))
        except (binascii.Error, ValueError):
            raise ValueError("not an https URL, an upload reference (staged:...) or base64") from None
    if len(text) > MAX_SHOWN_CHARACTERS:
        raise ValueError(f"a text of {len(text)} characters is not an https URL; pass the bytes of an image as bytes")
    hint = context.get("file_hint", "pass pathlib.Path({!r})").format(text)
    raise ValueError(f"{text!r} is not an https URL; to send a file, {hint}")


if TYPE_CHECKING:
    #: what an image field takes; its value is then a str (a URL or a reference) or a LocalImage
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
                # Our own format: no pattern can tell which text is an image.
                "format": "image-source",
            }
        ),
    ]


class Request(BaseModel):
    """The base of all request models. A wrong field raises `InvalidRequest`, which lists every fault at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)

    #: the operation's name, for example `deepmode.generate`
    operation: ClassVar[str]
    #: the image fields, and what the provider accepts in each
    image_rules: ClassVar[Mapping[str, ImageRule]] = {}

    if not TYPE_CHECKING:  # type checkers derive the signature of a request from its fields

        def __init__(self, /, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise InvalidRequest(*field_errors(error, type(self))) from None

        # Without it, pydantic would call this for nested models too, and lose their place and context.
        __init__.__pydantic_base_init__ = True

        @classmethod
        def model_validate(cls, obj: Any, **options: Any) -> Self:
            try:
                return super().model_validate(obj, **options)
            except ValidationError as error:
                raise InvalidRequest(*field_errors(error, cls)) from None

        @classmethod
        def model_validate_json(cls, json_data: Any, **options: Any) -> Self:
            try:
                return super().model_validate_json(json_data, **options)
            except ValidationError as error:
                raise InvalidRequest(*field_errors(error, cls)) from None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Leaves out prompts and images: a repr ends up in logs."""
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

    def params(self) -> dict[str, JsonValue]:
        """The fields as JSON values, without nulls, as a record keeps them. Every image must be staged."""
        return self.model_dump(mode="json", exclude_none=True)


def nesting(value: Any) -> int:
    """How deep objects and lists are nested in a JSON value."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def field_errors(error: ValidationError, model: type[BaseModel]) -> tuple[FieldError, ...]:
    """Every fault that pydantic found in the fields of `model`, in our words; prompts and images are not repeated."""
    return tuple(_field_error(fault, model) for fault in error.errors(include_url=False))


def _field_error(fault: ErrorDetails, model: type[BaseModel]) -> FieldError:
    path = [str(part) for part in fault["loc"]]
    field = ".".join(path)
    if fault["type"] == "missing":
        return FieldError(field, "required")
    if fault["type"] == "extra_forbidden":
        names = _field_names(model, path[:-1])
        hint = did_you_mean(path[-1], names) or f"the fields are {', '.join(names)}"
        return FieldError(field, f"unknown field; {hint}", allowed=", ".join(names))
    value = ""
    is_private = not path or "prompt" in field or path[0] in getattr(model, "image_rules", {})
    given = fault["input"]
    # Text of several words may be a prompt that was put into the wrong field.
    is_text = isinstance(given, str) and len(given.split()) > 1
    if not is_private and not is_text and isinstance(given, str | int | float | None):
        value = repr(given)
    if len(value) > MAX_SHOWN_CHARACTERS:
        value = f"{value[: MAX_SHOWN_CHARACTERS - 1]}…"
    words = fault["msg"].removeprefix("Value error, ")
    _, should, rule = words.partition(" should ")
    context = fault.get("ctx", {})
    if found := _RULES.get(f"{fault['type']} {context.get('class', '')}".rstrip()):
        rule = found.format_map(context)
    elif not should or fault["type"] == "value_error":
        return FieldError(field, words, value)
    rule = rule.partition(", unable to ")[0]
    but = f", not {value}" if value and ", not " not in rule else ""
    if fault["type"] == "literal_error" and value and (hint := did_you_mean(str(given), _QUOTED.findall(rule))):
        but += f"; {hint}"
    return FieldError(field, f"should {rule}{but}", value, rule.removeprefix("be "))


def _field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    """The names of the fields of the model at this path below `model`."""
    for part in path:
        found = model.model_fields.get(part)
        model = next(_models(found.annotation), model) if found else model
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
