"""`darkroom providers`: the list, the checks, and one real call, against the sandbox."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import providers
from jobs.cli import run
from jobs.sandbox import Sandbox

PAYLOADS = Path(__file__).parents[1] / "providers" / "payloads"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def darkroom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one command line in an empty folder, without any setting; returns its exit code, stdout and stderr."""
    prefixes = ("DARKROOM_", *(f"{name.upper()}_" for name in providers.names()))
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def played(darkroom: Command, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The commands, with a key and a base URL of the sandbox for each provider that it plays."""
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    return darkroom


def test_each_provider_is_listed_with_its_operations(darkroom: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTA_API_KEY", "k")

    code, printed, _ = darkroom("providers")

    assert code == 0
    lines = {line.split()[0]: line for line in printed.splitlines()}
    for name in providers.names():
        rows = [line.split() for line in printed.splitlines()]
        assert all([name, operation] in [row[:2] for row in rows] for operation in providers.provider(name).operations)
        assert ("not set" in lines[name]) is (name != "phota")


@pytest.mark.parametrize("name", providers.names())
def test_a_provider_that_conforms_passes(darkroom: Command, name: str) -> None:
    code, printed, remarks = darkroom("providers", "check", name, "--payloads", str(PAYLOADS / name))

    assert (code, printed) == (0, "")
    assert f"{name}: " in remarks
    assert "checks passed" in remarks


def test_what_is_missing_is_named_one_line_each(darkroom: Command, tmp_path: Path) -> None:
    code, printed, remarks = darkroom("providers", "check", "aimlapi", "--payloads", str(tmp_path / "payloads"))

    assert code == 1
    assert f"add {tmp_path}/payloads/submit-*.json: an answer to a submit of aimlapi.reve-remix" in printed.splitlines()
    assert all(line.startswith("add ") for line in printed.splitlines())
    assert f"{len(printed.splitlines())} of " in remarks


def test_a_wrong_expectation_is_shown_with_both_values(darkroom: Command, tmp_path: Path) -> None:
    shutil.copytree(PAYLOADS / "aimlapi", tmp_path / "payloads")
    file = tmp_path / "payloads" / "submit-null-data.json"
    payload = json.loads(file.read_text())
    payload["report"]["charged"] = "no"
    file.write_text(json.dumps(payload))

    code, printed, _ = darkroom("providers", "check", "aimlapi", "--payloads", str(file.parent))

    assert code == 1
    assert printed == f"{file}: report.charged is 'unknown', but the file says 'no'\n"


def test_an_unknown_provider_is_refused_with_the_known_ones(darkroom: Command) -> None:
    code, _, remarks = darkroom("providers", "check", "nobody")

    assert code == 2
    assert all(name in remarks for name in providers.names())


# One real call ----------------------------------------------------------------------------------------------------


def check(command: Command, name: str, *arguments: str) -> tuple[int, str, str]:
    return command("providers", "check", name, "--payloads", str(PAYLOADS / name), "--call", *arguments)


@pytest.mark.parametrize(
    ("name", "operation", "cost"),
    [
        ("aimlapi", "aimlapi.reve-remix", "expected cost: unknown"),
        ("chainhub", "chainhub.ideogram-remix", "expected cost: unknown"),
        ("phota", "phota.remix", "expected cost: $0.24"),
        ("deepmode", "deepmode.generate", "expected cost: 1 credit"),
        ("deepmode", "deepmode.face-id-remix", "expected cost: 1 credit"),
    ],
)
def test_one_call_brings_images(played: Command, sandbox: Sandbox, name: str, operation: str, cost: str) -> None:
    code, printed, remarks = check(played, name, "--yes", "--operation", operation)

    assert code == 0, remarks
    assert f"this submits {operation} once to {sandbox.url}/{name}; {cost}" in remarks
    assert "succeeded: " in printed
    assert sandbox.url in printed
    assert [one["operation"] for one in sandbox.submissions()] == [operation]


def test_a_field_of_the_call_can_be_given(played: Command, sandbox: Sandbox) -> None:
    check(played, "aimlapi", "--yes", "-p", "prompt=a lake at dawn")

    assert [one["prompt"] for one in sandbox.submissions()] == ["a lake at dawn"]


@pytest.mark.parametrize("answer", ["", "n\n"])
def test_nothing_is_sent_without_consent(
    played: Command, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))

    code, _, remarks = check(played, "aimlapi")

    assert code == 130
    assert "expected cost" in remarks
    assert sandbox.submissions() == []


def test_nothing_is_sent_without_a_key(darkroom: Command) -> None:
    code, _, remarks = check(darkroom, "aimlapi", "--yes")

    assert code == 2
    assert "AIMLAPI_API_KEY" in remarks


def test_one_of_several_operations_has_to_be_chosen(played: Command, sandbox: Sandbox) -> None:
    code, _, remarks = check(played, "deepmode", "--yes")

    assert code == 2
    assert "--operation: deepmode.generate, deepmode.face-id-remix" in remarks
    assert sandbox.submissions() == []


def test_a_failure_says_whether_it_was_charged(played: Command, sandbox: Sandbox) -> None:
    sandbox.arm("data-null@aimlapi*1")

    code, _, remarks = check(played, "aimlapi", "--yes")

    assert code == 1
    assert "failed: provider_error: AIML API answered without an image (charged: unknown)" in remarks


def test_a_lost_answer_may_have_been_charged(played: Command, sandbox: Sandbox) -> None:
    sandbox.arm("drop@aimlapi*1")

    code, _, remarks = check(played, "aimlapi", "--yes")

    assert code == 1
    assert "the call may have been charged" in remarks


def test_a_provider_that_cannot_be_reached_was_sent_nothing(
    played: Command, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("AIMLAPI_BASE_URL", f"http://127.0.0.1:{free_port}")

    code, _, remarks = check(played, "aimlapi", "--yes")

    assert code == 1
    assert "nothing was sent" in remarks
