"""The commands against real servers: what they print, and their exit codes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import transitions
from jobs.cli import darkroom as group
from jobs.cli import run
from jobs.darkroom import Darkroom
from jobs.embedded.files import write_env_file
from jobs.embedded.stack import Stack

GENERATE = ("deepmode.generate", "-p", "model_id=b8a9", "-p", "prompt=a lake at dawn")

#: runs a command line
Command = Callable[..., Any]


# A job, from enqueue to its final status


def test_an_image_file_is_sent_and_its_remix_is_stored(darkroom: Command, whole: Stack, photo: Path) -> None:
    ended = darkroom(
        "enqueue", "aimlapi.reve-remix", "-p", "prompt=p", "-p", f"image_urls=@{photo}", "--wait", "--json"
    )

    assert ended.code == 0, ended.err
    assert (ended.json["status"], len(ended.json["artifacts"])) == ("succeeded", 1)
    assert (whole.images / ended.json["artifacts"][0]["key"]).is_file()


def test_enqueue_prints_only_the_id_on_stdout(darkroom: Command, whole: Stack) -> None:
    ended = darkroom(
        "enqueue",
        *GENERATE,
        "--metadata",
        "user=42",
        "--idempotency-key",
        "an-order-of-the-command-line",
        "--deadline",
        "30",
    )

    job_id = ended.out.strip()
    assert f"darkroom watch {job_id}" in ended.err
    assert darkroom("watch", job_id).code == 0
    shown = darkroom("get", job_id, "--json").json
    assert (shown["status"], shown["metadata"]) == ("succeeded", {"user": "42"})
    again = darkroom("enqueue", *GENERATE, "--metadata", "user=42", "--idempotency-key", "an-order-of-the-command-line")
    assert again.out.strip() == job_id


def test_every_option_of_a_job_can_be_given(darkroom: Command, alone: Darkroom) -> None:
    options = ("--webhook-url", "https://app.example.com/hook", "--webhook-events", "succeeded,failed")
    ended = darkroom("enqueue", *GENERATE, *options, "--on-unknown", "charge_again", "--keep-late", "--json")

    job = ended.json
    assert (job["webhook_url"], job["webhook_events"]) == ("https://app.example.com/hook", ["succeeded", "failed"])
    assert (job["on_unknown"], job["keep_late"]) == ("charge_again", True)


def test_metadata_may_be_json_and_digits_stay_text(darkroom: Command, alone: Darkroom) -> None:
    metadata = ("--metadata", "order=0017", "--metadata", 'tags=["a","b"]', "--metadata", "note={oops")
    assert darkroom("enqueue", *GENERATE, *metadata, "--json").json["metadata"] == {
        "order": "0017",
        "tags": ["a", "b"],
        "note": "{oops",
    }


def test_waiting_shows_each_status_and_what_the_job_waits_for(darkroom: Command, whole: Stack) -> None:
    ended = darkroom("enqueue", *GENERATE, "--wait")

    assert ended.code == 0, ended.err
    assert "deepmode.generate running, waits for the callback of the provider\n" in ended.err
    assert ended.err.splitlines()[-1].endswith("deepmode.generate succeeded")


def test_watch_shows_each_change_and_ends_with_the_last_job(darkroom: Command, whole: Stack) -> None:
    ids = [darkroom("enqueue", *GENERATE).out.strip() for _ in range(2)]
    ended = darkroom("watch", *ids, "--json")
    assert ended.code == 0
    assert all(f"{job_id} deepmode.generate succeeded" in ended.err for job_id in ids)
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == ids


def test_commands_find_the_stack_that_runs_in_their_folder(
    darkroom: Command, stack: Stack, bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # In the place of `.darkroom`; tests/test_up.py starts a real one.
    bare.setenv("DARKROOM_REDIS_URL", "")
    write_env_file(stack.folder, stack.environ)
    (tmp_path / ".darkroom").symlink_to(stack.folder)
    arguments = [sys.executable, "-m", "jobs.cli", "enqueue", *GENERATE, "--wait", "--json"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "using the stack that runs in .darkroom" in done.stderr
    assert json.loads(done.stdout)["status"] == "succeeded"


# Without a worker


def test_enqueue_warns_when_no_worker_serves_the_operation(darkroom: Command, alone: Darkroom) -> None:
    ended = darkroom("enqueue", *GENERATE)
    assert ended.code == 0
    assert "no worker serves deepmode.generate now" in ended.err
    waiting = [line for line in darkroom("get", ended.out.strip()).lines if line.startswith("waits for")]
    assert waiting == ["waits for  a worker that serves deepmode.generate; none is running"]


def test_cancel_says_whether_the_job_may_be_charged(darkroom: Command, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    ended = darkroom("cancel", job_id)
    assert (ended.code, ended.out) == (0, f"job {job_id} is canceled; nothing was charged\n")
    assert darkroom("cancel", job_id, "--json").json["status"] == "canceled"

    sent = enqueue_and_send(darkroom, alone)
    assert "the provider may still charge for it" in darkroom("cancel", sent).out


def test_retry_queues_a_canceled_job_again(darkroom: Command, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    darkroom("cancel", job_id)
    ended = darkroom("retry", job_id)
    assert (ended.code, ended.out) == (0, f"job {job_id}: a new attempt is sent\n")
    assert darkroom("get", job_id, "--json").json["status"] == "queued"


def test_retry_needs_consent_where_a_second_charge_is_possible(darkroom: Command, alone: Darkroom) -> None:
    job_id = enqueue_and_send(darkroom, alone)
    darkroom("cancel", job_id)

    refused = darkroom("retry", job_id)
    assert refused.code == 1
    assert "add --may-charge-again to accept a second charge" in refused.err
    assert darkroom("retry", job_id, "--may-charge-again").code == 0


def test_retry_of_a_queued_job_is_refused(darkroom: Command, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    ended = darkroom("retry", job_id)
    assert ended.code == 1
    assert ended.err.startswith(f"error: job {job_id} is queued")


def enqueue_and_send(darkroom: Command, alone: Darkroom) -> str:
    """A job whose first attempt was sent; its outcome is not known yet."""
    job_id: str = darkroom("enqueue", *GENERATE).out.strip()
    alone.advance(job_id, lambda job, now: transitions.claimed(job, "a-worker", now))
    alone.advance(job_id, lambda job, now: transitions.submitting(job, "a-worker", now))
    return job_id


# Errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("enqueue", "acme.paint"), 2, "operation: unknown operation 'acme.paint'"),
        (("operations", "acme.paint"), 2, "operation: unknown operation 'acme.paint'"),
        (("enqueue", *GENERATE, "-p", "num_images=9"), 2, "num_images: should be at most 8, not 9"),
        (("enqueue", *GENERATE, "-p", "promt=p"), 2, 'promt: unknown field; did you mean "prompt"?'),
        (("enqueue", *GENERATE, "--deadline", "0"), 2, "deadline_seconds: should be 1 to "),
        (("enqueue", *GENERATE, "--metadata", "user"), 2, "--metadata: should be NAME=VALUE, not 'user'"),
        (("enqueue", *GENERATE, "--webhook-url", "ftp://x"), 2, "webhook_url: "),
        (("enqueue", *GENERATE, "--webhook-events", "done"), 2, "webhook_events.0: "),
        (("list", "--since", "yesterday"), 2, "--since: 'yesterday' is neither an age, for example 30m, 2h or 7d"),
        (("get", "17"), 1, "no job has the id '17'"),
        (("cancel", "0" * 32), 1, "no job has the id '" + "0" * 32),
        (("get",), 2, "Missing argument 'ID'"),
        (("paint",), 2, "No such command 'paint'"),
        (("enqeue",), 2, "no command is named 'enqeue'; did you mean \"enqueue\"?"),
        (("list", "--status", "suceeded"), 2, "status: should be 'queued', 'submitting', 'running', 'storing', "),
        (("list", "--code", "moderate"), 2, "code: should be 'invalid_request', "),
    ],
)
def test_an_error_names_what_is_wrong(
    darkroom: Command, alone: Darkroom, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = darkroom(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"error: {message}")
    assert "Traceback" not in ended.err


def test_all_wrong_fields_are_listed_at_once_a_line_each(darkroom: Command, alone: Darkroom) -> None:
    fields = ("-p", "image_urls=photo.jpg", "-p", "promt=p", "-p", "aspect_ratio=square")
    ended = darkroom("enqueue", "aimlapi.reve-remix", *fields)
    assert ended.code == 2
    errors = ended.err.splitlines()
    assert "error: image_urls.0: 'photo.jpg' is not an https URL; to send a file, write @photo.jpg" in errors
    assert 'error: promt: unknown field; did you mean "prompt"?' in errors
    assert "error: prompt: required" in errors
    assert any(line.startswith("error: aspect_ratio: should be ") for line in errors)


def test_the_options_are_checked_even_if_a_field_is_wrong(darkroom: Command, alone: Darkroom) -> None:
    options = ("--metadata", "user", "--deadline", "0", "--webhook-url", "ftp://x", "--webhook-events", "suceeded")
    ended = darkroom("enqueue", "deepmode.generate", "-p", "prompt=p", *options)
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == [
        "model_id",
        "--metadata",
        "deadline_seconds",
        "webhook_url",
        "webhook_events.0",
    ]
    assert ended.err.endswith('did you mean "succeeded"?\n')


def test_a_malformed_setting_is_named_with_an_example(darkroom: Command, bare: pytest.MonkeyPatch) -> None:
    bare.setenv("DARKROOM_REDIS_URL", "localhost:6379")
    ended = darkroom("list")
    assert ended.code == 2
    assert ended.err.startswith("error: DARKROOM_REDIS_URL: not a valid Redis URL")
    assert "DARKROOM_REDIS_URL=redis://127.0.0.1:6379/0" in ended.err


def test_a_redis_that_does_not_answer_is_an_error_with_a_hint(
    darkroom: Command, bare: pytest.MonkeyPatch, free_port: int
) -> None:
    bare.setenv("DARKROOM_REDIS_URL", f"redis://127.0.0.1:{free_port}/0")
    ended = darkroom("list")
    assert ended.code == 1
    assert ended.err.startswith(f"error: Redis at 127.0.0.1:{free_port}/0 is not available (")
    assert ended.err.endswith("see darkroom doctor\n")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("option", [None, socket.SO_REUSEPORT])
def test_a_sandbox_on_a_port_that_is_taken_is_refused(darkroom: Command, free_port: int, option: int | None) -> None:
    with socket.socket() as holder:
        if option is not None:
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        ended = darkroom("sandbox", "--port", str(free_port))
    assert ended.code == 1
    assert ended.err == "error: the port is taken: another program listens on it; choose another one with --port\n"


# Help


def test_without_a_command_it_prints_its_help(darkroom: Command) -> None:
    ended = darkroom()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == darkroom("--help").out


@pytest.mark.parametrize(
    "name", group.list_commands(group.make_context("darkroom", ["--help"], resilient_parsing=True))
)
def test_every_command_explains_itself_and_its_help_fits_80_columns(darkroom: Command, name: str) -> None:
    [summary] = [line for line in darkroom("--help").lines if line.startswith(f"  {name} ")]
    assert not summary.endswith("...")
    ended = darkroom(name, "--help")
    assert "Usage: darkroom" in ended.out
    assert max(map(len, ended.lines)) <= 80


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("command", ["list", "list --json", "operations", "--help"])
def test_a_full_disk_is_an_error_without_a_traceback(alone: Darkroom, command: str) -> None:
    assert run(["enqueue", *GENERATE]) == 0
    command = f"{sys.executable} -m jobs.cli {command} > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "error: the output could not be written: No space left on device\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_ends_early_is_not_an_error_message(alone: Darkroom) -> None:
    for _ in range(20):
        assert run(["enqueue", *GENERATE]) == 0
    command = f"{sys.executable} -m jobs.cli list --json | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
