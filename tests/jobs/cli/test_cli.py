"""The commands, against real servers: what they print, and with which code they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import providers, transitions
from jobs.cli import run
from jobs.darkroom import Darkroom
from jobs.darkroom import current as current_darkroom
from jobs.embedded.files import write_env_file
from jobs.embedded.stack import Stack

GENERATE = ("deepmode.generate", "-p", "model_id=b8a9", "-p", "prompt=a lake at dawn")


@dataclass(frozen=True)
class Ended:
    """One command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Darkroom_ = Callable[..., Ended]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing of Darkroom's is set, in an empty folder."""
    prefixes = ("DARKROOM_", *(f"{name.upper()}_" for name in providers.names()))
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def darkroom(bare: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Darkroom_:
    """Runs one command line."""

    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run(arguments)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return command


@pytest.fixture
def alone(bare: pytest.MonkeyPatch, redis_url: str, tmp_path: Path) -> Iterator[Darkroom]:
    """A Redis and a folder, and no worker."""
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    bare.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/pictures")
    return current_darkroom()


@pytest.fixture
def whole(bare: pytest.MonkeyPatch, stack: Stack) -> Stack:
    """A running stack, which the commands find by their environment."""
    for name, value in stack.environ.items():
        if name.startswith("DARKROOM_"):
            bare.setenv(name, value)
    return stack


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "teal").save(file)
    return file


# Following a job to its end


def test_a_picture_of_yours_goes_out_and_the_remix_comes_back(darkroom: Darkroom_, whole: Stack, photo: Path) -> None:
    said = darkroom("enqueue", "aimlapi.reve-remix", "-p", "prompt=p", "-p", f"image_urls=@{photo}", "--wait", "--json")

    assert said.code == 0, said.err
    assert (said.json["status"], len(said.json["artifacts"])) == ("succeeded", 1)
    assert (whole.images / said.json["artifacts"][0]["key"]).is_file()


def test_enqueue_prints_the_id_alone_so_that_a_script_can_take_it(darkroom: Darkroom_, whole: Stack) -> None:
    said = darkroom("enqueue", *GENERATE, "--metadata", "user=42", "--idempotency-key", "order-17", "--deadline", "30")

    job_id = said.out.strip()
    assert f"darkroom watch {job_id}" in said.err
    assert darkroom("watch", job_id).code == 0
    shown = darkroom("get", job_id, "--json").json
    assert (shown["status"], shown["metadata"]) == ("succeeded", {"user": "42"})
    again = darkroom("enqueue", *GENERATE, "--metadata", "user=42", "--idempotency-key", "order-17")
    assert again.out.strip() == job_id


def test_get_shows_the_ledger_and_the_timeline(darkroom: Darkroom_, whole: Stack) -> None:
    job_id = darkroom("enqueue", *GENERATE, "--wait", "--json").json["id"]

    said = darkroom("get", job_id)
    for words in (job_id, "succeeded", "Ledger", "1 credit", "Timeline", "submitting 1", "Pictures", "image/jpeg"):
        assert words in said.out


def test_list_filters_by_status_and_operation(darkroom: Darkroom_, whole: Stack) -> None:
    job_id = darkroom("enqueue", *GENERATE, "--wait", "--json").json["id"]

    def listed(*options: str) -> list[str]:
        return [json.loads(line)["id"] for line in darkroom("list", "--json", *options).out.splitlines()]

    assert listed("--limit", "1") == [job_id]
    assert job_id in listed("--status", "succeeded", "--operation", "deepmode.generate")
    assert job_id not in listed("--status", "failed")
    assert job_id not in listed("--operation", "phota.remix")
    assert listed("--unknown") == []
    assert job_id in darkroom("list").out


def test_watch_tells_each_change_and_ends_with_the_last_job(darkroom: Darkroom_, whole: Stack) -> None:
    ids = [darkroom("enqueue", *GENERATE).out.strip() for _ in range(2)]
    said = darkroom("watch", *ids)
    assert said.code == 0
    assert all(f"{job_id} deepmode.generate succeeded" in said.err for job_id in ids)


def test_commands_find_the_stack_that_runs_in_their_folder(
    darkroom: Darkroom_, stack: Stack, bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # In the place of `.darkroom`; what `up` itself does, a test of its own sees.
    bare.setenv("DARKROOM_REDIS_URL", "")
    write_env_file(stack.folder, stack.environ)
    (tmp_path / ".darkroom").symlink_to(stack.folder)
    arguments = [sys.executable, "-m", "jobs.cli", "enqueue", *GENERATE, "--wait", "--json"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "with the stack that runs in .darkroom" in done.stderr
    assert json.loads(done.stdout)["status"] == "succeeded"


# Without a worker


def test_a_job_that_nobody_serves_says_so(darkroom: Darkroom_, alone: Darkroom) -> None:
    said = darkroom("enqueue", *GENERATE)
    assert said.code == 0
    assert "no worker serves deepmode.generate" in said.err
    assert "No worker serves this operation" in darkroom("get", said.out.strip()).out


def test_cancel_says_what_it_did(darkroom: Darkroom_, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    assert darkroom("cancel", job_id) == Ended(0, f"job {job_id} is canceled; nothing was charged\n", "")
    assert darkroom("cancel", job_id, "--json").json["status"] == "canceled"


def test_retry_puts_a_canceled_job_back(darkroom: Darkroom_, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    darkroom("cancel", job_id)
    assert darkroom("retry", job_id) == Ended(0, f"job {job_id}: it is submitted again\n", "")
    assert darkroom("get", job_id, "--json").json["status"] == "queued"


def test_retry_wants_a_word_where_it_may_be_charged_again(darkroom: Darkroom_, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    alone.advance(job_id, lambda job, now: transitions.claimed(job, "a-worker", now))
    alone.advance(job_id, lambda job, now: transitions.submitting(job, "a-worker", now))
    assert "the provider may charge it all the same" in darkroom("cancel", job_id).out

    refused = darkroom("retry", job_id)
    assert refused.code == 1
    assert "add --may-charge-again to accept a second charge" in refused.err
    assert darkroom("retry", job_id, "--may-charge-again").code == 0


def test_retry_of_a_job_that_still_runs_is_refused(darkroom: Darkroom_, alone: Darkroom) -> None:
    job_id = darkroom("enqueue", *GENERATE).out.strip()
    said = darkroom("retry", job_id)
    assert (said.code, said.err) == (
        1,
        f"error: job {job_id} is queued: only a failed or canceled job can be retried\n",
    )


def test_an_empty_list_is_no_error(darkroom: Darkroom_, alone: Darkroom) -> None:
    assert darkroom("list").code == 0
    assert darkroom("list", "--json") == Ended(0, "", "")
    assert darkroom("watch").code == 0


# Errors are one line


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("enqueue", "nobody.paints"), 2, "operation: unknown operation 'nobody.paints'; known are "),
        (("enqueue", *GENERATE, "-p", "num_images=9"), 2, "num_images: should be less than or equal to 8, not 9"),
        (("enqueue", *GENERATE, "--deadline", "0"), 2, "deadline_seconds: should be 1 to 604800 seconds, not 0"),
        (("enqueue", *GENERATE, "--metadata", "user"), 2, "--metadata: should be name=value, not 'user'"),
        (("get", "17"), 1, "no job has the id '17'"),
        (("cancel", "0" * 32), 1, "no job has the id '" + "0" * 32),
        (("get",), 2, "Missing argument 'ID'"),
        (("paint",), 2, "No such command 'paint'"),
    ],
)
def test_an_error_is_one_line_that_names_the_field(
    darkroom: Darkroom_, alone: Darkroom, arguments: tuple[str, ...], code: int, says: str
) -> None:
    said = darkroom(*arguments)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(f"error: {says}")
    assert "Traceback" not in said.err


def test_a_malformed_setting_is_named_with_an_example(darkroom: Darkroom_, bare: pytest.MonkeyPatch) -> None:
    bare.setenv("DARKROOM_REDIS_URL", "localhost:6379")
    said = darkroom("list")
    assert said.code == 2
    assert said.err.startswith("error: DARKROOM_REDIS_URL: not a valid Redis URL")
    assert "DARKROOM_REDIS_URL=redis://127.0.0.1:6379/0" in said.err


def test_a_redis_that_is_away_is_no_traceback(darkroom: Darkroom_, bare: pytest.MonkeyPatch, free_port: int) -> None:
    bare.setenv("DARKROOM_REDIS_URL", f"redis://127.0.0.1:{free_port}/0")
    said = darkroom("list")
    assert said.code == 1
    assert said.err.startswith(f"error: Redis at 127.0.0.1:{free_port}/0 is not available (")
    assert said.err.endswith("\nsee darkroom doctor\n")


def test_every_command_explains_itself(darkroom: Darkroom_) -> None:
    for name in ("demo", "up", "enqueue", "get", "watch", "list", "cancel", "retry", "doctor", "sandbox"):
        assert name in darkroom("--help").out
        assert "Usage: darkroom" in darkroom(name, "--help").out
