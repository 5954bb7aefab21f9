"""`GET /v1/operations`: what can be rendered, and how to ask for it."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response

from jobs import InvalidRequest
from jobs.operations import describe, operations

from ..problems import problem
from .access import routes
from .models import OperationList, OperationView, json_response


@routes.get("/operations")
def list_operations() -> Response:
    """List all operations."""
    return json_response(OperationList(operations=tuple(map(OperationView.model_validate, operations()))))


@routes.get("/operations/<name>")
def get_operation(name: str) -> Response:
    """Get one operation."""
    try:
        operation = describe(name)
    except InvalidRequest as error:
        return problem(HTTPStatus.NOT_FOUND, f"{error.errors[0].message}.")
    return json_response(OperationView.model_validate(operation))
