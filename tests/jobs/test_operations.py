"""What can be rendered: fields in words, and examples that work when they are pasted."""

from __future__ import annotations

import json
import shlex
from dataclasses import FrozenInstanceError
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, Field, JsonValue, create_model
from redis import Redis

import jobs
from jobs import Operation, providers
from jobs.cli import darkroom
from jobs.operations import _fields, describe, operations

ALL = operations()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path: Path) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", redis_url)
    monkeypatch.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/images")


def enqueued(redis: Redis) -> jobs.Job:
    """The one job that was enqueued."""
    [key] = redis.keys("darkroom:job:*")
    return jobs.get(key.decode().removeprefix("darkroom:job:"))


def test_every_operation_is_described() -> None:
    assert [one.name for one in ALL] == list(providers.operation_names())
    for one in ALL:
        assert one.description
        assert one.price
        assert one.result
        assert [field.name for field in one.fields] == list(one.request.model_fields)
        assert all(field.type and field.description for field in one.fields), one.name


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_the_examples_enqueue_the_same_request(operation: Operation, redis: Redis) -> None:
    exec(compile(operation.python_example, operation.name, "exec"), {})
    by_python = enqueued(redis)
    redis.flushall()

    command = shlex.split(operation.cli_example)
    assert command[0] == "darkroom"
    assert CliRunner().invoke(darkroom, command[1:]).exit_code == 0
    by_cli = enqueued(redis)

    body = json.loads(operation.json_example)
    by_json = operation.request.model_validate_json(json.dumps(body["params"])).params()
    assert by_python.operation == by_cli.operation == body["operation"] == operation.name
    assert by_python.params == by_cli.params == by_json


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_a_field_is_required_when_a_request_without_it_is_wrong(operation: Operation) -> None:
    with pytest.raises(jobs.InvalidRequest) as error:
        operation.request()
    required = {field.name for field in operation.fields if field.required}
    assert {one.field for one in error.value.errors if one.message == "required"} == required


def test_fields_say_in_words_what_they_take() -> None:
    fields = {field.name: field for one in ALL for field in one.fields}
    assert fields["num_images"].type == "integer, 1 to 8"
    assert fields["ratio"].type == 'one of "portrait", "square"'
    assert fields["image_urls"].type == "list of 1 to 4 images"
    assert fields["color_palette"].type == "object with name or object with members"
    assert (fields["upscale"].type, fields["upscale"].default) == ("boolean", False)


class Point(BaseModel):
    x: int


class Tree(BaseModel):
    branches: list[Tree]


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Any, "value"),
        (Any | None, "value"),
        (list, "list of values"),
        (dict[str, float], "object"),
        (int | str, "integer or text"),
        (int | None, "integer"),
        (tuple[int, str], "list of integer, text"),
        (list[Literal["a", "b"]], 'list of items, each one of "a", "b"'),
        (list[Annotated[str, Field(max_length=9)]], "list of items, each text of at most 9 characters"),
        (list[Point], "list of items, each object with x"),
        (Tree, "object with branches"),
        (Point | Colour, 'object with x or one of "red"'),
        (Annotated[float, Field(gt=0, le=1)], "number, at most 1, above 0"),
        (Annotated[int, Field(lt=5)], "integer, below 5"),
        (JsonValue, "value"),
        (datetime, "text"),
    ],
    ids=str,
)
def test_any_type_of_field_has_words(annotation: Any, words: str) -> None:
    schema = create_model("Model", field=(annotation, ...)).model_json_schema()
    [field] = _fields(schema)
    assert field.type == words


def test_prices_and_results_are_in_words() -> None:
    assert describe("phota.remix").price == "$0.24 for the example's 2 images"
    assert describe("deepmode.generate").price == "1 credit for the example's 3 images"
    assert describe("deepmode.generate").result == "by callback; without DARKROOM_PUBLIC_URL in the answer"


def test_an_operation_is_a_frozen_value() -> None:
    with pytest.raises(FrozenInstanceError):
        ALL[0].name = "other"  # type: ignore[misc]


def test_an_unknown_operation_is_answered_with_the_nearest() -> None:
    with pytest.raises(jobs.InvalidRequest, match=r'unknown operation .*; did you mean "deepmode.generate"\?'):
        describe("deepmode.genrate")
