"""The page on adding a provider shows the example as it is, and its commands work with it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

from documentation.pages import ROOT, page

from jobs.providers import Abilities, Operation
from jobs.providers import _conformance as conformance

PAGE = page("docs/how-to/add-a-provider.md")
EXAMPLE = ROOT / "docs" / "examples" / "acme"


def blocks(language: str) -> list[str]:
    return [block.text for block in PAGE.blocks if block.language == language]


def test_the_module_is_shown_as_it_is() -> None:
    assert blocks("python") == [(EXAMPLE / "darkroom_acme.py").read_text()]


def test_the_entry_point_is_shown_as_it_is() -> None:
    [shown] = map(tomllib.loads, blocks("toml"))
    whole = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())

    assert shown["project"] == whole["project"]


def test_payload_files_are_shown_as_they_are() -> None:
    recorded = [json.loads(file.read_text()) for file in (EXAMPLE / "payloads").iterdir()]

    assert blocks("json")
    assert all(json.loads(text) in recorded for text in blocks("json"))


def test_each_ability_and_each_kind_of_exchange_is_explained() -> None:
    assert [row[0].strip("`") for row in PAGE.rows("Abilities")] == [field.name for field in fields(Abilities)]
    assert {row[0].strip("`") for row in PAGE.rows("The payload files")} == set(conformance.KINDS)


def test_each_method_of_an_operation_is_explained() -> None:
    explained = PAGE.text.split("What each part does:", 1)[1].split("### Abilities", 1)[0]
    methods = {name for name in vars(Operation) if not name.startswith("_")} - {"abilities"}

    assert {name for name in methods if f"`{name}`" not in explained} == set()


def test_the_commands_work_with_the_example(tmp_path: Path) -> None:
    installed = tmp_path / "darkroom_acme-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: darkroom-acme\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[darkroom.providers]\nacme = darkroom_acme\n")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{EXAMPLE}", "HOME": str(tmp_path)}
    commands = [shlex.split(line) for line in blocks("sh")[0].splitlines()]
    assert [command[1] for command in commands] == ["providers", "providers"]

    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli", *command[1:]],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
