"""One job step by step, from its claim to its stored images, and what follows when a worker dies between two steps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs import Charged, Code, Outcome, Status, StorageError, schedule, transitions
from jobs.attempt import Recovery
from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.report import Failed, Image, Running, Succeeded
from jobs.storage import FolderStorage


def reve(png: bytes, **fields: Any) -> aimlapi.ReveRemix:
    return aimlapi.ReveRemix(**{"image_urls": [png], "prompt": "a mug", **fields})


def ideogram(image: Any) -> chainhub.IdeogramRemix:
    return chainhub.IdeogramRemix(image_file=image, prompt="a beach")


def generate(images: int = 1) -> deepmode.Generate:
    return deepmode.Generate(model_id="m", prompt="a lake", num_images=images)


def remix(png: bytes) -> phota.Remix:
    return phota.Remix(
        input_image=png,
        reference_image=png,
        num_output_images=1,
        output_format="jpg",
        response_mode="urls",
    )


def test_a_job_goes_through_its_steps_in_order(worker: Any, png: bytes) -> None:
    job = worker.run(worker.enqueue(reve(png)))
    assert job.status is Status.SUCCEEDED
    assert worker.steps == [
        "claimed",
        "prepared",
        "on the ledger",
        "answered",
        "inline images stored",
        "reported",
        "image fetched",
        "image stored",
        "images tried",
        "stored",
    ]


def test_the_attempt_is_on_the_ledger_before_anything_is_sent(worker: Any, png: bytes, sandbox: Any) -> None:
    job = worker.enqueue(reve(png))
    worker.crashes_at = "on the ledger"
    with pytest.raises(BaseException, match="on the ledger"):
        worker.run(job)
    dead = worker.get(job)
    assert (dead.status, dead.attempts[0].outcome) == (Status.SUBMITTING, Outcome.SENDING)
    assert dead.attempts[0].holder == worker.holder
    assert sandbox.submissions() == []


def test_what_somebody_else_holds_is_left_alone(worker: Any, png: bytes, sandbox: Any) -> None:
    job = worker.enqueue(reve(png))
    worker.darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "another", now))
    held = worker.get(job)
    assert worker.run(job).version == held.version
    assert sandbox.submissions() == []


def test_a_message_for_a_job_that_needs_nothing_does_nothing(worker: Any, png: bytes, sandbox: Any) -> None:
    job = worker.run(worker.enqueue(reve(png)))
    assert worker.run(job).version == job.version
    assert len(sandbox.submissions()) == 1


def test_a_message_for_a_job_that_is_forgotten_does_nothing(worker: Any) -> None:
    worker.do(worker.runner.run("0" * 32))
    assert worker.steps == []


def test_a_job_canceled_while_its_inputs_are_prepared_is_not_sent(worker: Any, png: bytes, sandbox: Any) -> None:
    job = worker.enqueue(reve(png))
    worker.at["prepared"] = lambda: worker.darkroom.cancel(job.id)
    worker.run(job)
    assert worker.get(job).status is Status.CANCELED
    assert sandbox.submissions() == []


def test_a_provider_that_cannot_be_reached_was_surely_sent_nothing(
    new_worker: Callable[..., Any], png: bytes, free_port: int
) -> None:
    worker = new_worker({"AIMLAPI_BASE_URL": f"http://127.0.0.1:{free_port}"})
    job = worker.run(worker.enqueue(reve(png)))
    (attempt,) = job.attempts
    assert job.status is Status.QUEUED
    assert (attempt.outcome, attempt.charged) == (Outcome.NOT_SENT, Charged.NO)
    assert 0.5 <= (job.wake_at - attempt.ended_at).total_seconds() <= 1.5


def test_a_provider_that_cannot_be_reached_is_tried_until_the_deadline(
    new_worker: Callable[..., Any], png: bytes, free_port: int
) -> None:
    worker = new_worker({"AIMLAPI_BASE_URL": f"http://127.0.0.1:{free_port}"})
    job = worker.enqueue(reve(png))
    for _ in range(6):
        worker.darkroom.advance(job.id, lambda job, now: _due(job, now))
        job = worker.run(job)
    (attempt,) = job.attempts
    assert (job.status, attempt.first_number, attempt.number, attempt.times) == (Status.QUEUED, 1, 6, 6)
    assert (attempt.outcome, attempt.charged) == (Outcome.NOT_SENT, Charged.NO)


def _due(job: Any, now: Any) -> Any:
    return replace(job, wake_at=now - timedelta(seconds=1))


QUOTING = "refused: 'a golden canary sings at dawn' is not allowed"


def test_an_answer_that_quotes_the_prompt_is_kept_without_it(
    new_worker: Callable[..., Any], host: Any, png: bytes
) -> None:
    host.post("/v1/images/generations", json.dumps({"message": QUOTING}).encode(), status=400)
    worker = new_worker({"AIMLAPI_BASE_URL": host.url})
    job = worker.run(worker.enqueue(reve(png, prompt="a golden canary sings at dawn")))
    assert job.error.message.endswith("refused: '…' is not allowed")


def test_a_poll_that_quotes_the_prompt_is_kept_without_it(
    new_worker: Callable[..., Any], host: Any, png: bytes
) -> None:
    submitted = {"data": {"task_id": "t", "task_status": "processing"}}
    failed = {"data": {"task_id": "t", "task_status": "failed", "task_status_msg": QUOTING}}
    host.post("/ideogram/remix", json.dumps(submitted).encode(), status=200)
    host.put("/ideogram/task/t", json.dumps(failed).encode())
    worker = new_worker({"CHAINHUB_BASE_URL": host.url})
    request = chainhub.IdeogramRemix(image_file=png, prompt="a golden canary sings at dawn")
    job = worker.run(worker.enqueue(request))
    worker.darkroom.advance(job.id, lambda job, now: _due(job, now))
    worker.attend(worker.get(job))
    assert worker.get(job).error.message.endswith("refused: '…' is not allowed")


def test_answers_of_unknown_length_leave_room_to_fetch_their_images(
    new_worker: Callable[..., Any], host: Any, png: bytes
) -> None:
    url = host.put("/mug.png", png)
    host.post("/v1/images/generations", json.dumps({"data": [{"url": url}]}).encode(), status=200)
    worker = new_worker({"AIMLAPI_BASE_URL": host.url}, max_bytes_in_flight=64 << 20)
    jobs = [worker.enqueue(reve(png, prompt=f"mug {number}")) for number in range(3)]

    async def all_at_once() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*(worker.runner.run(job.id) for job in jobs))

    worker.do(all_at_once())
    assert {worker.get(job).status for job in jobs} == {Status.SUCCEEDED}


# Inputs -----------------------------------------------------------------------------------------------------------


def test_an_input_by_url_is_fetched_and_sent(worker: Any, host: Any, draw: Any, sandbox: Any) -> None:
    url = host.put("/in.webp", draw(kind="WEBP"))
    job = worker.run(worker.enqueue(ideogram(url)))
    assert job.status is Status.RUNNING
    assert host.asked == ["/in.webp"]
    assert sandbox.submissions()[0]["charged"]


@pytest.mark.parametrize("page", ["gone", "no image", "wrong kind", "too large"])
def test_an_input_that_can_never_be_had_fails_the_job_before_anything_is_sent(
    worker: Any, host: Any, draw: Any, sandbox: Any, page: str
) -> None:
    url = {
        "gone": lambda: host.put("/in.png", status=404),
        "no image": lambda: host.put("/in.png", b"<html>no</html>"),
        "wrong kind": lambda: host.put("/in.png", draw(kind="GIF")),
        "too large": lambda: host.put("/in.png", b"x" * 10_000_001),
    }[page]()
    job = worker.run(worker.enqueue(ideogram(url)))
    assert (job.status, job.error.code) == (Status.FAILED, Code.INVALID_REQUEST)
    assert job.error.message.startswith("image_file: ")
    assert job.attempts == ()
    assert sandbox.submissions() == []


def test_an_input_at_a_private_address_fails_the_job(new_worker: Callable[..., Any], host: Any, draw: Any) -> None:
    worker = new_worker(allowed_private_networks="10.1.0.0/16")
    job = worker.run(worker.enqueue(ideogram(host.put("/in.png", draw()))))
    assert (job.status, job.error.code) == (Status.FAILED, Code.INVALID_REQUEST)
    assert host.asked == []


@pytest.mark.parametrize("status", [503, 429])
def test_an_input_whose_host_is_down_is_retried_later(worker: Any, host: Any, sandbox: Any, status: int) -> None:
    job = worker.run(worker.enqueue(ideogram(host.put("/in.png", status=status))))
    assert (job.status, job.holder) == (Status.QUEUED, None)
    assert (job.wake_at - job.updated_at).total_seconds() == 5
    assert str(status) in job.timeline[-1].what
    assert sandbox.submissions() == []


def test_a_staged_input_that_is_gone_fails_the_job(worker: Any, png: bytes, sandbox: Any) -> None:
    job = worker.enqueue(reve(png))
    for staged in worker.darkroom.storage.list("staged/"):
        worker.darkroom.storage.delete(staged.key)
    ended = worker.run(job)
    assert (ended.status, ended.error.code) == (Status.FAILED, Code.INVALID_REQUEST)
    assert sandbox.submissions() == []


# The sweep brings --------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(new_worker: Callable[..., Any]) -> Any:
    """A worker with a public URL, where nothing listens."""
    return new_worker({"PHOTA_ASYNC": "true"}, public_url="http://127.0.0.1:9")


def test_a_job_past_its_deadline_ends(worker: Any, png: bytes) -> None:
    job = worker.enqueue(reve(png), deadline_seconds=1)
    time.sleep(1.1)
    ended = worker.attend(job)
    assert (ended.status, ended.error.code) == (Status.FAILED, Code.DEADLINE)


def test_a_running_job_is_polled_when_its_time_has_come_and_stored_at_once(
    worker: Any, png: bytes, sandbox: Any
) -> None:
    job = worker.run(worker.enqueue(ideogram(png)))
    assert job.status is Status.RUNNING
    assert worker.attend(job).version == job.version  # not yet
    worker.darkroom.advance(job.id, lambda job, now: _due(job, now))
    assert worker.attend(job).status is Status.SUCCEEDED


@pytest.mark.parametrize("fault", ["poll-500", "poll-drop", "poll-not-json", "poll-404"])
def test_a_poll_that_taught_nothing_is_repeated_later(worker: Any, png: bytes, sandbox: Any, fault: str) -> None:
    job = worker.run(worker.enqueue(ideogram(png)))
    worker.darkroom.advance(job.id, lambda job, now: _due(job, now))
    sandbox.arm(f"{fault}@chainhub*1")
    asked = worker.attend(job)
    assert asked.status is Status.RUNNING
    assert (asked.wake_at - asked.updated_at).total_seconds() >= 1


def test_a_poll_that_comes_to_a_worker_without_the_providers_key_is_passed_on(
    worker: Any, png: bytes, sandbox: Any, redis: Redis
) -> None:
    """Left in the due set it could come to the wrong workers for ever: their looks keep step with it."""
    job = worker.run(worker.enqueue(ideogram(png)))
    worker.darkroom.advance(job.id, lambda job, now: _due(job, now))
    job = worker.get(job)
    take = worker.darkroom.repository.take_from_lane
    assert take("chainhub", 10) == ()
    worker.do(worker.without_keys().attend(job, frozenset()))
    assert (take("chainhub", 10), take("chainhub", 10)) == ((job.id,), ())
    assert worker.run(job).status is Status.SUCCEEDED
    worker.do(worker.without_keys().attend(job, frozenset()))  # by then the record is another
    assert redis.zcard("darkroom:lane:chainhub") == 0


def test_a_job_whose_holder_lives_is_left_to_it(worker: Any, png: bytes) -> None:
    job = worker.enqueue(reve(png))
    worker.darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "another", now))
    held = worker.get(job)
    assert worker.attend(job, "another").version == held.version


def test_a_claim_of_the_dead_is_free_again(worker: Any, png: bytes) -> None:
    job = worker.enqueue(reve(png))
    worker.darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "another", now))
    freed = worker.attend(job)
    assert (freed.status, freed.holder, freed.attempts) == (Status.QUEUED, None, ())


def dead(worker: Any, request: Any, step: str = "on the ledger", **options: Any) -> Any:
    """A job over which its worker died at this step."""
    job = worker.enqueue(request, **options)
    worker.crashes_at = step
    with pytest.raises(BaseException, match=step):
        worker.run(job)
    worker.crashes_at = None
    return job


def test_an_attempt_of_the_dead_without_any_way_to_learn_of_it_is_unknown(worker: Any, png: bytes) -> None:
    ended = worker.attend(dead(worker, reve(png)))
    assert (ended.status, ended.error.code) == (Status.FAILED, Code.OUTCOME_UNKNOWN)
    assert ended.attempts[0].outcome is Outcome.UNKNOWN


def test_an_attempt_of_the_dead_is_sent_again_if_the_job_wants_that(worker: Any, png: bytes) -> None:
    job = worker.attend(dead(worker, reve(png), on_unknown="charge_again"))
    assert (job.status, transitions.next_number(job)) == (Status.QUEUED, 2)


def test_an_attempt_of_the_dead_that_can_still_call_back_runs_on(quick: Any) -> None:
    job = quick.attend(dead(quick, generate()))
    assert (job.status, job.attempts[0].recovery) == (Status.RUNNING, Recovery.CALLBACK)
    assert schedule.due_at(job) == job.deadline_at


def test_an_attempt_of_the_dead_under_a_key_is_sent_again_and_charged_once(
    quick: Any, png: bytes, sandbox: Any
) -> None:
    job = quick.attend(dead(quick, remix(png), step="answered"))
    assert (job.status, transitions.is_resend(job), transitions.next_number(job)) == (Status.QUEUED, True, 1)
    quick.darkroom.advance(job.id, lambda job, now: _due(job, now))
    again = quick.run(job)
    assert (again.status, again.attempts[0].times) == (Status.RUNNING, 2)
    (submission,) = sandbox.submissions()
    assert submission["details"]["repeats"] == 1


def test_an_attempt_under_a_key_is_never_sent_again_without_it(
    quick: Any, new_worker: Callable[..., Any], png: bytes, sandbox: Any
) -> None:
    """A worker whose settings changed, or are not yet those of the others."""
    job = quick.attend(dead(quick, remix(png), step="answered"))
    quick.darkroom.advance(job.id, lambda job, now: _due(job, now))
    left = new_worker().run(job)
    assert (left.status, transitions.is_resend(left), left.holder, left.attempts[0].times) == (
        Status.QUEUED,
        True,
        None,
        1,
    )
    quick.darkroom.advance(job.id, lambda job, now: _due(job, now))
    assert quick.run(job).status is Status.RUNNING
    assert len(sandbox.submissions()) == 1


def test_images_that_the_dead_had_stored_are_found(worker: Any, png: bytes, sandbox: Any) -> None:
    job = dead(worker, reve(png, convert_base64_to_url=False), step="inline images stored")
    assert worker.get(job).status is Status.SUBMITTING
    found = worker.attend(job)
    assert found.status is Status.SUCCEEDED
    assert found.artifacts[0].sha256 == sandbox.served()[0]["sha256"]


@pytest.mark.parametrize("step", ["reported", "image fetched", "image stored", "images tried"])
def test_a_storing_of_the_dead_is_done_again_and_stores_once(worker: Any, png: bytes, sandbox: Any, step: str) -> None:
    job = worker.attend(dead(worker, reve(png), step=step))
    assert (job.status, job.holder) == (Status.STORING, None)
    stored = worker.attend(job)
    assert stored.status is Status.SUCCEEDED
    assert len(worker.darkroom.storage.list(f"jobs/{job.id}/")) == 1
    assert len(sandbox.submissions()) == 1


# Storage away -----------------------------------------------------------------------------------------------------


class AwayStorage(FolderStorage):
    """A storage that is away for as many writes as it is told."""

    away = 1_000_000

    def put(self, key: str, content: bytes, **options: Any) -> Any:
        if self.away > 0:
            self.away -= 1
            raise StorageError(f"put {key}: no answer")
        return super().put(key, content, **options)


@pytest.fixture
def away(tmp_path: Path) -> Iterator[AwayStorage]:
    """A storage that is away."""
    return AwayStorage(tmp_path / "pictures")


def test_images_inside_an_answer_wait_in_the_spool_for_the_storage(
    worker: Any, png: bytes, away: AwayStorage, sandbox: Any
) -> None:
    job = worker.run(worker.enqueue(reve(png, convert_base64_to_url=False)), worker.with_images(storage=away))
    spool = worker.runner.images.spool
    assert job.status is Status.STORING
    assert spool.names() == (job.pending[0].source.name,)
    assert job.attempts[0].charged is Charged.YES
    away.away = 0
    worker.darkroom.advance(job.id, _all_due)
    stored = worker.run(job, worker.with_images(storage=away))
    assert stored.status is Status.SUCCEEDED
    assert stored.artifacts[0].sha256 == sandbox.served()[0]["sha256"]
    assert spool.names() == ()


def test_images_by_url_are_tried_again_until_the_storage_is_back(worker: Any, png: bytes, away: AwayStorage) -> None:
    runner = worker.with_images(storage=away)
    away.away = 2
    job = worker.run(worker.enqueue(reve(png)), runner)
    pauses = []
    while job.status is Status.STORING:
        assert job.holder is None
        pauses.append((job.wake_at - job.updated_at).total_seconds())
        worker.darkroom.advance(job.id, _all_due)
        job = worker.run(job, runner)
    assert job.status is Status.SUCCEEDED
    assert pauses == pytest.approx([1, 2], abs=0.5)


def _all_due(job: Any, now: Any) -> Any:
    return replace(_due(job, now), pending=tuple(replace(image, retry_at=None) for image in job.pending))


# Races ------------------------------------------------------------------------------------------------------------


def test_a_result_that_came_by_callback_first_makes_a_later_refusal_of_the_answer_nothing(worker: Any) -> None:
    job = worker.enqueue(generate())
    worker.darkroom.advance(job.id, lambda job, now: transitions.claimed(job, worker.holder, now))
    sent = worker.darkroom.advance(job.id, lambda job, now: transitions.submitting(job, worker.holder, now)).after
    called = worker.darkroom.report(job.id, 1, Succeeded((Image(0, url="http://127.0.0.1:9/x"),))).after
    worker.do(worker.runner._report(sent, 1, Failed(Code.PROVIDER_ERROR, "500", retryable=True), {}))
    after = worker.get(job)
    assert (after.status, after.attempts[0].outcome) == (called.status, Outcome.SUCCEEDED)
    worker.do(worker.runner._report(sent, 1, Running("x"), {}))
    assert worker.get(job).status is Status.STORING


def test_a_worker_whose_lease_ran_out_sends_nothing_and_gives_the_job_back(worker: Any, png: bytes) -> None:
    job = worker.enqueue(reve(png))
    silent = replace(worker.runner, lease_held=lambda: False)

    job = worker.run(job, silent)

    assert (job.status, job.holder, job.attempts) == (Status.QUEUED, None, ())
    assert worker.run(job).status is Status.SUCCEEDED
