"""What no module may do: each has its place, only the settings read the environment, and exceptions have their reasons."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jobs", "worker", "webhooks")
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
#: a new provider is one file: it is named in no contract
OPEN = "jobs.providers"

#: what reads or writes the environment, by the module that has it
_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv", "expandvars"}
_OF_OS = {"os", "posix", "os.path", "posixpath"}
#: what tells the time, or draws a random number, without an import that a contract forbids
_CLOCK = {"now", "utcnow", "today", "uuid1", "uuid4", "urandom", "getrandom", "monotonic", "perf_counter", "time_ns"}


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """The path and the code of each module below these folders."""
    for folder in folders:
        path = ROOT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def imported(module: ast.Module) -> dict[str, str]:
    """What each name of a module is imported as: `system: os`, `environ: os.environ`."""
    found = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reads_environment(module: ast.Module) -> bool:
    """Whether it names the environment, under whatever name it imported it."""
    names = imported(module)
    if any(
        origin.rpartition(".")[0] in _OF_OS and origin.rpartition(".")[2] in _ENVIRONMENT for origin in names.values()
    ):
        return True
    if "pydantic_settings" in {origin.partition(".")[0] for origin in names.values()}:
        return True
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in _ENVIRONMENT
        and ast.unparse(node.value).replace(*_alias(node.value, names)) in _OF_OS
        for node in ast.walk(module)
    )


def _alias(node: ast.expr, names: dict[str, str]) -> tuple[str, str, int]:
    first = ast.unparse(node).partition(".")[0]
    return first, names.get(first, first), 1


def reads_home(module: ast.Module) -> bool:
    """Whether it looks up the user's home, which the environment says."""
    return any(isinstance(node, ast.Attribute) and node.attr in ("home", "expanduser") for node in ast.walk(module))


def asks_for_the_time(module: ast.Module) -> bool:
    """Whether it calls a clock or draws a random number."""
    return any(
        isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in _CLOCK
        for node in ast.walk(module)
    )


def test_only_the_settings_read_the_environment() -> None:
    assert [path for path, module in modules(*PACKAGES) if reads_environment(module)] == ["jobs/settings.py"]


def test_only_the_settings_and_the_command_line_look_up_the_home_folder() -> None:
    readers = [path for path, module in modules(*PACKAGES) if reads_home(module)]
    assert readers == ["jobs/cli/request_arguments.py", "jobs/settings.py"]  # `-p photo=@~/photo.jpg`, and defaults


PURE = next(one["source_modules"] for one in CONTRACTS if one["name"].startswith("The pure modules"))


def test_the_pure_modules_are_these() -> None:
    assert set(PURE) >= {f"jobs.{name}" for name in ("job", "attempt", "images", "report", "delivery", "transitions")}
    for name in PURE:
        assert importlib.util.find_spec(name), name


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_asks_neither_a_clock_nor_chance(name: str) -> None:
    path = name.replace(".", "/")
    found = modules(path if (ROOT / path).is_dir() else f"{path}.py")
    assert [path for path, module in found if asks_for_the_time(module)] == []


@pytest.mark.parametrize(
    ("reads", "code"),
    [
        (reads_environment, "import os\nos.environ['A']"),
        (reads_environment, "import os as system\nsystem.getenv('A')"),
        (reads_environment, "import os.path\nos.path.expandvars('$A')"),
        (reads_environment, "from os import environ as settings"),
        (reads_environment, "from os.path import expandvars"),
        (reads_environment, "import posix\nposix.environ"),
        (reads_environment, "from pydantic_settings import BaseSettings"),
        (reads_home, "from pathlib import Path\nPath.home()"),
        (asks_for_the_time, "from datetime import datetime, UTC\ndatetime.now(UTC)"),
        (asks_for_the_time, "import datetime\ndatetime.date.today()"),
        (asks_for_the_time, "from uuid import uuid4\nuuid4()"),
        (asks_for_the_time, "import os\nos.urandom(3)"),
    ],
)
def test_it_is_seen_under_any_name(reads: Callable[[ast.Module], bool], code: str) -> None:
    assert reads(ast.parse(code))


def test_what_a_request_brings_is_not_the_environment() -> None:
    assert not reads_environment(ast.parse("def view(request, stack): return request.environ, stack.environ, environ"))


# Contracts ----------------------------------------------------------------------------------------------------------


def test_each_package_has_a_contract_that_names_every_module() -> None:
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for name in PACKAGES
        for file in (ROOT / name).rglob("__init__.py")
        if len(list(file.parent.glob("*.py"))) > 1
    }
    exhaustive = {name for one in CONTRACTS if one.get("exhaustive") for name in one["containers"]}
    assert packages - {OPEN} == exhaustive


def test_no_contract_lists_exceptions() -> None:
    assert [one["name"] for one in CONTRACTS if set(one) & {"ignore_imports", "exhaustive_ignores"}] == []


PROVIDERS = [file.stem for file in (ROOT / "jobs/providers").glob("[a-z]*.py")]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_one_file_that_knows_only_the_contract(name: str) -> None:
    [(_, module)] = modules(f"jobs/providers/{name}.py")
    others = {other for other in PROVIDERS if other != name}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            assert not others & {*(node.module or "").split("."), *(alias.name for alias in node.names)}


# Reasons ------------------------------------------------------------------------------------------------------------

_TRACKED = subprocess.run(
    ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.split() or [path for path, _ in modules(*PACKAGES, "tests", "docs")]
_EXCEPTION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma:|pyright:|mypy:|ruff:|nosec)(?P<rest>.*)")
_WITH_REASON = re.compile(r":?\s*(\[[a-z, -]+\]|[A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*)( - |  # )\S+")


def unexplained(line: str) -> bool:
    """Whether a line turns off a check without saying which, and why."""
    found = _EXCEPTION.search(line)
    return bool(found and not _WITH_REASON.match(found["rest"]))


def test_every_exception_of_a_check_has_its_reason_beside_it() -> None:
    # mypy does not check the tests: what they ignore is for editors.
    for path in _TRACKED:
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            is_for_editors = path.startswith("tests/") and "type: ignore" in line
            assert is_for_editors or path == "tests/test_layout.py" or not unexplained(line), f"{path}:{number}: {line}"


@pytest.mark.parametrize(
    ("line", "is_unexplained"),
    [
        ("x = 1  # noqa", True),
        ("x = 1  # noqa: S101", True),
        ("x = 1  # noqa: S101 - stated for the type checker", False),
        ("x = 1  # type: ignore", True),
        ("x = 1  # type: ignore[misc]", True),
        ("x = 1  # type: ignore[misc, arg-type]  # Celery has no types", False),
        ("x = 1  # pragma: no cover", True),
        ("x = 1  # a comment", False),
    ],
)
def test_an_exception_without_a_reason_is_seen(line: str, is_unexplained: bool) -> None:
    assert unexplained(line) is is_unexplained
