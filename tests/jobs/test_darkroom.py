"""What can be done with a job, on a real Redis and a folder."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from pydantic import SecretStr
from redis import Redis

import jobs
from jobs import Status, providers, queue, transitions
from jobs.darkroom import Darkroom, current
from jobs.errors import (
    ChargePossible,
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    NotPossible,
    StorageError,
)
from jobs.images import Artifact
from jobs.job import Job
from jobs.listing import MAX_RECORDS, Page
from jobs.new_job import MAX_DEADLINE_SECONDS, MAX_FIELD_CHARACTERS, MAX_METADATA_BYTES, MAX_METADATA_DEPTH, NewJob
from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.report import Charged, Code, Failed, Image, Running, Succeeded
from jobs.request import LocalImage, Request
from jobs.sandbox import VENDORS
from jobs.settings import Settings

URL = "https://example.com/photo.jpg"
SUCCESS = Succeeded((Image(0, url="https://provider.example/0"),))


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url,
        storage_url=f"file://{tmp_path}/images",
        public_url="https://darkroom.example",
        secret_keys=(SecretStr("a-secret-of-the-tests"),),
    )


@pytest.fixture
def darkroom(settings: Settings) -> Iterator[Darkroom]:
    with closing(Darkroom.open(settings)) as opened:
        yield opened


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], list[Path]]:
    """The files in the storage."""
    return lambda: [file for file in (tmp_path / "images").rglob("*") if file.is_file()]


def painted(kind: str = "PNG", color: str = "red") -> bytes:
    written = io.BytesIO()
    Pillow.new("RGB", (32, 24), color).save(written, kind)
    return written.getvalue()


def generate(**changes: Any) -> deepmode.Generate:
    return deepmode.Generate(**{"model_id": "m", "prompt": "a lake at dawn", **changes})


def remix(image: Any) -> chainhub.IdeogramRemix:
    return chainhub.IdeogramRemix(image_file=image, prompt="as a watercolor")


REQUESTS: dict[str, tuple[Request, int]] = {
    "deepmode.generate": (generate(num_images=3), 3),
    "deepmode.face-id-remix": (
        deepmode.FaceIdRemix(identity_image=URL, artwork_image=URL, mask_image=URL, prompt="cartoon"),
        1,
    ),
    "chainhub.ideogram-remix": (chainhub.IdeogramRemix(image_file=URL, prompt="p", num_images=2), 2),
    "phota.remix": (
        phota.Remix(
            input_image=URL, reference_image=URL, num_output_images=2, output_format="jpg", response_mode="urls"
        ),
        2,
    ),
    "aimlapi.reve-remix": (aimlapi.ReveRemix(image_urls=[URL], prompt="p"), 1),
}


def act(darkroom: Darkroom, job: Job, *changes: Callable[..., Job]) -> Job:
    for change in changes:
        job = darkroom.advance(job.id, change).after
    return job


def claim(job: Job, now: Any) -> Job:
    return transitions.claimed(job, "us", now)


def send(job: Job, now: Any) -> Job:
    return transitions.submitting(job, "us", now)


def keep(job: Job, now: Any) -> Job:
    return transitions.stored(job, 1, {0: Artifact(0, "jobs/k.png", "image/png", 1, "ab", 1, 1)}, now)


def succeed(darkroom: Darkroom, job: Job) -> Job:
    act(darkroom, job, claim, send)
    darkroom.report(job.id, 1, SUCCESS)
    return act(darkroom, job, keep)


# --- enqueue ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", REQUESTS)
def test_each_operation_is_enqueued_with_its_record_and_its_message(
    darkroom: Darkroom, redis: Redis, operation: str
) -> None:
    request, images = REQUESTS[operation]
    job = darkroom.enqueue(request)
    assert (job.operation, job.status, job.images_expected) == (operation, Status.QUEUED, images)
    assert job.params == request.params()
    assert job.deadline_at - job.created_at == timedelta(seconds=job.deadline_seconds)
    assert darkroom.get(job.id) == job
    (message,) = redis.lrange(f"darkroom.{job.provider}", 0, -1)
    assert json.loads(base64.b64decode(json.loads(message)["body"]))[0] == [job.id]


def test_every_operation_of_the_sandbox_is_tried_above() -> None:
    played = {name for name in providers.operation_names() if name.partition(".")[0] in VENDORS}

    assert set(REQUESTS) == played


def test_the_options_are_kept_on_the_job(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(
        generate(),
        metadata={"user": "42", "tags": ["a", None]},
        deadline_seconds=90,
        on_unknown="charge_again",
        keep_late=True,
        owner="shop",
    )
    stored = darkroom.get(job.id)
    assert stored.metadata == {"user": "42", "tags": ["a", None]}
    assert (stored.deadline_seconds, stored.on_unknown, stored.keep_late) == (90, "charge_again", True)
    assert (stored.owner, stored.timeline[0].what) == ("shop", "queued")


def test_an_enqueue_is_one_round_trip(darkroom: Darkroom, redis: Redis) -> None:
    darkroom.enqueue(generate())
    redis.config_resetstat()
    darkroom.enqueue(generate())
    calls = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 1
    asked_alone = {"cmdstat_get", "cmdstat_mget", "cmdstat_eval", "cmdstat_script|load", "cmdstat_publish"}
    assert not asked_alone & {name for name, count in calls.items() if count} - {"cmdstat_get"}


# --- images of the request --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_an_image_that_is_not_a_url_is_staged_under_its_digest(
    darkroom: Darkroom, stored: Callable[[], list[Path]], redis: Redis, tmp_path: Path, kind: str
) -> None:
    content = painted()
    (tmp_path / "photo.png").write_bytes(content)
    given = {"bytes": content, "path": tmp_path / "photo.png", "file": io.BytesIO(content)}[kind]
    job = darkroom.enqueue(remix(given))
    digest = hashlib.sha256(content).hexdigest()
    assert job.params["image_file"] == f"staged:{digest}.png"
    assert [file.read_bytes() for file in stored() if file.name == f"{digest}.png"] == [content]
    raw = redis.get(f"darkroom:job:{job.id}") + redis.lindex("darkroom.chainhub", 0)
    assert base64.b64encode(content)[:40] not in raw
    assert len(raw) < 3000


def test_the_same_image_is_staged_once(darkroom: Darkroom, stored: Callable[[], list[Path]]) -> None:
    for _ in range(3):
        darkroom.enqueue(remix(painted()))
    assert len([file for file in stored() if file.suffix == ".png"]) == 1


def test_each_image_of_a_list_is_staged_in_its_place(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(aimlapi.ReveRemix(image_urls=[painted(color="red"), URL, painted(color="blue")], prompt="p"))
    first, second, third = job.params["image_urls"]
    assert (first[:7], second, third[:7]) == ("staged:", URL, "staged:")
    assert first != third


def test_a_staged_reference_can_be_used_again(darkroom: Darkroom) -> None:
    reference = darkroom.enqueue(remix(painted())).params["image_file"]
    assert darkroom.enqueue(remix(reference)).params["image_file"] == reference


def test_an_unknown_reference_is_refused(darkroom: Darkroom, redis: Redis) -> None:
    with pytest.raises(InvalidRequest, match=r"image_file: staged:.*upload the image again"):
        darkroom.enqueue(remix(f"staged:{'0' * 64}.png"))
    assert redis.dbsize() == 0


def gif() -> bytes:
    return painted("GIF")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_file: "),
        (b"", "image_file: "),
        (painted()[:-30], "image_file: "),
        (gif(), "image_file: image/gif is not accepted; allowed: image/jpeg, image/png, image/webp"),
        ("http://example.com/a.png", "image_file: should be an https URL; the one at example.com is http"),
    ],
    ids=["svg", "empty", "cut", "gif", "http"],
)
def test_an_invalid_image_is_refused_and_nothing_is_written(
    darkroom: Darkroom, redis: Redis, stored: Callable[[], list[Path]], image: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue(remix(image))
    assert str(error.value).startswith(message)
    assert ([one.field for one in error.value.errors], redis.dbsize(), stored()) == (["image_file"], 0, [])


def test_an_image_over_the_providers_limit_is_refused(darkroom: Darkroom, stored: Callable[[], list[Path]]) -> None:
    limit = remix(URL).image_rules["image_file"].max_bytes
    with pytest.raises(InvalidRequest, match=f"allowed: .* of at most {limit} bytes"):
        darkroom.enqueue(remix(LocalImage(painted() + bytes(limit))))
    assert stored() == []


def test_one_bad_image_among_good_ones_stages_none(darkroom: Darkroom, stored: Callable[[], list[Path]]) -> None:
    with pytest.raises(InvalidRequest, match=r"image_urls\.1"):
        darkroom.enqueue(aimlapi.ReveRemix(image_urls=[painted(), b"no image"], prompt="p"))
    assert stored() == []


def test_all_faults_of_a_new_job_are_listed_at_once_and_nothing_is_written(
    darkroom: Darkroom, redis: Redis, stored: Callable[[], list[Path]]
) -> None:
    images = [painted(), b"not an image", "http://example.com/a.png"]
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue(
            aimlapi.ReveRemix(image_urls=images, prompt="p"),
            idempotency_key="a\nb",
            metadata={"at": object()},  # type: ignore[dict-item]
            deadline_seconds=0,
            webhook_url="ftp://example.com",
            webhook_events=["done"],
        )
    wrong = ["image_urls.1", "image_urls.2", "deadline_seconds", "metadata", "webhook_url", "webhook_events.0"]
    assert [one.field for one in error.value.errors] == ["idempotency_key", *wrong]
    assert (redis.dbsize(), stored()) == (0, [])


def test_all_faults_of_a_batch_are_listed_by_the_index_of_their_job(darkroom: Darkroom, redis: Redis) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue_many(
            [NewJob(generate(), deadline_seconds=0), NewJob(generate()), NewJob(remix(b"-"), webhook_events=["done"])]
        )
    assert [one.field for one in error.value.errors] == ["0.deadline_seconds", "2.image_file", "2.webhook_events.0"]
    assert redis.dbsize() == 0


def test_the_options_of_what_is_not_a_request_are_checked_too(darkroom: Darkroom) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue_many([NewJob("a lake", deadline_seconds=0, webhook_events=["done"])])  # type: ignore[arg-type]
    assert [one.field for one in error.value.errors] == ["0.request", "0.deadline_seconds", "0.webhook_events.0"]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"on_unknown": "charge_agian"}, "should be 'fail' or 'charge_again', not 'charge_agian'; did you mean "),
        ({"webhook_events": ["suceeded"]}, "not 'suceeded'; did you mean \"succeeded\"?"),
        ({"webhook_events": "cancelled"}, "not 'cancelled'; did you mean \"canceled\"?"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest_allowed_value(
    darkroom: Darkroom, options: dict[str, Any], hint: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue(generate(), **options)
    assert hint in str(error.value)


def test_a_status_that_is_named_twice_sends_one_webhook(darkroom: Darkroom) -> None:
    assert darkroom.enqueue(generate(), webhook_events=iter(["failed", "failed"])).webhook_events == ("failed",)


def test_what_is_not_a_request_is_named(darkroom: Darkroom) -> None:
    with pytest.raises(InvalidRequest, match=r"^request: should be a request, .* not str$"):
        darkroom.enqueue("a lake")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue_many([generate(), NewJob(None), NewJob(generate())])  # type: ignore[list-item, arg-type]
    assert str(error.value).splitlines() == [
        "0: should be a jobs.NewJob, not Generate; write jobs.NewJob(request)",
        "1.request: should be a request, for example deepmode.Generate, not NoneType",
    ]


def test_an_empty_batch_makes_no_jobs(darkroom: Darkroom) -> None:
    assert darkroom.enqueue_many([]) == ()


# --- options ----------------------------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    """An object in an object, so many levels deep."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_metadata_of_the_deepest_nesting_comes_back(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate(), metadata=nested(MAX_METADATA_DEPTH))
    assert darkroom.get(job.id).metadata == nested(MAX_METADATA_DEPTH)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": -5}, "deadline_seconds"),
        ({"deadline_seconds": MAX_DEADLINE_SECONDS + 1}, "deadline_seconds"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds"),
        ({"deadline_seconds": float("inf")}, "deadline_seconds"),
        ({"metadata": {"x": "y" * MAX_METADATA_BYTES}}, "metadata"),
        ({"metadata": {"x": object()}}, "metadata"),
        ({"metadata": {"x": float("nan")}}, "metadata"),
        ({"metadata": {"x": "\ud800"}}, "metadata"),
        ({"metadata": {1: "x"}}, "metadata"),
        ({"metadata": ["x"]}, "metadata"),
        ({"metadata": [("x", 1)]}, "metadata"),
        ({"metadata": nested(MAX_METADATA_DEPTH + 1)}, "metadata"),
        ({"metadata": nested(sys.getrecursionlimit())}, "metadata"),
        ({"deadline_seconds": "600"}, "deadline_seconds"),
        ({"deadline_seconds": True}, "deadline_seconds"),
        ({"keep_late": "no"}, "keep_late"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": 0}, "idempotency_key"),
        ({"webhook_url": 7}, "webhook_url"),
        ({"webhook_events": 7}, "webhook_events"),
        ({"webhook_events": ["failed", 7]}, "webhook_events.1"),
        ({"webhook_events": [["failed"]]}, "webhook_events.0"),
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"idempotency_key": "a\nb"}, "idempotency_key"),
        ({"idempotency_key": 17}, "idempotency_key"),
        ({"on_unknown": "again"}, "on_unknown"),
        ({"webhook_url": "ftp://example.com"}, "webhook_url"),
        ({"webhook_events": ["done"]}, "webhook_events.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_option_that_is_wrong_is_named_and_nothing_is_written(
    darkroom: Darkroom, redis: Redis, stored: Callable[[], list[Path]], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue(remix(painted()), **options)
    assert [one.field for one in error.value.errors] == [field]
    assert (redis.dbsize(), stored()) == (0, [])


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (generate(prompt="x" * (MAX_FIELD_CHARACTERS + 1)), "prompt"),
        (
            phota.Remix(
                input_image=painted(),
                reference_image=painted(),
                num_output_images=1,
                output_format="jpg",
                response_mode="urls",
                profile_ids=["x"] * MAX_FIELD_CHARACTERS,
            ),
            "profile_ids",
        ),
    ],
)
def test_a_field_that_is_too_long_is_refused(
    darkroom: Darkroom, redis: Redis, stored: Callable[[], list[Path]], request_: Request, field: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.enqueue(request_)
    assert [one.field for one in error.value.errors] == [field]
    assert (redis.dbsize(), stored()) == (0, [])
    assert darkroom.enqueue(generate(prompt="x" * MAX_FIELD_CHARACTERS)).status is Status.QUEUED


def test_metadata_may_be_as_large_as_the_limit(darkroom: Darkroom) -> None:
    metadata = {"x": "y" * (MAX_METADATA_BYTES - len('{"x": ""}'))}
    assert darkroom.get(darkroom.enqueue(generate(), metadata=metadata).id).metadata == metadata


# --- the same key -----------------------------------------------------------------------------------------------------


def test_the_same_key_with_the_same_request_is_the_same_job(darkroom: Darkroom, redis: Redis) -> None:
    first = darkroom.enqueue(remix(painted()), idempotency_key="order-17")
    again = darkroom.enqueue(remix(io.BytesIO(painted())), idempotency_key="order-17", metadata={"other": 1})
    assert again == first
    assert redis.llen("darkroom.chainhub") == 1


def test_without_a_key_each_enqueue_makes_a_job(darkroom: Darkroom) -> None:
    first, second = (darkroom.enqueue(generate(), idempotency_key=None) for _ in range(2))
    assert first.id != second.id


def test_the_same_key_with_another_request_is_a_conflict(darkroom: Darkroom) -> None:
    first = darkroom.enqueue(generate(), idempotency_key="order-17")
    with pytest.raises(IdempotencyConflict, match=first.id) as error:
        darkroom.enqueue(generate(prompt="another"), idempotency_key="order-17")
    assert error.value.job_id == first.id
    with pytest.raises(IdempotencyConflict):
        darkroom.enqueue(remix(URL), idempotency_key="order-17")


def test_each_owner_has_keys_of_its_own(darkroom: Darkroom) -> None:
    ids = {darkroom.enqueue(generate(), idempotency_key="k", owner=owner).id for owner in ("", "shop", "blog")}
    assert len(ids) == 3


def test_the_same_key_from_many_threads_makes_one_job(darkroom: Darkroom) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {job.id for job in pool.map(lambda _: darkroom.enqueue(generate(), idempotency_key="k"), range(24))}
    assert len(ids) == 1
    assert len(darkroom.list().jobs) == 1


# --- get --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["", "a" * 32, "x" * 31, "*" * 32, "../../etc/passwd", "darkroom:due", None, 7])
def test_an_id_without_a_job_is_not_found(darkroom: Darkroom, job_id: Any) -> None:
    for ask in (darkroom.get, darkroom.cancel, darkroom.retry, lambda name: darkroom.wait(name, timeout=0.1)):
        with pytest.raises(JobNotFound):
            ask(job_id)


def test_reading_an_overdue_job_ends_it_when_no_worker_is_running(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate(), deadline_seconds=1)
    assert darkroom.get(job.id).status is Status.QUEUED
    time.sleep(1.1)
    late = darkroom.get(job.id)
    assert late.error is not None
    assert (late.status, late.error.code) == (Status.FAILED, Code.DEADLINE)
    assert darkroom.list([Status.FAILED]).jobs[0].id == job.id


def test_the_artifacts_of_a_job_can_sign_their_urls(darkroom: Darkroom) -> None:
    job = succeed(darkroom, darkroom.enqueue(generate()))
    for found in (darkroom.get(job.id), darkroom.wait(job.id, 1), darkroom.list().jobs[0], darkroom.cancel(job.id)):
        assert found.artifacts[0].url().startswith("https://darkroom.example/")
        assert "jobs/k.png" in found.artifacts[0].url()


# --- wait -------------------------------------------------------------------------------------------------------------


def test_wait_returns_when_the_job_is_final(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(darkroom.wait, job.id, 60)
        time.sleep(0.2)
        succeed(darkroom, job)
        assert waiting.result(timeout=60).status is Status.SUCCEEDED


def test_wait_for_a_final_job_returns_at_once(darkroom: Darkroom) -> None:
    job = darkroom.cancel(darkroom.enqueue(generate()).id)
    assert darkroom.wait(job.id, timeout=0).status is Status.CANCELED


def test_wait_does_not_poll(darkroom: Darkroom, redis: Redis) -> None:
    job = darkroom.enqueue(generate())
    redis.config_resetstat()
    with pytest.raises(TimeoutError):
        darkroom.wait(job.id, timeout=2)
    stats = redis.info("commandstats")
    reads = sum(stats.get(name, {}).get("calls", 0) for name in ("cmdstat_get", "cmdstat_mget", "cmdstat_evalsha"))
    assert 1 <= reads <= 3  # at first, when the subscription begins, and at the end


def test_a_timeout_says_where_the_job_is_and_that_it_goes_on(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    with pytest.raises(TimeoutError, match=rf"job {job.id} is still queued after 0\.1 s; it goes on"):
        darkroom.wait(job.id, timeout=0.1)
    assert darkroom.get(job.id).status is Status.QUEUED


def test_many_can_wait_for_one_job(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(darkroom.wait, job.id, 60) for _ in range(8)]
        time.sleep(0.3)
        darkroom.cancel(job.id)
        assert {future.result(timeout=60).status for future in waiting} == {Status.CANCELED}


def test_a_change_between_reading_and_listening_is_not_missed(darkroom: Darkroom) -> None:
    with ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            job = darkroom.enqueue(generate())
            pool.submit(darkroom.cancel, job.id)
            assert darkroom.wait(job.id, timeout=60).status is Status.CANCELED


# --- cancel and retry -------------------------------------------------------------------------------------------------


def test_cancel_is_idempotent_and_too_late_for_what_is_final(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    assert darkroom.cancel(job.id).status is Status.CANCELED
    assert darkroom.cancel(job.id).status is Status.CANCELED
    done = succeed(darkroom, darkroom.enqueue(generate()))
    assert darkroom.cancel(done.id).status is Status.SUCCEEDED


def test_a_retry_sends_a_message_of_its_own(darkroom: Darkroom, redis: Redis) -> None:
    job = darkroom.cancel(darkroom.enqueue(generate()).id)
    assert darkroom.retry(job.id).status is Status.QUEUED
    assert redis.llen("darkroom.deepmode") == 2


def test_a_retry_that_may_be_charged_needs_consent(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    act(darkroom, job, claim, send)
    darkroom.cancel(job.id)
    with pytest.raises(ChargePossible):
        darkroom.retry(job.id)
    assert darkroom.retry(job.id, may_charge_again=True).status is Status.QUEUED
    with pytest.raises(NotPossible):
        darkroom.retry(job.id, may_charge_again=True)


# --- news -------------------------------------------------------------------------------------------------------------


def test_a_success_wakes_a_worker(darkroom: Darkroom, redis: Redis) -> None:
    job = darkroom.enqueue(generate())
    act(darkroom, job, claim, send)
    redis.delete("darkroom.deepmode")
    change = darkroom.report(job.id, 1, SUCCESS)
    assert change.applied
    assert redis.llen("darkroom.deepmode") == 1


def test_a_report_without_work_to_do_wakes_no_worker(darkroom: Darkroom, redis: Redis) -> None:
    job = darkroom.enqueue(generate())
    act(darkroom, job, claim, send)
    redis.delete("darkroom.deepmode")
    darkroom.report(job.id, 1, Running("ext"))
    assert not darkroom.report(job.id, 1, Running("ext")).applied
    assert not darkroom.report(job.id, 7, SUCCESS).applied
    darkroom.report(job.id, 1, Failed(Code.RATE_LIMITED, "slow", retryable=True, charged=Charged.NO))
    assert redis.llen("darkroom.deepmode") == 0


def test_a_separate_broker_gets_the_message(settings: Settings, redis: Redis) -> None:
    apart = settings.model_copy(update={"broker_url": settings.redis_url[:-1] + "1"})
    darkroom = Darkroom.open(apart)
    try:
        job = darkroom.enqueue(generate())
        with Redis.from_url(apart.broker) as broker:
            (message,) = broker.lrange("darkroom.deepmode", 0, -1)
            assert json.loads(base64.b64decode(json.loads(message)["body"]))[0] == [job.id]
            broker.flushdb()
        assert redis.llen("darkroom.deepmode") == 0
    finally:
        darkroom.dispatch.app.close()


def test_a_job_is_accepted_while_a_separate_broker_is_away(settings: Settings) -> None:
    """An application that gets an error enqueues again, and pays twice. Workers find a job without a message in its lane."""
    connections = 0

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            nonlocal connections
            connections += 1

    with socketserver.TCPServer(("127.0.0.1", 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        darkroom = Darkroom.open(
            settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{server.server_address[1]}/0"})
        )
        try:
            job = darkroom.enqueue(generate())
            for_one = connections
            batch = darkroom.enqueue_many([NewJob(generate())] * 20)
            for_twenty = connections - for_one
            assert darkroom.cancel(job.id).status is Status.CANCELED
            assert darkroom.retry(job.id).status is Status.QUEUED
        finally:
            server.shutdown()
            darkroom.close()
    assert for_one > 0
    assert for_twenty <= 2 * for_one  # a broker that is away is asked once, not for each job
    with closing(Darkroom.open(settings)) as darkroom:
        assert {one.id for one in darkroom.list().jobs} == {job.id, *(one.id for one in batch)}


# --- the module's functions -------------------------------------------------------------------------------------------


def test_the_module_acts_on_the_darkroom_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("DARKROOM_STORAGE_URL", settings.storage_url)
    job = jobs.enqueue(generate(), idempotency_key="k")
    assert jobs.get(job.id) == job
    assert jobs.cancel(job.id).status is Status.CANCELED
    assert jobs.wait(job.id, timeout=1).status is Status.CANCELED
    assert jobs.retry(job.id, may_charge_again=False).status is Status.QUEUED
    current().close()


def test_a_message_is_sent_only_when_a_worker_is_needed_now(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    assert queue.needs_worker(job)
    assert not queue.needs_worker(act(darkroom, job, claim))
    assert not queue.needs_worker(act(darkroom, job, send))


# --- list and watch ---------------------------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page_newest_first(darkroom: Darkroom) -> None:
    batch = darkroom.enqueue_many([NewJob(generate(prompt=str(number))) for number in range(7)])
    found: list[Job] = []
    page = Page((), None)
    while not found or page.next_cursor:
        page = darkroom.list(limit=3, cursor=page.next_cursor)
        assert tuple(page) == page.jobs
        found += page
        assert len(page) <= 3
    assert [job.id for job in found] == [job.id for job in reversed(batch)]


def test_each_filter_of_a_list_finds_its_jobs_alone(darkroom: Darkroom) -> None:
    mine = darkroom.enqueue(generate(), metadata={"user": "42", "size": 7, "vip": True})
    other = darkroom.enqueue(remix(URL), metadata={"user": "43"}, owner="shop")
    late = darkroom.enqueue(generate(), deadline_seconds=1)
    darkroom.cancel(other.id)
    time.sleep(1.1)
    darkroom.get(late.id)
    newest = darkroom.enqueue(generate())

    def found(**conditions: Any) -> set[str]:
        return {job.id for job in darkroom.list(**conditions).jobs}

    assert found() == {mine.id, other.id, late.id, newest.id}
    assert found(status="canceled") == found(operation="chainhub.ideogram-remix") == found(owner="shop") == {other.id}
    assert found(status=["canceled", Status.FAILED]) == {other.id, late.id}
    assert found(code="deadline") == {late.id}
    assert found(metadata={"user": "42"}) == found(metadata={"size": 7}) == found(metadata={"size": "7"}) == {mine.id}
    assert found(metadata={"vip": True}) == found(metadata={"vip": "true"}) == {mine.id}
    assert not found(metadata={"vip": 1}) | found(metadata={"user": "42", "size": 8}) | found(metadata={"user": None})
    assert found(created_after=late.created_at + timedelta(seconds=0.5)) == {newest.id}
    assert found(unknown=True) == set()
    assert found(status="canceled", owner="shop") == {other.id}
    assert found(status="queued", owner="shop") == set()


def test_a_list_of_rare_jobs_reads_a_bounded_number_of_records(darkroom: Darkroom) -> None:
    rare = darkroom.enqueue(generate(), metadata={"rare": 1})
    time.sleep(1)  # the jobs of a batch of 1,000 are dated a millisecond apart
    for _ in range(0, MAX_RECORDS, 1000):
        darkroom.enqueue_many([NewJob(generate())] * 1000)
    first = darkroom.list(metadata={"rare": 1})
    assert (first.jobs, first.next_cursor is None) == ((), False)
    second = darkroom.list(metadata={"rare": 1}, cursor=first.next_cursor)
    assert ([job.id for job in second.jobs], second.next_cursor) == ([rare.id], None)


def test_all_faults_of_a_list_are_named_at_once_with_the_nearest_names(darkroom: Darkroom) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.list(
            status=["suceeded", "done"],
            operation="deepmode.genrate",
            code="moderate",
            metadata=["user"],  # type: ignore[arg-type]
            created_after=datetime.now(),  # noqa: DTZ005 - naive on purpose
            limit=0,
            cursor="next",
        )
    wrong = ["status", "status", "operation", "code", "metadata", "created_after", "limit", "cursor"]
    assert [one.field for one in error.value.errors] == wrong
    for nearest in ("succeeded", "deepmode.generate", "moderated"):
        assert f'did you mean "{nearest}"?' in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 7},
        {"status": [["failed"]]},
        {"operation": 7},
        {"code": 7},
        {"created_after": "2026-11-26"},
        {"limit": 1001},
        {"limit": "10"},
        {"cursor": 7},
        {"cursor": ""},
    ],
    ids=str,
)
def test_a_condition_of_another_type_is_named(darkroom: Darkroom, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as error:
        darkroom.list(**wrong)
    assert [[one.field] for one in error.value.errors] == [list(wrong)]


def test_watch_yields_the_job_at_each_change_until_it_is_final(darkroom: Darkroom) -> None:
    job = darkroom.enqueue(generate())
    seen = [Status.QUEUED]
    watched = darkroom.watch(job.id, timeout=20)
    assert next(watched).status is Status.QUEUED
    for change in (claim, send, lambda job, now: transitions.reported(job, 1, SUCCESS, now), keep):
        act(darkroom, job, change)
        seen.append(next(watched).status)
    assert seen == [Status.QUEUED, Status.QUEUED, Status.SUBMITTING, Status.STORING, Status.SUCCEEDED]
    assert list(watched) == []


def test_watch_of_a_job_that_stays_ends_with_a_timeout(darkroom: Darkroom) -> None:
    watched = darkroom.watch(darkroom.enqueue(generate()).id, timeout=0.1)
    assert next(watched).status is Status.QUEUED
    with pytest.raises(TimeoutError, match=r"is still queued after 0\.1 s"):
        next(watched)


def test_an_artifact_is_read_from_the_storage(darkroom: Darkroom) -> None:
    job = succeed(darkroom, darkroom.enqueue(generate()))
    [artifact] = darkroom.get(job.id).artifacts
    with pytest.raises(StorageError, match="does not exist"):
        artifact.read()
    darkroom.storage.put(artifact.key, painted(), content_type="image/png", metadata={})
    assert artifact.read() == painted()
