"""SECURITY.md names tests: each of them exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
_NAME = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def names_of(path: Path) -> Iterator[str]:
    """The tests of a file, by the names that pytest gives them."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield from (
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_threat_is_stopped_by_something_and_names_tests_that_exist(row: str) -> None:
    _, threat, stop, tests, _ = row.split("|")
    named = _NAME.findall(tests)
    assert threat.strip()
    assert stop.strip()
    assert named
    assert len(named) == tests.count("::") - sum(name.count("::") for _, name in named)
    for file, name in named:
        assert name.rpartition("::")[2].startswith("test_")
        assert name in set(names_of(ROOT / file)), f"{file} has no {name}"


def test_there_are_threats() -> None:
    assert len(ROWS) > 20
