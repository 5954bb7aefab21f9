"""The reference pages say what the code says: every route and answer, every command, every status and code."""

from __future__ import annotations

import re
from enum import StrEnum
from types import ModuleType
from typing import Any

import pytest
from documentation import cli_reference, demo_picture, python_reference, settings_reference
from documentation.pages import ROOT, page

import jobs
from jobs import Charged, Code, OnUnknown, Outcome, Status, logs, providers
from jobs.sandbox.faults import VENDORS
from jobs.settings import Settings
from webhooks import create_app, openapi

HTTP = page("docs/reference/http.md")
STATUSES = page("docs/reference/statuses-and-codes.md")
DOCUMENT = openapi.document()
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if "responses" in operation
]
#: what the page says once for all routes, and once for all routes with a body
ALWAYS, WITH_BODY = {"401", "403", "429", "500", "503"}, {"400", "408", "413", "415", "422"}


# --- HTTP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "operation"), OPERATIONS, ids=[route for route, _ in OPERATIONS])
def test_each_answer_of_a_route_is_listed(route: str, operation: dict[str, Any]) -> None:
    said = {cells[0] for cells in HTTP.rows(f"`{route}`")}
    own = set(operation["responses"]) - ALWAYS
    assert said == (own - WITH_BODY if "requestBody" in operation else own)


@pytest.mark.parametrize(("route", "operation"), OPERATIONS, ids=[route for route, _ in OPERATIONS])
def test_each_parameter_and_reason_of_a_route_is_named(route: str, operation: dict[str, Any]) -> None:
    section = HTTP.text.split(f"### `{route}`")[1].split("\n## ")[0].split("\n### ")[0]
    for parameter in operation.get("parameters", ()):
        assert parameter["name"] in section or parameter["in"] == "path", parameter["name"]
    for reason in re.findall(r"`([a-z]+_[a-z_]+)`", operation.get("description", "").partition("409")[2]):
        assert f"`{reason}`" in section or f'"{reason}"' in section, reason


def test_no_route_is_listed_that_does_not_exist() -> None:
    assert set(re.findall(r"^### `([A-Z]+ /\S+)`$", HTTP.text, re.MULTILINE)) == {route for route, _ in OPERATIONS}


def test_each_route_without_a_key_is_listed() -> None:
    with create_app(Settings(secret_keys="a-secret-key"), environ={}) as app:  # type: ignore[arg-type]
        rules = {re.sub(r"<(?:path:)?(\w+)>", r"<\1>", rule.rule) for rule in app.url_map.iter_rules()}
    listed = {re.sub(r"^`[A-Z]+ (\S+)`$", r"\1", cells[0]) for cells in HTTP.rows("Routes without a key")}
    assert {rule for rule in rules if not rule.startswith("/v1")} <= listed


def test_each_problem_and_its_members_are_listed() -> None:
    rows = HTTP.rows("Problems")
    used = {status for _, operation in OPERATIONS for status in operation["responses"] if status >= "400"}
    assert {cells[0] for cells in rows} == used
    members = set(DOCUMENT["components"]["schemas"]["Problem"]["properties"]) - {"type", "title", "status", "detail"}
    assert members <= set(re.findall(r"`(\w+)`", " ".join(cells[2] for cells in rows)))
    assert all(cells[1] and cells[3] for cells in rows)


# --- Python and settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [python_reference, settings_reference], ids=lambda module: module.PAGE.name)
def test_the_page_is_written_as_the_code_says(reference: ModuleType) -> None:
    said = reference.PAGE.read_text()
    # A provider that was only just dropped in is on the page after the next `make docs`.
    shown = [name for name in providers.names() if re.search(rf"^### `?{name}\b", said, re.MULTILINE)]
    assert set(VENDORS) <= set(shown)
    assert said == reference.written(shown), "the code has changed: run `make docs` and commit what it writes"


def test_every_public_name_has_a_section() -> None:
    text = python_reference.PAGE.read_text()
    assert [name for name in jobs.__all__ if f"\n### `jobs.{name}`\n" not in text] == []
    assert " |  |\n" not in text, "an attribute without a meaning: give it a `#:` comment"


def test_every_setting_has_a_meaning_and_an_example() -> None:
    rows = [line for line in settings_reference.PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows
    for row in rows:
        _, variable, meaning, _, example, _ = re.split(r"(?<!\\)\|", row)
        assert meaning.strip(), variable
        assert example.strip(" `"), variable


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_is_written_as_click_knows_it() -> None:
    text = cli_reference.PAGE.read_text()
    assert text == cli_reference.written(text), "the help has changed: run `make docs` and commit what it writes"


@pytest.mark.parametrize("path", [path for path, _ in cli_reference.commands()])
def test_each_command_has_a_section(path: str) -> None:
    assert f"\n## `darkroom {path}`\n" in cli_reference.PAGE.read_text()


def test_the_picture_of_the_demo_shows_each_operation_of_the_sandbox_and_loads_nothing() -> None:
    picture = demo_picture.PICTURE.read_text()
    for name in providers.operation_names():
        assert name.partition(".")[0] not in VENDORS or name in picture
    assert "darkroom&#160;demo" in picture
    assert "url(http" not in picture


# --- statuses and codes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Statuses", Status),
        ("Failure codes", Code),
        ("Outcomes of an attempt", Outcome),
        ("Charged", Charged),
        ("What a job does about an unknown outcome", OnUnknown),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_each_word_is_explained(heading: str, words: type[StrEnum]) -> None:
    rows = STATUSES.rows(heading)
    assert [cells[0] for cells in rows] == [f"`{word}`" for word in words]
    assert all(all(cells) for cells in rows)


def test_each_event_of_the_log_and_each_field_is_explained() -> None:
    page_of_logs = page("docs/reference/logs.md")
    sources = [path.read_text() for name in ("jobs", "worker", "webhooks") for path in (ROOT / name).rglob("*.py")]
    events = {found for text in sources for found in re.findall(r"\bevent\(\s*\"([a-z ]+)\"", text)}
    assert {cells[0].strip("`") for cells in page_of_logs.rows("Log events")} == events
    fields = {name for cells in page_of_logs.rows("Fields") for name in re.findall(r"\w+", cells[0])}
    assert fields == set(logs.Fields.__annotations__)


def test_the_glossary_explains_each_word_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\*", page("docs/glossary.md").text, re.MULTILINE)
    assert len(words) > 40
    assert len(set(words)) == len(words)


def test_the_first_page_of_the_documentation_links_every_page() -> None:
    door = page("docs/README.md")
    linked = {(door.path.parent / link.partition("#")[0]).resolve() for link in door.links}
    assert set((ROOT / "docs").rglob("*.md")) - {door.path} <= linked
