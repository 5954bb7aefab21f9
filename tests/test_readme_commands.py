"""What the README names exists: commands and their options, targets, settings, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from jobs import providers
from jobs.cli import darkroom
from jobs.sandbox.faults import PROVIDERS
from jobs.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CODE = [line for block in BLOCKS for line in block.splitlines()] + re.findall(
    r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL)
)
#: the rows of the settings table: the names in the first column, and the default
ROWS = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| (.+?) \|", README, re.MULTILINE)
NAMED = [name for names, _ in ROWS for name in re.findall(r"[A-Z_]+", names)]


def commands() -> Iterator[list[str]]:
    """Every `darkroom ...` that the README shows, as words."""
    for code in CODE:
        if found := re.search(r"(?:^|[ /])darkroom ([a-z].*)", code.split("#")[0]):
            yield shlex.split(found[1])


def options(vendor: str) -> set[str]:
    """The settings that a provider's own file brings."""
    fields = {"api_key", "base_url", *providers.provider(vendor).options.model_fields}
    return {f"{vendor.upper()}_{field.upper()}" for field in fields}


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 250


def test_its_first_code_is_ten_lines() -> None:
    first = README.split("```", 2)[1]
    assert first.startswith("python\nimport jobs\n")
    assert len(first.splitlines()) - 1 <= 10


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_a_command_exists_with_its_options(words: list[str]) -> None:
    command = darkroom.get_command(click.Context(darkroom), words[0])
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words[1])
    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_every_command_is_named() -> None:
    assert {words[0] for words in commands()} == set(darkroom.list_commands(click.Context(darkroom)))


def test_every_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found[1] for code in CODE if (found := re.match(r"make ([a-z]+)", code))}
    assert {"demo", "test", "check", "bench"} <= named <= targets


def test_its_settings_are_the_settings() -> None:
    ours = {f"DARKROOM_{field.upper()}" for field in Settings.model_fields}
    vendors = {name for name in providers.names() if name in PROVIDERS or f"{name.upper()}_API_KEY" in NAMED}
    assert sorted(NAMED) == sorted(ours.union(*map(options, vendors)))


@pytest.mark.parametrize(("names", "default"), ROWS)
def test_a_default_is_what_it_says(names: str, default: str) -> None:
    said = default.strip("`")
    for name in re.findall(r"[A-Z_]+", names):
        if (found := _default(name)) is not None:
            assert said == found.replace(str(Path.home()), "~")


def _default(name: str) -> str | None:
    """A setting's default as the table writes it; None for those that the table describes in words."""
    vendor, _, option = name.lower().partition("_")
    if option in {"api_key", "base_url"} or name == "DARKROOM_BROKER_URL":
        return None
    fields = Settings.model_fields if vendor == "darkroom" else providers.provider(vendor).options.model_fields
    value = fields[option].get_default(call_default_factory=True)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value) if str(value).strip("*") else "none"


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            *re.findall(r"\]\((?!http)([^)#]+)\)", README),
            *re.findall(r"`((?:jobs|tests|worker|webhooks)/[\w/.]+)`", README),
            "compose.yaml",
        }
    ),
)
def test_a_file_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_operation_is_in_its_table() -> None:
    for name in providers.operation_names():
        vendor = name.partition(".")[0]
        request = f"{vendor}.{providers.operation(name).request.__name__}"
        assert vendor not in PROVIDERS or f"| `{name}` | `{request}` |" in README
