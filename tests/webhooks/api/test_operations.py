"""What can be rendered, over HTTP."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from jobs import providers
from jobs.operations import operations


def test_each_operation_is_listed(api: Any) -> None:
    answer = api.get("/v1/operations")

    assert answer.status_code == 200
    assert [operation["name"] for operation in answer.json["operations"]] == list(providers.operation_names())


def test_an_operation_says_the_same_as_in_python(api: Any) -> None:
    for operation in operations():
        shown = api.get(f"/v1/operations/{operation.name}").json

        assert (shown["provider"], shown["description"]) == (operation.provider, operation.description)
        assert (shown["price"], shown["result"]) == (operation.price, operation.result)
        assert shown["deadline_seconds"] == operation.deadline_seconds
        assert shown["params_schema"] == operation.schema
        assert {field["name"]: field["default"] for field in shown["fields"]} == {
            field.name: field.default for field in operation.fields
        }


@pytest.mark.parametrize("name", providers.operation_names())
def test_the_example_fits_the_schema_and_runs(api: Any, name: str) -> None:
    shown = api.get(f"/v1/operations/{name}").json

    jsonschema.validate(shown["example"]["params"], shown["params_schema"])
    assert api.post("/v1/jobs", json=shown["example"]).status_code == 202


def test_an_unknown_operation_is_not_found_and_the_nearest_is_named(api: Any) -> None:
    answer = api.get("/v1/operations/deepmode.generat")

    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert 'did you mean "deepmode.generate"?' in answer.json["detail"]


def test_a_key_is_needed(client: Any) -> None:
    assert client.get("/v1/operations").status_code == 401
