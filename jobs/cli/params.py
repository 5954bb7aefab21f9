"""From `-p name=value` to a request: the model's own field types decide what a text means."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .. import providers
from ..errors import FieldError, InvalidRequest
from ..request import Request


def read_request(
    operation: str, pairs: Iterable[str], file: Path | None = None, *, defaults: Mapping[str, Any] | None = None
) -> Request:
    """The request of `name=value` pairs, over the object in a JSON file, over `defaults`. Raises InvalidRequest."""
    model = providers.operation(operation).request
    params = {**(defaults or {}), **_from_file(file), **_from_pairs(model, pairs)}
    return model.model_validate(params, context={"base64_images": file is not None, "file_hint": "write @{}"})


def read_pairs(pairs: Iterable[str], option: str) -> dict[str, list[str]]:
    """`name=value` texts by name, in their order. Raises InvalidRequest."""
    found: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidRequest(FieldError(option, f"should be name=value, not {pair[:80]!r}"))
        found[name].append(value)
    return dict(found)


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        params = json.loads(file.read_text())
    except OSError as error:
        raise InvalidRequest(FieldError("--params", f"{file} cannot be read: {error.strerror}")) from None
    except ValueError as error:
        raise InvalidRequest(FieldError("--params", f"{file} is not JSON: {error}")) from None
    if not isinstance(params, dict):
        raise InvalidRequest(FieldError("--params", f"{file} should hold a JSON object"))
    return params


def _from_pairs(model: type[Request], pairs: Iterable[str]) -> dict[str, Any]:
    given = read_pairs(pairs, "-p")
    return {name: _meant(model, name, texts) for name, texts in given.items()}


def _meant(model: type[Request], name: str, texts: Sequence[str]) -> Any:
    """What the texts of one field mean; of an unknown field the text itself, for the model to refuse."""
    field = model.model_fields.get(name)
    if field is None:
        return texts[0]
    if name not in model.image_rules:
        return _fitting(field, list(_readings(texts)))
    images = [Path(text[1:]).expanduser() if text.startswith("@") else text for text in texts]
    return images if len(images) > 1 or get_origin(field.annotation) is Sequence else images[0]


def _readings(texts: Sequence[str]) -> Iterator[Any]:
    """As text, as JSON, and each as the only item of a list."""
    if len(texts) == 1:
        yield texts[0]
        yield from _as_json(texts[0])
    yield list(texts)
    yield [item for text in texts for item in (*_as_json(text), text)[:1]]


def _as_json(text: str) -> tuple[Any, ...]:
    try:
        return (json.loads(text),)
    except ValueError:
        return ()


def _fitting(field: FieldInfo, readings: Sequence[Any]) -> Any:
    """The first reading that the field takes; else the first that is of its type, for the model to say what is wrong."""
    declared: Any = Annotated[field.annotation, None, *field.metadata]  # None: there must be one at least
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
