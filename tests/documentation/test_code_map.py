"""The code map: every file, class, function and constant that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from documentation.pages import ROOT, page, pages

PLACE = re.compile(r"((?:jobs|worker|webhooks|tests)/[\w/]+\.py):([A-Za-z_][\w.]*)")
NAMED = sorted({found.groups() for each in pages() for span in each.spans if (found := PLACE.fullmatch(span))})


@cache
def _parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def _inside(scope: ast.Module | ast.ClassDef, name: str) -> ast.stmt | None:
    """The statement of a module or class that gives this name its value."""
    return next((statement for statement in scope.body if name in _names(statement)), None)


def _names(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


@pytest.mark.parametrize(("file", "path"), NAMED, ids=lambda value: str(value))
def test_a_place_that_a_page_names_exists(file: str, path: str) -> None:
    scope: ast.stmt | ast.Module = _parsed(file)
    for name in path.split("."):
        assert isinstance(scope, ast.Module | ast.ClassDef), f"{file} has no {path}"
        found = _inside(scope, name)
        assert found is not None, f"{file} has no {path}"
        scope = found


def test_each_question_has_a_place() -> None:
    text = page("docs/code-map.md").text
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ") and "question" not in line]
    assert len(rows) > 50
    for question, where in rows:
        assert question.strip().endswith("?"), question
        assert re.search(r"`[\w/]+\.py(:[\w.]+)?`", where), question


def test_the_questions_that_every_newcomer_asks_are_there() -> None:
    text = page("docs/code-map.md").text
    for words in ("decided whether to retry", "429 turned into a retry", "way of a job", "canceled"):
        assert words in text


#: they know no jobs; what they replace is the status of an HTTP answer
WITHOUT_JOBS = ("jobs/providers/", "jobs/sandbox/")


def test_a_status_changes_only_where_the_page_says() -> None:
    [row] = [line for line in page("docs/code-map.md").text.splitlines() if "does a status change" in line]
    named = {found.groups() for span in re.findall(r"`([^`]+)`", row) if (found := PLACE.fullmatch(span))}
    changing = {
        (file, function.name)
        for package in ("jobs", "worker", "webhooks")
        for path in (ROOT / package).rglob("*.py")
        if not (file := str(path.relative_to(ROOT))).startswith(WITHOUT_JOBS)
        for function in ast.walk(_parsed(file))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("replace")
        if any(word.arg == "status" for word in call.keywords)
    }
    assert changing == named
