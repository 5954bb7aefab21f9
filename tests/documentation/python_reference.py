"""Writes `docs/reference/python.md` from the signatures, docstrings and `#:` comments of the public names."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Collection, Iterator

import griffe

import jobs
from jobs.operations import Operation, operations

from .pages import ROOT

PAGE = ROOT / "docs" / "reference" / "python.md"

_HEAD = """# Python API

Everything that an application needs is in `jobs`; the requests are in `jobs.providers`.

```python
import jobs
from jobs.providers import deepmode
```

The functions act on the stack that the [settings](settings.md) describe. They are safe to call from many threads. Times are
aware `datetime` values in UTC, durations are in seconds.

This page is written by `make docs` from the code.
"""


def written(shown: Collection[str]) -> str:
    """The page, with the requests of these providers."""
    return "".join((_HEAD, *_names(), *_requests(shown)))


def _names() -> Iterator[str]:
    """A section for each group of `jobs.__all__`, and one in it for each name."""
    source = inspect.getsource(jobs).partition("__all__ = [")[2]
    for comment, name in re.findall(r"^    # (.+)$|^    \"(\w+)\",$", source, re.MULTILINE):
        if comment:
            yield f"\n## {comment[0].upper()}{comment[1:]}\n"
            continue
        found = _package()[name]
        if found.is_module:  # of the same name as the function in it
            found = found[name]
        match found.kind:
            case griffe.Kind.FUNCTION:
                yield from _function(f"jobs.{name}", found)
            case griffe.Kind.CLASS:
                yield from _class(name, found)
            case _:
                yield f"\n### `jobs.{name}`\n\n{_sentence(found)}\n\n```python\n{name} = {found.value}\n```\n"


@functools.cache
def _package() -> griffe.Module:
    extensions = griffe.load_extensions("griffe_sphinx")
    loaded = griffe.load("jobs", extensions=extensions, docstring_parser="google", resolve_aliases=True)
    assert isinstance(loaded, griffe.Module)
    return loaded


def _function(title: str, function: griffe.Object | griffe.Alias) -> Iterator[str]:
    yield f"\n### `{title}`\n\n```python\n{_signature(function)}\n```\n"
    assert function.docstring is not None
    for section in function.docstring.parsed:
        match section:
            case griffe.DocstringSectionText():
                yield f"\n{section.value}\n"
            case griffe.DocstringSectionParameters():
                yield "\n| argument | meaning |\n|---|---|\n"
                yield from (f"| `{item.name}` | {_cell(item.description)} |\n" for item in section.value)
            case griffe.DocstringSectionReturns() | griffe.DocstringSectionYields():
                yield f"\n{section.kind.value.capitalize()}: {_line(section.value[0].description)}\n"
            case griffe.DocstringSectionRaises():
                yield "\n| raises | when |\n|---|---|\n"
                yield from (f"| `{item.annotation}` | {_cell(item.description)} |\n" for item in section.value)
            case griffe.DocstringSectionExamples():
                yield f"\n```python\n{_program(str(section.value[0][1]))}\n```\n"


def _class(name: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    yield f"\n### `jobs.{name}`\n\n"
    assert found.docstring is not None
    text, *others = found.docstring.parsed
    bases = [str(base) for base in getattr(found, "bases", ())]
    is_enumeration = "StrEnum" in bases
    yield f"{text.value}\n"
    if issubclass(getattr(jobs, name), jobs.DarkroomError):
        yield f"\nDerives from {' and '.join(f'`{base}`' for base in bases)}.\n"
    for section in others:
        if isinstance(section, griffe.DocstringSectionExamples):
            yield f"\n```python\n{_program(str(section.value[0][1]))}\n```\n"
    if is_enumeration:
        yield "\n| member | value | meaning |\n|---|---|---|\n"
        yield from (f"| `{one.name}` | `{one.value}` | {_sentence(found[one.name])} |\n" for one in getattr(jobs, name))
    elif name != "Request" and (rows := [_row(member) for member in found.members.values() if _is_shown(member)]):
        yield f"\n| attribute | type | meaning |\n|---|---|---|\n{''.join(rows)}"
    for member in found.members.values():
        if member.is_function and not member.name.startswith("_") and not _is_internal(member, name):
            yield f"\n#### `{name}.{member.name}`\n\n```python\n{_signature(member)}\n```\n\n{_text(member)}\n"


def shown_names(name: str) -> Iterator[str]:
    """The attributes and methods of a public class that its section shows."""
    for member in _package()[name].members.values():
        is_method = member.is_function and not member.name.startswith("_") and not _is_internal(member, name)
        if is_method or _is_shown(member):
            yield member.name


def _row(member: griffe.Object | griffe.Alias) -> str:
    return f"| `{member.name}` | {_cell(f'`{member.annotation}`')} | {_sentence(member)} |\n"


def _is_shown(member: griffe.Object | griffe.Alias) -> bool:
    """Whether an attribute is a user's business."""
    return member.is_attribute and not member.name.startswith("_") and not _text(member).startswith("internal")


def _is_internal(method: griffe.Object | griffe.Alias, owner: str) -> bool:
    """Whether a method of a value is a step of Darkroom's own: it takes the time, or returns the changed value."""
    names = {parameter.name for parameter in method.parameters}
    return owner == "Request" or "now" in names or str(method.returns) == owner


def _signature(function: griffe.Object | griffe.Alias) -> str:
    arguments = _arguments(function)
    returns = f" -> {function.returns}"
    line = f"def {function.name}({', '.join(arguments)}){returns}: ..."
    if len(line) <= 100:
        return line
    return f"def {function.name}(\n{''.join(f'    {argument},' + chr(10) for argument in arguments)}){returns}: ..."


def _arguments(function: griffe.Object | griffe.Alias) -> list[str]:
    """The parameters as they are written, without `self`."""
    found: list[str] = []
    for parameter in function.parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and "*" not in found:
            found.append("*")
        default = "" if parameter.default is None else f" = {parameter.default}"
        found.append(f"{parameter.name}: {parameter.annotation}{default}")
    return found


def _requests(shown: Collection[str]) -> Iterator[str]:
    """A section for each request class, from what `jobs.operations()` says."""
    yield "\n## Request classes\n\nEach is a frozen pydantic model in `jobs.providers.<provider>`.\n"
    for operation in operations():
        if operation.provider in shown:
            yield from _request(operation)


def _request(operation: Operation) -> Iterator[str]:
    yield f"\n### `{operation.provider}.{operation.request.__name__}`\n\n{operation.description}\n\n"
    yield f"- operation: `{operation.name}`\n- price: {operation.price}\n- result: {operation.result}\n"
    yield f"- deadline: {operation.deadline_seconds:g} seconds, unless the job says otherwise\n"
    yield "\n| field | takes | default | meaning |\n|---|---|---|---|\n"
    for field in operation.fields:
        default = "required" if field.required else f"`{field.default!r}`"
        yield f"| `{field.name}` | {_cell(field.type)} | {default} | {_cell(field.description)} |\n"
    yield f"\n```python\n{operation.python_example}\n```\n"


def _program(example: str) -> str:
    """A doctest as a program: without prompts, what it prints as comments."""
    lines = (line[4:] if line.startswith((">>> ", "... ")) else f"# {line}" for line in example.splitlines())
    return "\n".join(lines)


def _text(found: griffe.Object | griffe.Alias) -> str:
    return found.docstring.value if found.docstring else ""


def _sentence(found: griffe.Object | griffe.Alias) -> str:
    text = _cell(_text(found)).rstrip(".")
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
