"""The Lua scripts: each header is the truth about its script, and each key that a script touches is declared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.state import scripts

FILES = {path.stem: path.read_text() for path in sorted(Path(scripts.__file__).parent.glob("*.lua"))}
#: commands without a key
KEYLESS = {"TIME"}
_CALL = re.compile(r"redis\.call\(\s*'(\w+)'\s*(?:,\s*([^,)]*))?")
_LOCALS = re.compile(r"^ *local ([\w, ]+) = unpack\((KEYS|ARGV)[^)]*\)", re.MULTILINE)


def header(text: str) -> list[str]:
    lines = text.splitlines()
    return [line.removeprefix("--") for line in lines[: next(i for i, line in enumerate(lines) if line[:2] != "--")]]


def declared(text: str, heading: str) -> list[str]:
    """The names under the headings that begin with this word, in their order."""
    names, within = [], False
    for line in header(text):
        if re.match(r" [A-Z]{4,}", line):
            within = line.split()[0] == heading
        elif within and (match := re.match(r"   (\w+) ", line + " ")):
            names.append(match[1])
    return names


def unpacked(text: str, source: str) -> list[str]:
    """The names that the script gives to its keys, or to its arguments, in their order."""
    return [name.strip() for names, where in _LOCALS.findall(text) if where == source for name in names.split(",")]


@pytest.fixture(params=FILES)
def text(request: pytest.FixtureRequest) -> str:
    return FILES[request.param]


def test_every_script_is_loaded_by_its_name() -> None:
    assert {name: getattr(scripts, name.upper()) for name in FILES} == FILES
    assert len(FILES) == 7


def test_the_header_says_what_the_script_does_and_what_it_answers(text: str) -> None:
    lines = header(text)
    assert lines[0].strip().endswith((".", ",")), lines[0]
    headings = [line.split()[0] for line in lines if re.match(r" [A-Z]{4,}", line)]
    assert list(dict.fromkeys(headings)) == ["KEYS", "ARGV", "ANSWER"]


@pytest.mark.parametrize("source", ["KEYS", "ARGV"])
def test_the_header_names_keys_and_arguments_in_their_order(text: str, source: str) -> None:
    names: Sequence[str] = unpacked(text, source)
    # The first record of `create` is looked at before the loop over all jobs.
    names = [name for name in names if name != "first_record"]
    assert declared(text, source) == names
    assert len(set(names)) == len(names)


def test_every_key_that_is_touched_is_declared(text: str) -> None:
    keys = set(unpacked(text, "KEYS"))
    calls = _CALL.findall(text)
    assert len(calls) == text.count("redis.call(")
    for command, key in calls:
        assert command in KEYLESS or key.strip() in keys, f"{command} {key}"


def test_keys_and_arguments_are_used_by_name_only(text: str) -> None:
    body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert not re.search(r"(KEYS|ARGV)\[", body)
    for name in declared(text, "KEYS") + declared(text, "ARGV"):
        assert len(re.findall(rf"\b{name}\b", body)) > 1, f"{name} is declared and not used"
