"""What can be rendered: each operation with its fields, price and an example, as one value for Python, CLI and HTTP."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import BaseModel

from . import providers
from .providers._contract import Abilities
from .report import Cost, Unit
from .request import JsonValue, Request


@dataclass(frozen=True)
class OperationField:
    """One field of a request."""

    #: for example `num_images`
    name: str
    #: what it takes, in words, for example `integer, 1 to 8` or `one of "portrait", "square"`
    type: str
    #: whether a request must have it
    required: bool
    #: its value when a request does not have it
    default: JsonValue
    #: what it means
    description: str


@dataclass(frozen=True)
class Operation:
    """One service of a provider, and how to ask for it."""

    #: for example `deepmode.generate`
    name: str
    #: for example `deepmode`
    provider: str
    #: what it renders, in a sentence
    description: str
    #: the class of its requests, for example `jobs.providers.deepmode.Generate`
    request: type[Request] = field(repr=False)
    #: the JSON schema of `params` in `POST /v1/jobs`
    schema: Mapping[str, JsonValue] = field(repr=False)
    #: the fields of a request
    fields: tuple[OperationField, ...] = field(repr=False)
    #: what the example is expected to cost, in words
    price: str
    #: how the result arrives, in words
    result: str
    #: how long a job waits for the provider by default, in seconds
    deadline_seconds: float
    #: a program that enqueues the example
    python_example: str = field(repr=False)
    #: a command that enqueues the example
    cli_example: str = field(repr=False)
    #: the body of `POST /v1/jobs` that enqueues the example
    json_example: str = field(repr=False)


def operations() -> tuple[Operation, ...]:
    """List everything that can be rendered, by name. Needs neither Redis nor a provider's key.

    Returns:
        Each operation with its fields, price and examples.

    Examples:
        >>> prices = {operation.name: operation.price for operation in jobs.operations()}
        >>> prices["phota.remix"]
        "$0.24 for the example's 2 images"
    """
    return tuple(map(describe, providers.operation_names()))


@cache
def describe(name: str) -> Operation:
    """Describe one operation, for example `deepmode.generate`. Raises InvalidRequest for an unknown name."""
    operation = providers.operation(name)
    provider = providers.provider(name.partition(".")[0])
    given, schema = providers.examples(operation)[0], operation.request.model_json_schema()
    request = operation.request.model_validate(given)
    example = {field: given[field] for field in schema["properties"] if field in request.model_fields_set}
    with_callback, without_callback = (
        result_in_words(operation.abilities(request, has_callback=has_callback, options=provider.options()))
        for has_callback in (True, False)
    )
    result = with_callback
    if without_callback != with_callback:
        result = f"{with_callback}; without DARKROOM_PUBLIC_URL {without_callback}"
    arguments = " ".join(
        f"-p {shlex.quote(f'{field}={item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}')}"
        for field, value in example.items()
        for item in (value if isinstance(value, list) else [value])
    )
    package, _, module = operation.request.__module__.rpartition(".")
    importing = f"from {package} import {module}" if package else f"import {module}"
    return Operation(
        name=name,
        provider=provider.name,
        description=" ".join((operation.request.__doc__ or "").split()),
        request=operation.request,
        schema=schema,
        fields=tuple(_fields(schema)),
        price=price_in_words(operation.price(request), operation.images_expected(request)),
        result=result,
        deadline_seconds=operation.deadline_seconds,
        python_example=f"import jobs\n{importing}\n\n"
        f"job = jobs.enqueue(\n    {_constructor(request, module, ' ' * 4)}\n)\nprint(job.id)",
        cli_example=f"darkroom enqueue {name} {arguments}",
        json_example=json.dumps({"operation": name, "params": example}, indent=2, ensure_ascii=False),
    )


def result_in_words(abilities: Abilities) -> str:
    """How the result of an attempt arrives."""
    match abilities.callback, abilities.poll:
        case True, True:
            return "by callback or by polling"
        case True, False:
            return "by callback"
        case False, True:
            return "in the answer or by polling"
    return "in the answer"


def price_in_words(cost: Cost | None, images: int) -> str:
    """What a request for so many images is expected to cost, for the example of an operation."""
    if cost is None:
        return "not known before the answer; see the provider's price list"
    amount = (
        f"${cost.amount:.2f}" if cost.unit is Unit.USD else f"{cost.amount:g} {cost.unit}{'s' * (cost.amount != 1)}"
    )
    return f"{amount} for the example's {images} image{'s' * (images != 1)}"


# Fields, in words ---------------------------------------------------------------------------------------------------


def _fields(schema: Mapping[str, Any]) -> Iterator[OperationField]:
    for name, about in schema["properties"].items():
        yield OperationField(
            name=name,
            type=_kind(about, schema.get("$defs", {})),
            required=name in schema.get("required", ()),
            default=about.get("default"),
            description=about.get("description", ""),
        )


def _kind(about: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """What a field takes, from its JSON schema; `value` where the schema says nothing of it."""
    options = [one for one in (*about.get("anyOf", ()), *about.get("oneOf", ())) if one.get("type") != "null"]
    if options:
        rest = {name: value for name, value in about.items() if name not in ("anyOf", "oneOf")}
        return " or ".join(dict.fromkeys(_kind(rest | one, models) for one in options))
    if reference := about.get("$ref"):
        name = reference.rpartition("/")[2]
        # A model that holds itself is named once.
        return _kind(models.get(name, {}), {other: models[other] for other in models if other != name})
    if "const" in about:
        return json.dumps(about["const"])
    if "enum" in about:
        return f"one of {', '.join(map(json.dumps, about['enum']))}"
    if about.get("format") == "image-source":
        return "image"
    match about.get("type", "value"):
        case "array":
            return _list_of(about, models)
        case "object":
            names = about.get("properties")
            return f"object with {', '.join(names)}" if names else "object"
        case "string":
            length = _range(about, "minLength", "maxLength")
            return f"text of {length} characters" if "maxLength" in about else "text"
        case kind:
            bounds = [_range(about, "minimum", "maximum")]
            bounds += [f"{word} {about[key]}" for word, key in _EXCLUSIVE.items() if key in about]
            return ", ".join(filter(None, (str(kind), *bounds)))


def _list_of(about: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    if places := about.get("prefixItems"):
        return f"list of {', '.join(_kind(place, models) for place in places)}"
    number = _range(about, "minItems", "maxItems")
    kind = _kind(about.get("items", {}), models)
    plural = f"{kind}s" if kind.isalpha() else f"items, each {kind}"
    return f"list of {number} {plural}" if number else f"list of {plural}"


#: how a bound that is not allowed itself is written, and its keyword in JSON Schema
_EXCLUSIVE = {"above": "exclusiveMinimum", "below": "exclusiveMaximum"}


def _range(about: Mapping[str, Any], lowest: str, highest: str) -> str:
    match about.get(lowest), about.get(highest):
        case None, None:
            return ""
        case None, most:
            return f"at most {most}"
        case least, None:
            return f"at least {least}"
        case least, most:
            return f"{least} to {most}"
    raise AssertionError


# Examples -----------------------------------------------------------------------------------------------------------


def _constructor(model: BaseModel, module: str, indent: str) -> str:
    """The call that makes this model, one argument a line."""
    inner = f"{indent}    "
    given = {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}
    lines = "".join(f"{inner}{name}={_literal(value, module, inner)},\n" for name, value in given.items())
    return f"{module}.{type(model).__name__}(\n{lines}{indent})"


def _literal(value: object, module: str, indent: str) -> str:
    if isinstance(value, BaseModel):
        return _constructor(value, module, indent)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item, module, indent) for item in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
