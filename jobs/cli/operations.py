"""`darkroom operations`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
from rich.text import Text

from ..operations import Operation, describe
from ..operations import operations as all_operations
from .console import Cell, facts, out, print_json, show, width_of, wrapped
from .enqueue import complete_operation
from .words import duration


@click.command(short_help="Show the operations, their fields, prices and examples.")
@click.argument("name", required=False, shell_complete=complete_operation)
@click.option("--json", "as_json", is_flag=True, help="Print the operations as JSON, one a line.")
def operations(name: str | None, as_json: bool) -> None:
    """Show what can be enqueued: one operation with its fields and an example to paste, or all of them briefly."""
    found = (describe(name),) if name else all_operations()
    console = out()
    width = width_of(console)
    if as_json:
        for operation in found:
            print_json(_as_json(operation))
    elif name:
        show(_details(found[0], width), console)
    else:
        show(facts(((operation.name, operation.description) for operation in found), width), console)


def _as_json(operation: Operation) -> dict[str, object]:
    return {
        "name": operation.name,
        "provider": operation.provider,
        "description": operation.description,
        "price": operation.price,
        "result": operation.result,
        "deadline_seconds": operation.deadline_seconds,
        "schema": operation.schema,
        "example": json.loads(operation.json_example),
    }


def _details(operation: Operation, width: int) -> Iterator[Cell]:
    yield Text(operation.name, style="bold")
    yield from wrapped(operation.description, width)
    yield ""
    yield from facts(
        [
            ("price", operation.price),
            ("result", operation.result),
            ("deadline", f"{duration(operation.deadline_seconds)} by default"),
        ],
        width,
    )
    yield from ("", Text("Fields", style="bold"))
    for field in operation.fields:
        default = "required" if field.required else f"default {json.dumps(field.default, ensure_ascii=False)}"
        if field.default is None and not field.required:
            default = "optional"
        yield from wrapped(f"{field.type}; {default}", width, f"  {field.name}  ", 6)
        if field.description:
            yield from wrapped(field.description, width, " " * 6, 6)
    yield from ("", Text("Example", style="bold"))
    yield from operation.cli_example.replace(" -p ", " \\\n    -p ").splitlines()
