"""The public functions and values: spelled out for editors, documented for readers, and their examples run."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from documentation.python_reference import shown_names

import jobs
from jobs.darkroom import current
from jobs.providers import deepmode

FUNCTIONS = {name: value for name in jobs.__all__ if inspect.isfunction(value := getattr(jobs, name))}
CLASSES = {name: value for name in jobs.__all__ if inspect.isclass(value := getattr(jobs, name))}


def callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each function and each method that a user may call."""
    yield from FUNCTIONS.items()
    for name, kind in CLASSES.items():
        for method, value in vars(kind).items():
            if inspect.isfunction(value) and not method.startswith("_"):
                yield f"{name}.{method}", value


@pytest.mark.parametrize(("name", "function"), list(callables()))
def test_a_signature_is_spelled_out(name: str, function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    assert "Any" not in str(signature)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    assert function.__doc__


@pytest.mark.parametrize(("name", "function"), list(FUNCTIONS.items()))
def test_a_function_documents_each_argument_its_result_its_errors_and_an_example(
    name: str, function: Callable[..., Any]
) -> None:
    text = inspect.getdoc(function) or ""
    described = re.findall(r"^    (\w+): ", text.partition("Args:")[2].partition("\n\n")[0], re.MULTILINE)
    assert described == list(inspect.signature(function).parameters)
    assert re.search(r"^(Returns|Yields):$", text, re.MULTILINE)
    assert "Examples:" in text
    raised = re.findall(r"^    (\w+): ", text.partition("Raises:")[2].partition("\n\n")[0], re.MULTILINE)
    assert name == "operations" or raised
    for error in set(raised) - {"TimeoutError"}:
        assert error in jobs.__all__


@pytest.mark.parametrize("kind", [kind for kind in CLASSES.values() if dataclasses.is_dataclass(kind)])
def test_each_field_of_a_public_value_says_what_it_means(kind: type) -> None:
    """By a comment, which editors and the reference show."""
    source = inspect.getsource(kind)
    for field in dataclasses.fields(kind):
        assert re.search(
            rf"#: .*\n(?:    #: .*\n)*    {field.name}: |^    {field.name}: .*  #: ", source, re.MULTILINE
        ), f"{kind.__name__}.{field.name} has no `#:` comment"


@pytest.mark.parametrize("kind", [kind for kind in CLASSES.values() if dataclasses.is_dataclass(kind)])
def test_a_value_names_what_the_reference_shows_of_it_and_nothing_else(kind: type) -> None:
    value = object.__new__(kind)
    vars(value).update({field.name: None for field in dataclasses.fields(kind)})
    assert {name for name in dir(value) if not name.startswith("_")} == set(shown_names(kind.__name__))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES.values() if issubclass(kind, Enum)])
def test_each_member_of_a_public_enumeration_says_what_it_means(kind: type[Enum]) -> None:
    source = inspect.getsource(kind)
    for member in kind:
        assert re.search(rf"    {member.name} = .*#: |#: .*\n    {member.name} = ", source), member


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path: Path) -> Iterator[jobs.Job]:
    """A job in the Redis that the environment names."""
    monkeypatch.setenv("DARKROOM_REDIS_URL", redis_url)
    monkeypatch.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/images")
    request = deepmode.Generate(model_id="b8a9", prompt="a lake")
    yield jobs.enqueue(request, webhook_url="https://app.example.com/darkroom")
    current().close()


@pytest.mark.parametrize("name", [*FUNCTIONS, "NewJob"])
def test_the_example_of_a_function_works(name: str, job: jobs.Job) -> None:
    if name in ("wait", "watch", "retry", "redeliver"):
        job = jobs.cancel(job.id)
    found = doctest.DocTestFinder(recurse=False).find(getattr(jobs, name), name, globs={"jobs": jobs, "job": job})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    assert sum(runner.run(test, out=said.append).attempted for test in found) > 0
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
