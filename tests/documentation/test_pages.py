"""Every page: its links and anchors lead somewhere, its code parses, and the commands and files that it names exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

import click
import pytest
import yaml
from documentation.pages import ROOT, Block, Page, blocks, pages

import jobs
from jobs import providers
from jobs.cli import darkroom
from jobs.settings import Settings

#: languages of data, and what reads them
PARSERS: Mapping[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
#: languages of code blocks that a test checks
CHECKED = {"python", "sh", "js", "ini", *PARSERS}
#: read by people only: pictures, and what programs print or read that cannot run here
SHOWN = {"mermaid", "text", "nginx", "http"}
#: programs that a shell block may call, besides `darkroom`
PROGRAMS = {
    *("cd", "mkdir", "export", "set", ".", "echo", "cat", "rm", "for", "done", "do", "git", "pip", "uv", "python"),
    *("docker", "curl", "openssl", "celery", "granian", "make", "flask", "node", "npm", "systemctl", "nginx", "kill"),
    *("redis-cli", "sed", "grep", "ps", "sudo", "while", "ID=", "key=", "wait", "cp", "tail", "pytest"),
}
SETTINGS = {f"DARKROOM_{field.upper()}" for field in Settings.model_fields} | {
    f"{name.upper()}_{field.upper()}"
    for name in providers.names()
    for field in ("api_key", "base_url", *providers.provider(name).options.model_fields)
}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_link_leads_somewhere(page: Page) -> None:
    for link in page.links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{page} links to {link}"
        assert target.is_relative_to(ROOT), f"{page} links to {link}"
        assert not anchor or anchor in Page(target).anchors, f"{page} links to {link}"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_file_that_it_names_exists(page: Page) -> None:
    for span in page.spans:
        if re.fullmatch(r"(?:jobs|worker|webhooks|tests|docs)/[\w/.-]+", span) and "<" not in span:
            assert (ROOT / span).exists(), f"{page} names {span}"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_code_block_has_a_language_that_is_known(page: Page) -> None:
    for block in page.blocks:
        assert block.language in CHECKED | SHOWN, block


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", blocks(*PARSERS), ids=str)
def test_data_parses(block: Block) -> None:
    assert PARSERS[block.language](block.text)


@pytest.mark.parametrize("block", blocks("ini"), ids=str)
def test_a_unit_is_made_of_sections_and_settings(block: Block) -> None:
    for line in block.text.splitlines():
        assert re.fullmatch(r"|#.*|\[\w+\]|\w+=.+", line), line


@pytest.mark.parametrize("block", blocks("js"), ids=str)
def test_javascript_parses(block: Block) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node on this machine")
    checked = subprocess.run(
        ["node", "--input-type=module", "--check"], input=block.text, capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_a_shell_block_parses_and_calls_programs_that_exist(block: Block) -> None:
    assert subprocess.run(["sh", "-n"], input=block.text, text=True, timeout=10).returncode == 0
    for line in _lines(block.text):
        program = re.sub(r"^(\w+=).*", r"\1", line.split()[0])
        if program == "darkroom":
            continue
        assert program in PROGRAMS or re.fullmatch(r"[A-Z_]+=", program) or program.startswith((".venv/bin/", "'", '"'))


def _lines(text: str) -> Iterator[str]:
    """The commands of a shell block: comments dropped, continued lines joined, text inside quotes and documents left out."""
    quoted = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        inside = bool(quoted)
        for character in line:
            if character in "'\"" and quoted in ("", character):
                quoted = "" if quoted else character
            elif character == "#" and not quoted:
                break
        if not inside and (bare := line.split(" #")[0].strip()) and not bare.startswith("#"):
            yield bare


def _calls() -> Iterator[tuple[Page, list[str]]]:
    """Every `darkroom ...` of the shell blocks and code spans of all pages, as words."""
    for page in pages():
        shell = [line for block in page.blocks if block.language == "sh" for line in _lines(block.text)]
        for code in (*shell, *page.spans):
            if found := re.search(r"(?:^|[/( ])darkroom ([a-z][^|;)]*)", code):
                yield page, shlex.split(found[1])


CALLS = list(_calls())


@pytest.mark.parametrize(
    ("page", "words"), CALLS, ids=lambda value: " ".join(value) if isinstance(value, list) else str(value)
)
def test_a_command_exists_and_takes_what_it_is_given(page: Page, words: list[str]) -> None:
    command: click.Command | None = darkroom
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        command = command.get_command(click.Context(command), rest.pop(0))
    assert command is not None, f"{page}: darkroom has no command {' '.join(words)}"
    if rest:  # a command that is only named is not called
        command.make_context(command.name, rest)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_setting_that_it_names_exists(page: Page) -> None:
    if str(page) == "CHANGELOG.md":
        return  # it names those that were
    prefixes = "|".join(["DARKROOM", *(name.upper() for name in providers.names())])
    assert set(re.findall(rf"\b(?:{prefixes})_[A-Z_]*[A-Z]\b", page.text)) <= SETTINGS


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_public_name_that_it_shows_exists(page: Page) -> None:
    shown = {found[1] for span in page.spans if (found := re.match(r"jobs\.([A-Za-z_]+)(?!\w*/)", span))}
    for block in page.blocks:
        if block.language == "python":
            shown |= {node.attr for node in ast.walk(ast.parse(block.text)) if _is_ours(node)}
    assert shown - {"providers"} <= set(jobs.__all__), page


def _is_ours(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jobs"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_make_target_exists(page: Page) -> None:
    shell = [line for block in page.blocks if block.language == "sh" for line in _lines(block.text)]
    named = {found[1] for line in (*shell, *page.spans) if (found := re.match(r"make ([a-z-]+)", line))}
    assert named <= TARGETS, page
