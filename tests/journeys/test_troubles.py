"""Faults of providers: each ends in a final job that says so, and nothing is paid twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from jobs import Charged, ChargePossible, Code, Job, Outcome, Status
from jobs.providers import aimlapi, chainhub, deepmode, phota

pytestmark = pytest.mark.journey


def reve(picture: bytes, prompt: str) -> aimlapi.ReveRemix:
    return aimlapi.ReveRemix(image_urls=[picture], prompt=prompt)


def ideogram(picture: bytes, prompt: str) -> chainhub.IdeogramRemix:
    return chainhub.IdeogramRemix(image_file=picture, prompt=prompt)


def remix(picture: bytes, prompt: str) -> phota.Remix:
    return phota.Remix(
        input_image=picture,
        reference_image=picture,
        prompt=prompt,
        num_output_images=1,
        output_format="jpg",
        response_mode="urls",
    )


def face_id(picture: bytes, prompt: str) -> deepmode.FaceIdRemix:
    return deepmode.FaceIdRemix(identity_image=picture, artwork_image=picture, mask_image=picture, prompt=prompt)


def generate(images: int = 1, prompt: str = "a lake") -> deepmode.Generate:
    return deepmode.Generate(model_id="m", prompt=prompt, num_images=images)


def booked(vendors: Any, before: int, provider: str) -> list[dict[str, Any]]:
    """What was submitted to a provider since, refused or not."""
    return [one for one in vendors.submissions()[before:] if one["vendor"] == provider]


@pytest.fixture
def before(vendors: Any) -> int:
    """How many submissions are on the books already."""
    return len(vendors.submissions())


# Unreadable answers: possibly charged, never sent again -----------------------------------------------------


@pytest.mark.parametrize("fault", ["not-json", "truncated", "drop", "reset", "500-late"])
def test_an_unreadable_answer_is_never_sent_again(
    quiet: Any, picture: bytes, vendors: Any, before: int, fault: str
) -> None:
    job = quiet.run(face_id(picture, f"unreadable: {fault}"), f"{fault}@deepmode*1")
    (submission,) = booked(vendors, before, "deepmode")
    (attempt,) = job.attempts
    assert job.status is Status.FAILED
    assert attempt.charged is Charged.UNKNOWN
    assert submission["charged"]
    seen = fault in ("not-json", "500-late")
    assert job.error.code is (Code.PROVIDER_ERROR if seen else Code.OUTCOME_UNKNOWN)
    assert attempt.outcome is (Outcome.REJECTED if seen else Outcome.UNKNOWN)
    assert job.error.message.strip()


def test_a_job_with_an_unknown_outcome_is_listed_and_only_retried_with_consent_to_a_charge(
    quiet: Any, picture: bytes, vendors: Any
) -> None:
    job = quiet.run(face_id(picture, "dropped, then retried by a person"), "drop@deepmode*1")
    assert job.id in {one.id for one in quiet.darkroom.list(unknown=True).jobs}
    with pytest.raises(ChargePossible):
        quiet.darkroom.retry(job.id)
    quiet.darkroom.retry(job.id, may_charge_again=True)
    again = quiet.wait(job)
    assert again.status is Status.SUCCEEDED
    assert [attempt.outcome for attempt in again.attempts] == [Outcome.UNKNOWN, Outcome.SUCCEEDED]
    assert len(vendors.submissions("dropped, then retried by a person")) == 2


def test_a_job_may_consent_to_be_charged_again(quiet: Any, picture: bytes, vendors: Any) -> None:
    job = quiet.run(face_id(picture, "charge_again"), "drop@deepmode*1", on_unknown="charge_again")
    assert job.status is Status.SUCCEEDED
    assert [attempt.charged for attempt in job.attempts] == [Charged.UNKNOWN, Charged.YES]
    assert [one["charged"] for one in vendors.submissions("charge_again")] == [True, True]


@pytest.mark.parametrize("fault", ["drop", "truncated"])
def test_a_callback_replaces_an_answer_that_was_lost(calling: Any, vendors: Any, fault: str) -> None:
    prompt = f"lost answer, callback: {fault}"
    job = calling.run(generate(2, prompt), f"{fault}@deepmode*1")
    assert job.status is Status.SUCCEEDED
    assert len(vendors.submissions(prompt)) == 1
    assert job.attempts[0].outcome is Outcome.SUCCEEDED
    assert "outcome of 1 unknown: waiting for its callback" in [event.what for event in job.timeline]


def test_the_same_key_replaces_an_answer_that_was_lost(calling: Any, picture: bytes, vendors: Any) -> None:
    job = calling.run(remix(picture, "lost, same key"), "drop@phota*1", "callback-never@phota*1")
    (submission,) = vendors.submissions("lost, same key")
    assert job.status is Status.SUCCEEDED
    assert len(job.attempts) == 1
    assert submission["details"]["repeats"] == 1


# Refusals: nothing was charged ---------------------------------------------------------------------------------------


def test_a_free_refusal_is_retried(quiet: Any, picture: bytes, vendors: Any, before: int) -> None:
    # AIML never charges a failure. Each job meets one of them, whichever comes first.
    refusals = ("503", "429", "500")
    vendors.arm(*(f"{fault}@aimlapi*1" for fault in refusals))
    jobs = [quiet.darkroom.enqueue(reve(picture, f"refused, {place}")) for place, _ in enumerate(refusals)]
    for job in [quiet.wait(job) for job in jobs]:
        assert job.status is Status.SUCCEEDED
        assert [attempt.charged for attempt in job.attempts] == [Charged.NO, Charged.YES]
    assert sorted(one["charged"] for one in booked(vendors, before, "aimlapi")) == [False] * 3 + [True] * 3


@pytest.mark.parametrize("faults", [["data-null"], ["data-null", "no-meta"], ["data-empty", "no-usage"]])
def test_an_answer_without_images_is_not_bought_again(
    quiet: Any, picture: bytes, vendors: Any, before: int, faults: list[str]
) -> None:
    job = quiet.run(reve(picture, "nothing came"), *(f"{fault}@aimlapi*1" for fault in faults))
    assert (job.status, job.error.code) == (Status.FAILED, Code.PROVIDER_ERROR)
    assert [attempt.charged for attempt in job.attempts] == [Charged.UNKNOWN]
    assert len(booked(vendors, before, "aimlapi")) == 1


def test_retry_after_is_obeyed(quiet: Any, picture: bytes, vendors: Any, before: int) -> None:
    job = quiet.run(reve(picture, "come back later"), "429-retry-after=3@aimlapi*1")
    waited = (job.attempts[1].started_at - job.attempts[0].ended_at).total_seconds()
    assert 3.0 <= waited < 5.0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("400@aimlapi*1", Code.INVALID_REQUEST),
        ("401@aimlapi*1", Code.UNAUTHORIZED),
        ("402@phota*1", Code.OUT_OF_CREDIT),
        ("moderated@phota*1", Code.MODERATED),
        ("violation@aimlapi*1", Code.MODERATED),
        ("code=1301@chainhub*1", Code.MODERATED),
        ("error-object@chainhub*1", Code.PROVIDER_ERROR),
        ("user-quota@chainhub*1", Code.OUT_OF_CREDIT),
        ("task-failed@chainhub*1", Code.PROVIDER_ERROR),
        ("500@chainhub*1", Code.PROVIDER_ERROR),
    ],
)
def test_a_final_refusal_ends_the_job_with_a_code_and_a_sentence(
    quiet: Any, picture: bytes, vendors: Any, before: int, fault: str, code: Code
) -> None:
    provider = fault.partition("@")[2].partition("*")[0]
    make = {"aimlapi": reve, "phota": remix, "chainhub": ideogram}[provider]
    job = quiet.run(make(picture, fault), fault)
    assert (job.status, job.error.code) == (Status.FAILED, code)
    assert len(job.error.message) > 10
    assert len(booked(vendors, before, provider)) == 1


# Polls and callbacks ----------------------------------------------------------------------------------------------


def test_a_poll_without_news_is_repeated(quiet: Any, picture: bytes, vendors: Any) -> None:
    troubles = ("poll-500", "poll-not-json", "poll-drop", "poll-404", "poll-429", "poll-truncated")
    vendors.arm(*(f"{fault}@chainhub*1" for fault in troubles))
    jobs = [quiet.darkroom.enqueue(ideogram(picture, f"polled, {place}")) for place, _ in enumerate(troubles)]
    for place, job in enumerate(jobs):
        assert quiet.wait(job).status is Status.SUCCEEDED
        assert len(vendors.submissions(f"polled, {place}")) == 1


@pytest.mark.parametrize("fault", ["callback-not-json", "callback-garbage", "callback-bad-signature"])
def test_an_unverified_callback_changes_nothing_and_a_poll_brings_the_result(
    calling: Any, picture: bytes, vendors: Any, fault: str
) -> None:
    job = calling.run(ideogram(picture, fault), f"{fault}@chainhub*1")
    (submission,) = vendors.submissions(fault)
    refused = 403 if fault == "callback-bad-signature" else 422
    assert {posted["status"] for posted in submission["callbacks"]} == {refused}
    assert job.status is Status.SUCCEEDED


def test_fewer_images_than_asked_succeed_and_name_the_missing(quiet: Any) -> None:
    job = quiet.run(generate(3, "fewer"), "fewer=2@deepmode*1")
    assert job.status is Status.SUCCEEDED
    assert [artifact.index for artifact in job.artifacts] == [0]
    assert [(one.index, one.code) for one in job.missing] == [(1, Code.PROVIDER_ERROR), (2, Code.PROVIDER_ERROR)]
    assert "1 of 3" in job.missing[0].message


def test_a_withheld_image_is_missing_and_the_others_are_stored(quiet: Any, picture: bytes) -> None:
    request = chainhub.IdeogramRemix(image_file=picture, prompt="one withheld", num_images=3)
    job = quiet.run(request, "unsafe=1@chainhub*1")
    assert job.status is Status.SUCCEEDED
    assert [artifact.index for artifact in job.artifacts] == [0, 2]
    assert [(one.index, one.code) for one in job.missing] == [(1, Code.MODERATED)]


# Deadlines and cancels --------------------------------------------------------------------------------------------


def test_a_lost_callback_ends_at_the_deadline_and_is_never_submitted_again(calling: Any, vendors: Any) -> None:
    job = calling.run(generate(prompt="never called back"), "callback-never@deepmode*1", deadline_seconds=1)
    assert (job.status, job.error.code) == (Status.FAILED, Code.DEADLINE)
    assert len(vendors.submissions("never called back")) == 1


def test_a_result_after_the_deadline_is_salvaged(calling: Any, vendors: Any, wait_until: Any) -> None:
    job = calling.run(generate(prompt="too late"), "callback-late=2@deepmode*1", deadline_seconds=1)
    assert job.error.code is Code.DEADLINE
    wait_until(lambda: calling.darkroom.get(job.id).status is Status.SUCCEEDED, "the late picture")
    late = calling.darkroom.get(job.id)
    assert late.error is None
    assert len(late.artifacts) == 1


@pytest.mark.parametrize("keep_late", [True, False])
def test_a_job_canceled_while_it_runs_stores_late_images_only_if_it_says_so(
    calling: Any, vendors: Any, bucket: Any, wait_until: Any, keep_late: bool
) -> None:
    prompt = f"canceled, keep_late={keep_late}"
    vendors.arm("latency=1.0@deepmode*1")
    job = calling.darkroom.enqueue(generate(2, prompt), keep_late=keep_late)
    wait_until(lambda: calling.darkroom.get(job.id).status is Status.RUNNING, "the acknowledgement")
    assert calling.darkroom.cancel(job.id).status is Status.CANCELED
    wait_until(lambda: calling.darkroom.get(job.id).attempts[0].outcome is Outcome.SUCCEEDED, "the late result")
    if keep_late:
        wait_until(lambda: len(calling.darkroom.get(job.id).artifacts) == 2, "the late pictures")
    canceled = calling.darkroom.get(job.id)
    assert canceled.status is Status.CANCELED
    assert canceled.attempts[0].charged is Charged.YES
    assert len(bucket.keys(f"jobs/{job.id}/")) == (2 if keep_late else 0)


# Results ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brief(sites: Any, bucket: Any, new_vendors: Callable[..., Any]) -> Any:
    """A site of providers whose URLs live for two seconds."""
    site = sites.new("brief", vendors=new_vendors("brief", "--result-life", "2"), storage=bucket.storage())
    site.await_workers(site.start_worker())
    return site


def test_a_url_that_expired_is_signed_again(brief: Any) -> None:
    """It expires after two seconds, before the host, which fails twice, is asked a third time."""
    job = brief.run(generate(1, "expired"), "result-500@deepmode*2")
    assert job.status is Status.SUCCEEDED
    assert len(brief.vendors.submissions("expired")) == 1
    assert brief.vendors.sandbox._control("GET", "traffic")["requests"]["deepmode"] == 2  # the submit, and the signing


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("result-bomb", "pixels"),
        ("result-huge=68", "byte"),
        ("result-endless", ""),
        ("result-redirect=http://169.254.169.254/latest/meta-data/", ""),
        ("result-redirect=http://10.0.0.1/x.png", ""),
    ],
)
def test_a_result_that_must_not_be_stored_is_missing_and_says_why(
    quiet: Any, vendors: Any, fault: str, said: str
) -> None:
    job = quiet.run(generate(2, fault), f"{fault}@deepmode*1")
    assert job.status is Status.SUCCEEDED
    (missing,) = job.missing
    assert missing.code is Code.RESULT_REJECTED
    assert said in missing.message
    assert len(job.artifacts) == 1


def test_a_job_without_any_valid_image_fails(quiet: Any, picture: bytes) -> None:
    job = quiet.run(ideogram(picture, "only a bomb"), "result-bomb@chainhub*1")
    assert (job.status, job.error.code) == (Status.FAILED, Code.RESULT_REJECTED)
    assert job.attempts[0].charged is Charged.YES


def test_bytes_inside_an_answer_that_are_not_an_image_are_rejected(quiet: Any, picture: bytes) -> None:
    request = aimlapi.ReveRemix(image_urls=[picture], prompt="no image inside", convert_base64_to_url=False)
    job = quiet.run(request, "result-not-image@aimlapi*1")
    assert job.status is Status.FAILED
    assert job.attempts[0].charged is Charged.YES


def test_the_stored_type_comes_from_the_bytes(quiet: Any, bucket: Any) -> None:
    job = quiet.run(generate(prompt="a PNG by another name"), "result-png@deepmode*1")
    (artifact,) = job.artifacts
    assert (artifact.content_type, artifact.key.rpartition(".")[2]) == ("image/png", "png")
    assert bucket.read(artifact.key)["ContentType"] == "image/png"


@pytest.mark.parametrize("fault", ["result-500", "result-drop", "result-bounce", "result-slow"])
def test_a_result_whose_host_fails_once_is_fetched_again(quiet: Any, fault: str) -> None:
    job = quiet.run(generate(prompt=fault), f"{fault}@deepmode*1")
    assert job.status is Status.SUCCEEDED
    assert len(job.artifacts) == 1


# Results that stay bad: each is fetched four times over half a minute, while the tests above run ----------------------


@dataclass(frozen=True)
class Worn:
    """Jobs of a site of their own, one provider each, so that they meet their own faults."""

    site: Any
    jobs: Mapping[str, Job]


@pytest.fixture(scope="module", autouse=True)
def worn(sites: Any, bucket: Any, new_vendors: Callable[..., Any], picture: bytes) -> Worn:
    """Enqueued before the first test of this file."""
    vendors = new_vendors("worn")
    site = sites.new("worn", vendors=vendors, storage=bucket.storage())
    site.await_workers(site.start_worker())
    vendors.arm(
        "result-not-image@deepmode*4", "result-truncated@chainhub*4", "result-404@phota*4", "result-empty@aimlapi*4"
    )
    made = {
        "result-not-image": generate(prompt="no image, four times"),
        "result-truncated": ideogram(picture, "cut short, four times"),
        "result-404": remix(picture, "gone, four times"),
        "result-empty": reve(picture, "empty, four times"),
    }
    return Worn(site, {fault: site.darkroom.enqueue(request) for fault, request in made.items()})


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("result-not-image", Code.RESULT_REJECTED),
        ("result-truncated", Code.RESULT_REJECTED),
        ("result-empty", Code.RESULT_REJECTED),
        ("result-404", Code.RESULT_EXPIRED),
    ],
)
def test_a_result_that_stays_bad_is_fetched_four_times_and_then_given_up(worn: Worn, fault: str, code: Code) -> None:
    job = worn.site.wait(worn.jobs[fault])
    assert (job.status, job.error.code) == (Status.FAILED, code)
    stored_for = (job.finished_at - job.attempts[0].ended_at).total_seconds()
    assert 25 <= stored_for <= 40
