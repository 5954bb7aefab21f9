"""The tree of errors, as its docstring draws it."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import jobs
from jobs import errors

PACKAGES = ("jobs", "worker", "webhooks")


def drawn() -> Mapping[str, str]:
    """Each error of the drawing, and the one that it hangs from."""
    parents: dict[str, str] = {}
    above = [""]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([ |]*\+- )?([A-Z][A-Za-z]+)(?:  |$)", line):
            depth = len(found[1] or "") // 4
            above[depth:] = [found[2]]
            parents.setdefault(found[2], above[depth - 1] if depth else "")
    return parents


def defined() -> Iterator[tuple[str, set[str]]]:
    """Each class of the code, and the names of its bases."""
    root = Path(jobs.__path__[0]).parent
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                yield node.name, {base.id for base in node.bases if isinstance(base, ast.Name)}


def test_every_error_is_drawn_where_it_hangs() -> None:
    known, tree = dict(drawn()), dict(defined())
    assert known.pop("DarkroomError") == ""
    assert {name for name, bases in tree.items() if bases & drawn().keys()} == known.keys()
    for name, parent in known.items():
        assert parent in tree[name], name


def test_the_meanings_are_aligned() -> None:
    lines = re.findall(r"^[ |]*\+- \w+  +(?=\w)", errors.__doc__ or "", re.MULTILINE)
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest(
            errors.FieldError("prompt", "required"), errors.FieldError("seed", "should be less", "9")
        ),
        errors.SettingsError("DARKROOM_REDIS_URL", "not a valid Redis URL", "redis://127.0.0.1"),
        errors.JobNotFound("a" * 32),
        errors.IdempotencyConflict("order-17", "a" * 32),
        errors.ChargePossible("a" * 32),
        errors.StorageError("the storage is away", retryable=False),
        errors.RedisUnavailable("Redis is away"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_a_process_boundary(error: errors.DarkroomError) -> None:
    """A Celery task of a user may raise it, and its caller gets it from another process."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_errors_carry_the_useful_datum_and_say_what_to_do() -> None:
    conflict = errors.IdempotencyConflict("order-17", "a" * 32)
    assert (conflict.key, conflict.job_id) == ("order-17", "a" * 32)
    assert str(conflict).endswith("use a new key for a new request")
    assert "retry with may_charge_again=True" in str(errors.ChargePossible("a" * 32))
    setting = errors.SettingsError("DARKROOM_REDIS_URL", "not set", "redis://127.0.0.1")
    assert str(setting) == "DARKROOM_REDIS_URL: not set; for example DARKROOM_REDIS_URL=redis://127.0.0.1"
