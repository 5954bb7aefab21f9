"""From `-p name=value` to a request: the type of the field decides how a text is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .. import providers
from ..errors import FieldError, InvalidRequest
from ..request import Request
from .pairs import read_pairs


def read_request(
    operation: str, pairs: Iterable[str], file: Path | None = None, *, defaults: Mapping[str, Any] | None = None
) -> Request:
    """The request of an operation: `name=value` arguments override the JSON object in a file, and both the `defaults`.

    Raises InvalidRequest with every fault.
    """
    model = providers.operation(operation).request
    fields = {**(defaults or {}), **(_read_file(file) if file else {})}
    for name, texts in read_pairs(pairs, "-p").items():
        field = model.model_fields.get(name)
        if field is None:
            fields[name] = texts[0]  # the model refuses it, and names the nearest field
        elif name in model.image_rules:
            images = [Path(text[1:]).expanduser() if text.startswith("@") else text for text in texts]
            fields[name] = images if len(images) > 1 or takes_list(field.annotation) else images[0]
        else:
            fields[name] = _fitting(field, list(_readings(texts)))
    return model.model_validate(fields, context={"base64_images": file is not None, "file_hint": "write @{}"})


def takes_list(annotation: Any) -> bool:
    """Whether a field takes a list, perhaps an optional one."""
    origins = map(get_origin, (annotation, *get_args(annotation)))
    return not {Sequence, list, tuple}.isdisjoint(origins)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text())
    except OSError as error:
        raise InvalidRequest(FieldError("--params", f"{file} cannot be read: {error.strerror}")) from None
    except ValueError as error:
        raise InvalidRequest(FieldError("--params", f"{file} is not JSON: {error}")) from None
    if not isinstance(fields, dict):
        raise InvalidRequest(FieldError("--params", f"{file} should hold a JSON object"))
    return fields


def _readings(texts: Sequence[str]) -> Iterator[Any]:
    """The ways to read the texts of one field: as text, as JSON, and as a list of either."""
    parsed: list[Any] = list(texts)
    for number, text in enumerate(texts):
        with contextlib.suppress(ValueError):
            parsed[number] = json.loads(text)
    if len(texts) == 1:
        yield texts[0]
        yield parsed[0]
    yield list(texts)
    yield parsed


def _fitting(field: FieldInfo, readings: Sequence[Any]) -> Any:
    """The first reading that the field accepts; else the first of its type, so that the model can say what is wrong."""
    declared: Any = Annotated[field.annotation, None, *field.metadata]  # None, because one is required
    adapter: TypeAdapter[Any] = TypeAdapter(declared)
    of_its_type = []
    for reading in readings:
        try:
            adapter.validate_python(reading)
        except ValidationError as error:
            if not error.errors()[0]["type"].endswith("_type"):
                of_its_type.append(reading)
        else:
            return reading
    return of_its_type[0] if of_its_type else readings[0]
