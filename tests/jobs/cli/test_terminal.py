"""How the commands read on a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from jobs import Failure, Status, providers
from jobs.darkroom import Darkroom
from jobs.embedded.stack import Stack
from jobs.report import Code
from jobs.values import replace

Command = Callable[..., Any]

GENERATE = ("deepmode.generate", "-p", "model_id=b8a9", "-p", "prompt=a lake at dawn")
FACE = "deepmode.face-id-remix"


def overlong(lines: Sequence[str]) -> list[str]:
    """The lines that do not fit, apart from those with a URL, which is never broken."""
    return [line for line in lines if len(line) > 80 and "://" not in line]


@pytest.fixture
def job_id(darkroom: Command, whole: Stack) -> str:
    """A job that succeeded."""
    succeeded: str = darkroom(
        "enqueue", *GENERATE, "-p", "num_images=2", "--metadata", "user=42", "--wait", "--json"
    ).json["id"]
    return succeeded


def test_get_prints_each_fact_on_a_line(terminal: Command, job_id: str) -> None:
    ended = terminal("get", job_id)
    lines = ended.lines
    assert ended.code == 0
    assert lines[:3] == [f"job        {job_id}", "operation  deepmode.generate", "status     succeeded"]
    assert re.fullmatch(r"created    \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, [\d.]+ s ago", lines[3])
    assert re.fullmatch(r"finished   \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, after [\d.]+ s", lines[4])
    assert lines[5:8] == ["images     2 of 2 stored", "cost       1 credit", "metadata   user=42"]
    assert lines[8:11] == ["", "Ledger", "  1  succeeded; charged: yes; cost: 1 credit"]
    assert "Timeline" in lines
    assert any(re.fullmatch(r" +\d+\.\d\d s  submitting 1", line) for line in lines)
    assert not overlong(lines)


def test_a_url_is_whole_on_a_line_of_its_own(terminal: Command, job_id: str, darkroom: Command) -> None:
    lines = terminal("get", job_id).lines
    urls = [line.strip() for line in lines if "http" in line]
    keys = [artifact["key"] for artifact in darkroom("get", job_id, "--json").json["artifacts"]]
    assert len(urls) == len(keys) == 2
    for url, key in zip(urls, keys, strict=True):
        assert re.fullmatch(rf"http://\S+/files/{re.escape(key)}\?expires=\d+&signature=[0-9a-f]{{64}}", url)


def test_waiting_on_a_terminal_shows_the_job_live_and_then_whole(terminal: Command, whole: Stack) -> None:
    ended = terminal("enqueue", *GENERATE, "--wait")
    assert ended.code == 0
    assert "waits for" in ended.out
    assert "status     succeeded" in ended.lines


def test_a_narrow_list_takes_two_lines_a_job_and_breaks_no_word(
    terminal: Command, alone: Darkroom, darkroom: Command
) -> None:
    fields = {"identity_image": "https://example.com/i.jpg", "artwork_image": "https://example.com/a.jpg"}
    arguments = [f"-p{name}={url}" for name, url in (fields | {"mask_image": "https://example.com/m.jpg"}).items()]
    job_id = darkroom("enqueue", FACE, *arguments).out.strip()
    failure = Failure(Code.INVALID_REQUEST, "the identity image shows no face")
    alone.advance(
        job_id, lambda job, now: replace(job, status=Status.FAILED, error=failure, finished_at=now, wake_at=None)
    )
    first, second = terminal("list").lines
    assert first == f"{job_id}  {FACE}  failed"
    assert re.fullmatch(r"    \d+\.\d s ago, 0/1 images, cost: nothing, invalid_request", second)


def test_a_piped_list_is_one_line_a_job_without_trailing_blanks(
    piped: Command, alone: Darkroom, darkroom: Command
) -> None:
    ids = [darkroom("enqueue", *GENERATE).out.strip() for _ in range(3)]
    header, *lines = piped("list").lines
    assert header.startswith("job ")
    assert [line.split()[0] for line in lines] == ids[::-1]
    assert not [line for line in (header, *lines) if line != line.rstrip() or "\x1b" in line]


def test_a_long_error_is_wrapped_between_words_on_a_terminal_and_whole_in_a_pipe(
    terminal: Command, piped: Command, alone: Darkroom, darkroom: Command
) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    message = "the provider refused the request because of its content, and says that the prompt should be changed"
    failure = Failure(Code.MODERATED, message)
    alone.advance(
        job_id, lambda job, now: replace(job, status=Status.FAILED, error=failure, finished_at=now, wake_at=None)
    )
    lines = terminal("get", job_id).lines
    assert not overlong(lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("error "))
    assert " ".join(" ".join(lines[at : at + 2]).split()) == f"error moderated: {message}"
    assert f"error      moderated: {message}" in piped("get", job_id).lines


def test_doctor_prints_a_fix_whole_below_what_is_wrong(
    terminal: Command, alone: Darkroom, bare: pytest.MonkeyPatch
) -> None:
    lines = terminal("doctor").lines
    at = next(number for number, line in enumerate(lines) if re.match(r"broken +workers", line))
    assert "no worker is running, so jobs wait until their deadline" in lines[at]
    assert lines[at + 1].strip() == "fix: celery -A worker worker"
    assert not [line for line in overlong(lines) if "fix: " not in line]


@pytest.mark.parametrize("name", providers.operation_names())
def test_an_operation_is_described_within_80_columns_with_an_example_to_paste(
    terminal: Command, alone: Darkroom, darkroom: Command, name: str
) -> None:
    ended = terminal("operations", name)
    lines = ended.lines
    assert ended.code == 0
    assert lines[0] == name
    model = providers.operation(name).request
    shown: Mapping[str, bool] = {
        field: any(line.startswith(f"  {field}  ") for line in lines) for field in model.model_fields
    }
    assert all(shown.values()), shown
    start = next(number for number, line in enumerate(lines) if line.startswith("darkroom enqueue"))
    assert not overlong(lines[:start])
    example = shlex.split("\n".join(lines[start:]).replace("\\\n", " "))
    assert darkroom(*example[1:]).code == 0


def test_all_operations_are_listed_briefly_and_as_json(terminal: Command, darkroom: Command) -> None:
    lines = terminal("operations").lines
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(providers.operation_names())
    assert not overlong(lines)
    described = darkroom("operations", "--json")
    assert described.code == 0
    assert {"name", "price", "schema", "example"} <= described.json.keys()


def test_the_webhooks_of_a_job_are_described(terminal: Command, alone: Darkroom, darkroom: Command) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    assert (
        terminal("deliveries", job_id).out == f"job {job_id} sends no webhooks: it was enqueued without a webhook_url\n"
    )
    hook = ("--webhook-url", "https://app.example.com/hook")
    job_id = darkroom("enqueue", *GENERATE, *hook).out.strip()
    assert terminal("deliveries", job_id).out == (
        f"job {job_id} has sent no webhook yet: it is queued, and sends one when it is succeeded, failed or canceled\n"
    )
    darkroom("cancel", job_id)
    lines = terminal("deliveries", job_id).lines
    assert lines[0] == "to https://app.example.com/hook"
    assert lines[2].endswith("  canceled")
    assert re.fullmatch(r"    next try in \d+\.\d s, 0 tries so far", lines[3])
