"""Each way in which the keeping of one image can end: an artifact, missing, or postponed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import Artifact, Code, Missing, StorageError
from jobs.images import AtUrl, InSpool, PendingImage, Postponed, Spooled
from jobs.job import Job
from jobs.providers import aimlapi, deepmode
from jobs.report import Image, Running, Succeeded
from jobs.sandbox.images import bomb
from jobs.storage import FolderStorage, S3Storage, artifact_key
from jobs.storage.spool import Spool
from worker.image_store import BAD_TRY_SECONDS, MAX_PAUSE_SECONDS


@pytest.fixture
def job(worker: Any) -> Job:
    """A job whose images are kept; its provider can sign no URL anew."""
    return worker.enqueue(aimlapi.ReveRemix(image_urls=["https://example.com/a.png"], prompt="a mug"))


@pytest.fixture
def store(worker: Any, job: Job) -> Callable[..., Any]:
    """Stores one image, by an image store with other parts."""

    def run(image: PendingImage, of: Job = job, **parts: Any) -> Any:
        return worker.do(replace(worker.runner.images, **parts).store(of, image))

    return run


def expiring(image: PendingImage, expires_at: datetime) -> PendingImage:
    """The image with a URL that stops working at this time."""
    return replace(image, source=replace(image.source, expires_at=expires_at))


def at(url: str, **fields: Any) -> PendingImage:
    """The first image of the first attempt, which lies there."""
    return PendingImage(0, 1, AtUrl(url), **fields)


# Kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content_type", "extension"),
    [("PNG", "image/png", "png"), ("JPEG", "image/jpeg", "jpg"), ("WEBP", "image/webp", "webp")],
)
def test_an_image_is_stored_with_the_type_of_its_bytes(
    store: Any, worker: Any, job: Job, host: Any, draw: Any, kind: str, content_type: str, extension: str
) -> None:
    content = draw("blue", kind, (120, 80))
    kept = store(at(host.put("/picture.gif", content, Content_Type="image/gif")))
    assert kept == Artifact(
        index=0,
        key=f"jobs/{job.id}/1/0.{extension}",
        content_type=content_type,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        width=120,
        height=80,
    )
    assert worker.darkroom.storage.get(kept.key) == content


def test_a_redirect_within_the_allowed_is_followed(store: Any, host: Any, draw: Any) -> None:
    there = host.put("/there.png", draw())
    assert isinstance(store(at(host.put("/here.png", status=302, Location=there))), Artifact)


def test_the_query_of_a_url_goes_out_as_it_came(store: Any, host: Any, draw: Any) -> None:
    host.put("/a.png?se=2024-07-11T00%3A34%3A17Z&sig=a%2Fb%3D", draw())
    assert isinstance(store(at(host.url + "/a.png?se=2024-07-11T00%3A34%3A17Z&sig=a%2Fb%3D")), Artifact)


def test_the_existing_object_under_the_key_is_used(store: Any, worker: Any, job: Job, host: Any, draw: Any) -> None:
    first, second = draw("red"), draw("blue")
    key = artifact_key(job.id, 1, 0, "png")
    worker.darkroom.storage.put(key, first, content_type="image/png", metadata={})
    kept = store(at(host.put("/again.png", second)))
    assert kept.sha256 == hashlib.sha256(first).hexdigest()
    assert worker.darkroom.storage.get(key) == first


def test_the_existing_object_in_a_bucket_is_used_too(store: Any, job: Job, host: Any, draw: Any, s3: Any) -> None:
    bucket = S3Storage(s3.bucket, "", s3.access)
    first, second = draw("red"), draw("blue")
    stored = store(at(host.put("/1.png", first)), storage=bucket)
    adopted = store(at(host.put("/1.png", second)), storage=bucket)
    assert adopted == stored
    assert bucket.get(stored.key) == first
    bucket.close()


# No image -------------------------------------------------------------------------------------------------------


def page(host: Any, draw: Any, what: str) -> str:
    whole = draw()
    return {
        "an HTML page": lambda: host.put("/x.png", b"<html>Bad Gateway</html>", Content_Type="image/png"),
        "nothing": lambda: host.put("/x.png", b""),
        "a half": lambda: host.put("/x.png", whole[: len(whole) // 2]),
        "a half of what it announced": lambda: host.put("/x.png", whole[:40], Content_Length=str(len(whole))),
    }[what]()


@pytest.mark.parametrize("what", ["an HTML page", "nothing", "a half", "a half of what it announced"])
def test_bytes_that_are_not_an_image_are_fetched_again_three_times_and_then_given_up(
    store: Any, host: Any, draw: Any, what: str
) -> None:
    image = at(page(host, draw, what))
    for tried, seconds in enumerate(BAD_TRY_SECONDS):
        end = store(replace(image, bad_tries=tried))
        assert (type(end), end.bad, end.after_seconds) == (Postponed, True, seconds)
    end = store(replace(image, bad_tries=len(BAD_TRY_SECONDS)))
    assert (type(end), end.code) == (Missing, Code.RESULT_REJECTED)
    assert sum(BAD_TRY_SECONDS) <= 30


def test_a_whole_image_under_a_length_that_is_too_large_is_stored_in_the_end(store: Any, host: Any, draw: Any) -> None:
    image = at(host.put("/x.png", draw(), Content_Length=str(len(draw()) + 2)))
    assert isinstance(store(image), Postponed)
    end = store(replace(image, bad_tries=len(BAD_TRY_SECONDS)))
    assert (type(end), end.size) == (Artifact, len(draw()))


def test_an_image_that_is_too_large_or_dangerous_is_given_up_at_once(store: Any, host: Any, draw: Any) -> None:
    ends = [
        store(at(host.put("/large.png", b"x" * 1025)), max_image_bytes=1024),
        store(at(host.put("/bomb.png", bomb()))),
        store(at(host.put("/both.png", draw() + b"PK\3\4 and a ZIP"))),
        store(at("http://169.254.169.254/latest/meta-data/")),
        store(at("ftp://127.0.0.1/x.png")),
        store(at(host.put("/away.png", status=302, Location="http://10.0.0.1/x.png"))),
        store(at(host.put("/loop.png", status=302, Location="/loop.png"))),
    ]
    assert [(type(end), end.code) for end in ends] == [(Missing, Code.RESULT_REJECTED)] * len(ends)
    assert all(end.message for end in ends)


def test_no_message_shows_a_signature(store: Any, host: Any) -> None:
    ends = [
        store(at(host.put("/x.png?sig=s3cr3t", b"no"))),
        store(at(host.put("/y.png?sig=s3cr3t", status=500))),
        store(at("http://10.0.0.1/x.png?sig=s3cr3t")),
    ]
    assert "s3cr3t" not in repr(ends)


# Hosts that stumble -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tries", "seconds"), [(0, 1), (1, 2), (2, 4), (5, 32), (6, MAX_PAUSE_SECONDS), (60, MAX_PAUSE_SECONDS)]
)
def test_a_host_that_fails_is_asked_again_ever_more_rarely(store: Any, host: Any, tries: int, seconds: float) -> None:
    end = store(at(host.put("/x.png", status=500), tries=tries))
    assert (type(end), end.bad, end.after_seconds) == (Postponed, False, seconds)


def test_a_host_that_is_away_is_asked_until_the_url_dies(store: Any, worker: Any, free_port: int) -> None:
    now = worker.runner.images.now()
    away = at(f"http://127.0.0.1:{free_port}/x.png")
    assert isinstance(store(expiring(away, now + timedelta(hours=1))), Postponed)
    end = store(expiring(away, now - timedelta(seconds=1)))
    assert (type(end), end.code) == (Missing, Code.RESULT_EXPIRED)


def test_without_a_known_end_of_the_url_a_day_is_enough(store: Any, worker: Any, free_port: int) -> None:
    now = worker.runner.images.now()
    away = at(f"http://127.0.0.1:{free_port}/x.png")
    assert isinstance(store(replace(away, failing_since=now - timedelta(hours=23))), Postponed)
    assert isinstance(store(replace(away, failing_since=now - timedelta(hours=25))), Missing)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_url_that_is_refused_is_tried_three_times_more(store: Any, host: Any, status: int) -> None:
    image = at(host.put("/x.png", status=status))
    first = store(image)
    assert (type(first), first.bad, first.source, first.after_seconds) == (Postponed, True, None, BAD_TRY_SECONDS[0])
    last = store(replace(image, bad_tries=3))
    assert (type(last), last.code) == (Missing, Code.RESULT_EXPIRED)


def test_an_image_that_was_stored_before_its_url_expired_is_found(
    store: Any, worker: Any, job: Job, host: Any, png: bytes
) -> None:
    worker.darkroom.storage.put(artifact_key(job.id, 1, 0, "png"), png, content_type="image/png", metadata={})
    end = store(at(host.put("/x.png", status=403)))
    assert (type(end), end.sha256) == (Artifact, hashlib.sha256(png).hexdigest())


# Signed anew ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rendered(worker: Any, sandbox: Any) -> Job:
    """A job of a provider that signs URLs anew, whose images are rendered and not stored yet."""
    sandbox.arm("result-500@deepmode*1")
    return worker.run(worker.enqueue(deepmode.Generate(model_id="m", prompt="a lake")))


@pytest.fixture
def dead(worker: Any, rendered: Job) -> PendingImage:
    """Its image, whose URL is refused and whose time is over."""
    (image,) = rendered.pending
    over = worker.runner.images.now() - timedelta(seconds=1)
    return replace(image, source=replace(image.source, url=image.source.url.replace("sig=", "sig=x"), expires_at=over))


def test_a_dead_url_is_signed_again_at_once_where_the_provider_can(
    store: Any, worker: Any, rendered: Job, dead: PendingImage
) -> None:
    end = store(dead, rendered)
    assert (type(end), end.after_seconds) == (Postponed, 0)
    assert end.source.url != dead.source.url
    assert end.source.expires_at > worker.runner.images.now()
    assert isinstance(store(replace(dead, source=end.source), rendered), Artifact)


def test_a_url_that_should_live_is_given_time_before_it_is_signed_again(
    store: Any, worker: Any, rendered: Job, dead: PendingImage
) -> None:
    living = expiring(dead, worker.runner.images.now() + timedelta(hours=1))
    first = store(living, rendered)
    second = store(replace(living, bad_tries=1), rendered)
    assert (type(first), first.after_seconds, first.source) == (Postponed, BAD_TRY_SECONDS[0], None)
    assert (type(second), second.after_seconds) == (Postponed, BAD_TRY_SECONDS[1])
    assert second.source.url != living.source.url


@pytest.mark.parametrize("fault", ["poll-500", "poll-drop", "poll-404"])
def test_a_signing_that_fails_is_retried(
    store: Any, sandbox: Any, rendered: Job, dead: PendingImage, fault: str
) -> None:
    sandbox.arm(f"{fault}@deepmode*1")
    end = store(dead, rendered)
    assert (type(end), end.source, end.after_seconds) == (Postponed, None, BAD_TRY_SECONDS[0])


def test_a_job_of_a_provider_that_this_worker_does_not_serve_is_kept_without_signing(
    store: Any, worker: Any, rendered: Job, dead: PendingImage
) -> None:
    keyless = replace(worker.runner.calls, providers={})
    (image,) = rendered.pending
    end = store(replace(dead, bad_tries=3), rendered, calls=keyless)
    assert (type(end), end.source, end.bad) == (Postponed, None, False)  # another worker may have it signed anew
    yesterday = dead.expires_at - timedelta(days=1)
    assert store(replace(dead, failing_since=yesterday), rendered, calls=keyless).code is Code.RESULT_EXPIRED
    assert isinstance(store(image, rendered, calls=keyless), Artifact)


# Storage away -----------------------------------------------------------------------------------------------------


class Away(FolderStorage):
    """A storage that answers nothing."""

    def put(self, key: str, content: bytes, **_: Any) -> Any:
        raise StorageError(f"put {key}: no answer")

    def list(self, prefix: str = "") -> Any:
        raise StorageError(f"list {prefix}: no answer")


@pytest.fixture
def away(tmp_path: Path) -> Away:
    """A storage that answers nothing."""
    return Away(tmp_path / "away")


def test_while_the_storage_is_away_an_image_waits_until_its_url_dies(
    store: Any, worker: Any, host: Any, png: bytes, away: Away
) -> None:
    now = worker.runner.images.now()
    image = at(host.put("/x.png", png), tries=3)
    end = store(expiring(image, now + timedelta(minutes=30)), storage=away)
    assert (type(end), end.bad, end.after_seconds) == (Postponed, False, 8)
    end = store(expiring(image, now - timedelta(seconds=1)), storage=away)
    assert (type(end), end.code) == (Missing, Code.STORAGE_ERROR)


def test_a_dead_url_while_the_storage_is_away_is_not_given_up_unseen(store: Any, host: Any, away: Away) -> None:
    assert isinstance(store(at(host.put("/x.png", status=403), bad_tries=3), storage=away), Postponed)


def test_a_bucket_that_is_down_is_a_storage_that_is_away(store: Any, host: Any, png: bytes, free_port: int) -> None:
    from jobs.storage import S3Access

    bucket = S3Storage("b-1", "", S3Access(f"http://127.0.0.1:{free_port}", "us-east-1", "key", "secret", tries=1))
    assert isinstance(store(at(host.put("/x.png", png)), storage=bucket), Postponed)
    bucket.close()


# Inside an answer -------------------------------------------------------------------------------------------------


@pytest.fixture
def store_inline(worker: Any, job: Job) -> Callable[..., Any]:
    """Stores images that came inside an answer."""

    def run(*contents: bytes, **parts: Any) -> Any:
        report = Succeeded(tuple(Image(index, content=content) for index, content in enumerate(contents)))
        return worker.do(replace(worker.runner.images, **parts).store_inline(job, 1, report))

    return run


def test_images_inside_an_answer_are_stored_before_the_record_changes(
    store_inline: Any, worker: Any, draw: Any
) -> None:
    first, second = draw("red"), draw("blue")
    ends = store_inline(first, second)
    assert [worker.darkroom.storage.get(ends[index].key) for index in (0, 1)] == [first, second]


def test_bytes_inside_an_answer_that_are_not_an_image_are_missing_beside_the_others(
    store_inline: Any, png: bytes
) -> None:
    ends = store_inline(b"<html>", png)
    assert (ends[0].code, type(ends[1])) == (Code.RESULT_REJECTED, Artifact)


def test_an_image_that_the_storage_does_not_accept_is_spooled(
    store_inline: Any, worker: Any, png: bytes, away: Away
) -> None:
    (end,) = store_inline(png, storage=away).values()
    assert isinstance(end, Spooled)
    assert worker.runner.images.spool.read(end.name) == png


def test_a_full_spool_leaves_the_image_missing_and_says_both_reasons(
    store_inline: Any, png: bytes, away: Away, tmp_path: Path
) -> None:
    (end,) = store_inline(png, storage=away, spool=Spool(tmp_path / "full", 10)).values()
    assert (type(end), end.code) == (Missing, Code.STORAGE_ERROR)
    assert "no answer" in end.message
    assert "10 bytes" in end.message


def test_a_spooled_image_is_stored_and_one_in_another_hosts_spool_is_left_to_it(
    store: Any, store_inline: Any, png: bytes, away: Away, tmp_path: Path
) -> None:
    (end,) = store_inline(png, storage=away).values()
    image = PendingImage(0, 1, InSpool(end.name))
    assert isinstance(store(image, spool=Spool(tmp_path / "elsewhere", 1 << 20)), Postponed)
    assert isinstance(store(image), Artifact)


def test_images_with_a_url_and_other_reports_have_nothing_inside(worker: Any, job: Job) -> None:
    images = worker.runner.images
    assert worker.do(images.store_inline(job, 1, Running("x"))) == {}
    assert worker.do(images.store_inline(job, 1, Succeeded((Image(0, url="https://example.com/x"),)))) == {}


def test_images_that_a_dead_worker_stored_are_found_and_nothing_else(
    worker: Any, store_inline: Any, job: Job, png: bytes
) -> None:
    images = worker.runner.images
    assert worker.do(images.find_inline(job, 1)) == {}
    stored = store_inline(png)
    assert worker.do(images.find_inline(job, 1)) == stored
    assert worker.do(images.find_inline(job, 2)) == {}


def test_the_memory_of_an_image_is_freed_however_it_ends(store: Any, worker: Any, host: Any, png: bytes) -> None:
    store(at(host.put("/x.png", png)))
    store(at(host.put("/y.png", b"no")))
    store(at(host.put("/z.png", status=500)))
    assert worker.runner.images.budget.reserved == 0
